"""Which LLM rerankers are known, what each is asked, and which tokens are its answers.

A Qwen3-Reranker is published in three forms: a causal language model; the same with the files of a CrossEncoder of
sentence-transformers, whose layer `LogitScore` names the answers; and converted to sequence classification, where the
output head keeps only the row "yes" minus the row "no". All three are asked the yes/no prompt. Other models with
`LogitScore` are asked what their own chat template says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rag_core.base.errors import EngineError
from rag_core.engines.model_files import ModelFiles, read_json

# What no other model is asked. Where a chat template says it, the model is a Qwen3-Reranker.
_OPENING = "Judge whether the Document meets the requirements"
JUDGE = f"{_OPENING} based on the Query and the Instruct provided."

QWEN_YES_NO = (9693, 2152)  # ids of "yes" and "no" in the vocabulary of Qwen2 and Qwen3

# As sentence-transformers tells a template that wants a list of typed parts from one that wants text.
_SIGNS_OF_PARTS = ("content[0]", ".type", "'type'", '"type"', "message.content[")

_SAID_BY_VLLM = ("is_original_qwen3_reranker", "classifier_from_token")


@dataclass(frozen=True)
class ChatTemplate:
    """How sentence-transformers renders a pair with the chat template of a model's folder.

    Attributes:
        sha256: of the template.
        contents: a message holds "text", or a list of "parts".
        system: a system message before query and document, `None` for none.
        settings: what the template is given beside the messages.
    """

    sha256: str
    contents: Literal["text", "parts"] = "text"
    system: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """A name that differs where the prompt does."""
        content = json.dumps([self.sha256, self.contents, self.system, self.settings], sort_keys=True)
        return f"chat-template-1-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Question:
    """What an LLM reranker is asked, and what of its answer is the score.

    Attributes:
        template: the prompt; `None` is the yes/no prompt of Qwen3-Reranker.
        answers: ids of two tokens, whose logits' difference is the score, or of one, whose logit is; none are "yes"
            and "no".
        is_classifier: the head of the model gives the score itself.
        is_known: its files say that it was trained on this prompt.
        instruction: its own, `None` where it declares none.
    """

    template: ChatTemplate | None = None
    answers: tuple[int, ...] = ()
    is_classifier: bool = False
    is_known: bool = True
    instruction: str | None = None


def find_question(files: ModelFiles) -> tuple[Question, str] | None:
    """Return what an LLM reranker is asked, and from what that was read; `None` of a model that is none.

    Raises:
        EngineError: its `LogitScore` names no token.
    """
    if files.path("Pooling") is not None:
        return None
    if files.architecture.endswith("ForCausalLM"):
        layer = files.path("LogitScore")
        if layer is not None:
            return _by_logit_score(files, layer)
        return None if files.is_cross_encoder and files.modules else _by_name(files)
    if files.architecture == "Qwen3ForSequenceClassification" and len(files.config["id2label"]) == 1:
        return _converted(files)
    return None


def why_no_question(files: ModelFiles) -> str:
    """Return from what it was read that a cross-encoder reads query and passage without a prompt."""
    if not files.is_cross_encoder:
        return f"config.json says {files.architecture}"
    why = "config_sentence_transformers.json says CrossEncoder"
    if files.path("LogitScore") is not None:
        return f"{why}, and no chat template says what it is asked"
    if files.architecture == "Qwen3ForSequenceClassification":
        return f"{why} without LogitScore and without the prompt of Qwen3-Reranker: trained on bare pairs"
    return why


def _by_logit_score(files: ModelFiles, layer: str) -> tuple[Question, str] | None:
    scores = read_json(files.name, f"{layer}/config.json") or {}
    answers = tuple(scores[key] for key in ("true_token_id", "false_token_id") if scores.get(key) is not None)
    if scores.get("true_token_id") is None:
        raise EngineError(
            f"{files.name} has a layer LogitScore, and {layer}/config.json names no true_token_id",
            "Download the model again",
        )
    why = f"modules.json has LogitScore of token{'s' * (len(answers) > 1)} {' and '.join(map(str, answers))}"
    template, transformer = files.chat_template, read_json(files.name, "sentence_bert_config.json") or {}
    message = transformer.get("modality_config", {"message": {}}).get("message")  # how it takes a chat's messages
    question = Question(answers=answers, instruction=files.default_prompt)
    if _OPENING in (template or "") or "qwen3-reranker" in files.name.lower():
        return question, f"{why}, and it has the prompt of Qwen3-Reranker"
    if template is not None and message is not None:
        return Question(_chat_template(files, template, message, transformer), answers), (
            f"{why}, and its chat template says what it is asked"
        )
    if files.config["model_type"] == "qwen3" and answers == QWEN_YES_NO:
        return question, f"{why}, which are Qwen3's yes and no"
    return None


def _chat_template(
    files: ModelFiles, template: str, message: Mapping[str, Any], transformer: Mapping[str, Any]
) -> ChatTemplate:
    in_parts = message.get("format", "auto") == "structured" or (
        message.get("format", "auto") == "auto" and any(sign in template for sign in _SIGNS_OF_PARTS)
    )
    return ChatTemplate(
        hashlib.sha256(template.encode()).hexdigest(),
        "parts" if in_parts else "text",
        files.default_prompt,
        (transformer.get("processing_kwargs") or {}).get("chat_template") or {},
    )


def _by_name(files: ModelFiles) -> tuple[Question, str]:
    """Read it off a name, where nothing in the files of a Qwen3-Reranker differs from those of any Qwen3."""
    says = f"config.json says {files.architecture}"
    is_qwen = files.config["model_type"] == "qwen3"
    if is_qwen and ("reranker" in f"{files.name} {files.base}".lower() or _OPENING in (files.chat_template or "")):
        return Question(), says
    return Question(is_known=False), says


def _converted(files: ModelFiles) -> tuple[Question, str] | None:
    says = "config.json says Qwen3ForSequenceClassification with one label"
    question = Question(is_classifier=True, instruction=files.default_prompt)
    signs = [sign for sign in _SAID_BY_VLLM if files.config.get(sign)]
    if signs:
        return question, f"{says}, and {signs[0]}: a converted Qwen3-Reranker"
    if _OPENING in (files.chat_template or ""):
        return question, f"{says}, and its chat template has the prompt of Qwen3-Reranker: a converted one"
    if files.is_cross_encoder:
        return None
    return question, (
        f"{says}, and config_sentence_transformers.json says no CrossEncoder: taken as a converted Qwen3-Reranker"
    )
