"""LLM rerankers in every form that they are published in, with the vocabulary of Qwen.

All forms of the Qwen3-Reranker have the same weights, so that their scores can be compared.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from benchmarks import random_qwen
from tests.tiny_qwen import TINY_QWEN

YES, NO, ONE, ZERO, CAPITAL_YES = 9693, 2152, 16, 15, 9454

QWEN3_RERANKER_TEMPLATE = """\
{%- set found = namespace(task=none, query="", document="") %}
{%- for turn in messages %}
{%- if turn.role == "system" %}{% set found.task = turn.content %}{% endif %}
{%- if turn.role == "query" %}{% set found.query = turn.content %}{% endif %}
{%- if turn.role == "document" %}{% set found.document = turn.content %}{% endif %}
{%- endfor %}
{{- "<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query and the Instruct " }}
{{- 'provided. Note that the answer can only be "yes" or "no".<|im_end|>\\n<|im_start|>user\\n<Instruct>: ' }}
{{- found.task or "Given a web search query, retrieve relevant passages that answer the query" }}
{{- "\\n<Query>: " + found.query + "\\n<Document>: " + found.document }}
{{- "<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n" }}
"""

# The passage is not the last of the user's turn, and a space before a text is the template's.
ONE_OR_ZERO_TEMPLATE = """\
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first %}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first %}
{{- "<|endoftext|><|im_start|>system\\nYou compare texts.<|im_end|>\\n<|im_start|>user\\nquery: " + query }}
{{- "\\ndocument: " + document + "\\nIs the document of use (1) or not (0)?\\nRelevance:<|im_end|>\\n" }}
{{- "<|im_start|>assistant\\n" }}
"""

# The query is the system's turn, as text without the space around it; the answer begins where it is asked for.
SINGLE_TEMPLATE = """\
{%- for turn in messages %}
{{- "<|im_start|>" + {"query": "system", "document": "user"}.get(turn.role, turn.role) + "\\n" }}
{{- turn.content | trim + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{% endif %}
"""


def qwen3_reranker(folder: Path, dtype: str = "float32") -> None:
    """The causal language model and nothing else, as Qwen published it first."""
    _save(folder, "Qwen3ForCausalLM", dtype)


def published_qwen3_reranker(folder: Path, dtype: str = "float32") -> None:
    """As Qwen publishes it today: the same beside the files of a sentence-transformers CrossEncoder."""
    qwen3_reranker(folder, dtype)
    _add_logit_score(folder, (YES, NO), QWEN3_RERANKER_TEMPLATE)


def bare_logit_score(folder: Path) -> None:
    """A Qwen3-Reranker with LogitScore, but with neither a chat template nor a word on how pairs are read."""
    qwen3_reranker(folder)
    _add_logit_score(folder, (YES, NO), None)
    (folder / "sentence_bert_config.json").unlink()


def one_or_zero_reranker(folder: Path) -> None:
    """A Qwen2 that answers "1" or "0" to its own chat template, as mxbai-rerank-v2."""
    _save(folder, "Qwen2ForCausalLM", tie_word_embeddings=True)
    _add_logit_score(folder, (ONE, ZERO), ONE_OR_ZERO_TEMPLATE)


def single_answer_reranker(folder: Path) -> None:
    """A Qwen3 whose score is the logit of one token, as zerank-2."""
    _save(folder, "Qwen3ForCausalLM")
    _add_logit_score(folder, (CAPITAL_YES, None), SINGLE_TEMPLATE, {"add_generation_prompt": True})


def converted_qwen3_reranker(folder: Path, dtype: str = "float32", *, says_so: bool = False) -> None:
    """The Qwen3-Reranker as a sequence classifier: its head is the row "yes" minus the row "no"."""
    import torch
    from transformers import Qwen3ForSequenceClassification

    original = _model("Qwen3ForCausalLM").to(getattr(torch, dtype))
    model = Qwen3ForSequenceClassification(_config("Qwen3", num_labels=1)).to(getattr(torch, dtype))
    model.model.load_state_dict(original.model.state_dict())
    rows = original.lm_head.weight.detach().float()
    model.score.to(torch.float32).load_state_dict({"weight": rows[YES : YES + 1] - rows[NO : NO + 1]})
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    if says_so:  # as vLLM is told to convert the original, left behind in what was converted
        _change(folder / "config.json", is_original_qwen3_reranker=True, classifier_from_token=["no", "yes"])


def trained_qwen3_cross_encoder(folder: Path) -> None:
    """A Qwen3 sequence classifier that sentence-transformers saved, after a training on bare pairs."""
    converted_qwen3_reranker(folder)
    files = {
        "config_sentence_transformers.json": {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None},
        "modules.json": [_module(0, "", "base.modules.transformer.Transformer")],
        "sentence_bert_config.json": {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    }
    _write(folder, files)
    _change(folder / "config.json", pad_token_id=151643)


def unknown_causal_lm(folder: Path) -> None:
    """A language model that nobody says is a reranker."""
    _save(folder, "LlamaForCausalLM")


def unknown_sequence_classifier(folder: Path) -> None:
    """A decoder with one label, whose prompt nobody knows."""
    _save(folder, "LlamaForSequenceClassification", num_labels=1, pad_token_id=151643)


def _add_logit_score(
    folder: Path, answers: tuple[int, int | None], template: str | None, settings: dict[str, Any] | None = None
) -> None:
    """Add what sentence-transformers saves of a CrossEncoder over a causal language model."""
    forward = {"method": "forward", "method_output_name": "logits"}
    transformer = {
        "transformer_task": "text-generation",
        "modality_config": {"text": forward, "message": forward | {"format": "flat"}},
        "module_output_name": "causal_logits",
    }
    if settings:
        transformer["processing_kwargs"] = {"chat_template": settings}
    files = {
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {},
            "default_prompt_name": None,
        },
        "modules.json": [
            _module(0, "", "base.modules.transformer.Transformer"),
            _module(1, "1_LogitScore", "cross_encoder.modules.logit_score.LogitScore"),
        ],
        "1_LogitScore/config.json": {"true_token_id": answers[0], "false_token_id": answers[1]},
        "sentence_bert_config.json": transformer,
    }
    _write(folder, files)
    if template:
        (folder / "chat_template.jinja").write_text(template)


def _module(index: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2))


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2))


def _save(folder: Path, architecture: str, dtype: str = "float32", **config: Any) -> None:
    import torch

    _model(architecture, **config).to(getattr(torch, dtype)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _model(architecture: str, **config: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, architecture)(_config(architecture.partition("For")[0], **config))


def _config(family: str, **config: Any) -> Any:
    import transformers

    settings = random_qwen.QWEN | TINY_QWEN | {"tie_word_embeddings": False} | config
    return getattr(transformers, f"{family}Config")(**settings)


@functools.cache
def _tokenizer() -> Any:
    """Reading the vocabulary takes seconds."""
    return random_qwen.make_tokenizer()
