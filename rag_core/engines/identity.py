"""Which model is it: what kind, what it reads, and which exact weights."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.model_files import ModelFiles, exact_version, read_json, template_file
from rag_core.engines.model_folder import check_entries
from rag_core.engines.protocols import Role
from rag_core.engines.rerankers import JUDGE, Question, find_question, why_no_question
from rag_core.engines.role_prompts import AS_DECLARED, USUAL, PromptNames

ModelKind = Literal["llm-reranker", "cross-encoder", "bi-encoder"]

_DECLARED_QUERY_PROMPT = re.compile(r"Instruct: (.+)\nQuery:", re.DOTALL)

# What stands in config_sentence_transformers.json of kinds whose scores are neither a logit nor a cosine.
_OTHER_KINDS = {
    "SparseEncoder": "a sparse encoder (SPLADE)",
    "MultiVectorEncoder": "a late-interaction model (ColBERT)",
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say of it.

    Attributes:
        name: folder, or name on a hub.
        kind: how it scores a pair.
        why: from which of its files that was read.
        is_llm: whether it is a decoder that reads a prompt of this project: an LLM reranker, or an LLM embedder.
        architecture: the first that its config names, e.g. "Qwen3ForCausalLM"; "none" where it names none.
        model_type: as in its config.
        prompts: that it declares, by name.
        prompt_names: of each role that has one, the name of what stands before its texts.
        max_length: tokens of a text that it was saved to read; `None` where only the tokenizer knows.
        dtype: in which its weights were saved, e.g. "bfloat16"; `None` where its config does not say.
        quantization: how its weights were quantised before they were saved, e.g. "awq"; `None` if they were not.
        export_precision: of a student that was exported, "fp32" or "int8"; `None` of a model that is no export.
        base: the model that it is an adapter of; `None` of a model that is whole.
        question: what an LLM reranker is asked.
        reads_template: sentence-transformers puts its texts into a chat template, if it has one.
        note: what a reader of its scores should know; empty for nothing.
    """

    name: str
    kind: ModelKind
    why: str
    is_llm: bool = False
    architecture: str = "none"
    model_type: str = ""
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prompt_names: Mapping[Role, str] = dataclasses.field(default_factory=dict)
    max_length: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    export_precision: str | None = None
    base: str | None = None
    question: Question = Question()
    reads_template: bool = False
    note: str = ""

    @property
    def instruction(self) -> str | None:
        """The model's own instruction: in an embedder's query prompt, `None` where that is of another form."""
        if self.kind == "llm-reranker":
            return self.question.instruction
        match = _DECLARED_QUERY_PROMPT.fullmatch(self.prompt("query"))
        return match[1] if match else None

    @property
    def takes_instruction(self) -> bool:
        """Whether it is told the task: it has the yes/no prompt, or an embedder's prompt "Instruct: ...\\nQuery:"."""
        if self.kind == "llm-reranker":
            return self.question.template is None
        return self.instruction is not None

    def prompt(self, role: Role) -> str:
        """Return what stands before a text of a role, "" where nothing does."""
        name = self.prompt_names.get(role)
        return "" if name is None else self.prompts[name]

    def warn_of_unused_prompts(self) -> None:
        """Say so where it declares prompts, and none of them stands before queries."""
        unused = [name for name, prompt in self.prompts.items() if prompt]
        if unused and self.kind == "bi-encoder" and not self.prompt("query"):
            logger.warning(
                "WARNING: %s declares prompts that are not used: %s. Pass --query_prompt_name (and "
                "--passage_prompt_name) to put one before queries (passages).",
                self.name,
                quoted(", ".join(unused), 300),
            )

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Name and exact version: the commit on the hub, or a SHA-256 over the files of a folder.

        With them stand an adapter's base, prompts by other names than the usual ones, and a template that it reads.
        """
        exact: dict[str, Any] = exact_version(self.name)
        if self.reads_template:
            exact |= template_file(self.name)
        if self.base:
            exact["base"] = exact_version(self.base)
        for role, name in self.prompt_names.items():
            if name != USUAL[role]:
                exact[f"{role}_prompt"] = self.prompt(role)
        return exact


def describe_models(names: Sequence[str], prompts: PromptNames) -> list[ModelInfo]:
    """Describe models of which each takes the prompts asked for that it has, and its usual ones else.

    Raises:
        EngineError: as `describe_model`, and where no model has a prompt of a name.
    """
    models = [_describe(name, prompts) for name in names]
    missing = [prompts.missing(model.prompts) for model in models]
    nowhere = [name for name in missing[0] if all(name in names for names in missing)]
    if nowhere:
        known = ", ".join(dict.fromkeys(name for model in models for name, text in model.prompts.items() if text))
        raise EngineError(
            f"{' and '.join(names)} declares no prompt named {nowhere[0]!r} (it has {known or 'none'})",
            "Pass --query_prompt_name and --passage_prompt_name with names of its config_sentence_transformers.json",
        )
    return models


def describe_model(name: str, prompts: PromptNames = AS_DECLARED) -> ModelInfo:
    """Read the files of a model that say what it is, without its weights.

    Raises:
        EngineError: there is no such model, it is of none of the three kinds, or has no prompt of a name asked for.
    """
    return describe_models([name], prompts)[0]


def _describe(name: str, prompt_names: PromptNames) -> ModelInfo:
    if Path(name).is_dir():
        check_entries(Path(name))
    if (Path(name) / "export.json").exists():  # exports are run from folders alone
        export = read_json(name, "export.json")
        return ModelInfo(name, export["kind"], "export.json says so", export_precision=export["precision"])
    files = ModelFiles.read(name)
    chosen = prompt_names.choose(files.prompts)
    kind, is_llm, why, question = _kind(files, {role: files.prompts[name] for role, name in chosen.items()})
    return ModelInfo(
        name=name,
        kind=kind,
        why=why,
        is_llm=is_llm,
        architecture=files.architecture,
        model_type=files.config.get("model_type", ""),
        prompts=files.prompts,
        prompt_names=chosen,
        max_length=files.max_length,
        dtype=files.config.get("dtype"),
        quantization=(files.config.get("quantization_config") or {}).get("quant_method"),
        base=files.base,
        question=question,
        reads_template=files.reads_messages and kind != "llm-reranker",
        note=_note(files, kind, question),
    )


def _kind(files: ModelFiles, prompts: Mapping[Role, str]) -> tuple[ModelKind, bool, str, Question]:
    """Return the kind, whether it is an LLM, from which files that was read, and what an LLM reranker is asked."""
    architecture = files.architecture
    saved_as = files.saved.get("model_type", "")
    if saved_as in _OTHER_KINDS or "SpladePooling" in files.module_names:
        raise EngineError(
            f"{files.name} is {_OTHER_KINDS.get(saved_as, _OTHER_KINDS['SparseEncoder'])}, whose scores are neither "
            "a logit nor a cosine of two vectors",
            "Choose a cross-encoder, a dense embedder or an LLM reranker",
        )
    if (found := find_question(files)) is not None:
        question, why = found
        return "llm-reranker", True, why, question
    if files.is_cross_encoder:
        return "cross-encoder", False, why_no_question(files), Question()
    if "Pooling" in files.module_names:
        is_llm, why = _is_llm_embedder(files, prompts)
        return "bi-encoder", is_llm, f"modules.json has a pooling layer{why}", Question()
    if files.module_names:
        return "bi-encoder", False, f"modules.json has {', '.join(files.module_names)}", Question()
    if files.adapter and files.adapter.get("task_type") == "SEQ_CLS":
        return "cross-encoder", False, "adapter_config.json says SEQ_CLS", Question()
    if architecture.endswith("ForSequenceClassification"):
        return "cross-encoder", False, why_no_question(files), Question()
    raise EngineError(
        f"{files.name} is neither a causal language model, a cross-encoder nor a sentence-transformers embedder "
        f"(its config.json says {architecture})",
        "Choose another model, or wrap it as a sentence-transformers model",
    )


def _note(files: ModelFiles, kind: ModelKind, question: Question) -> str:
    """Return a sentence about a prompt that was guessed or may be missing; empty where there is none."""
    if kind == "llm-reranker" and not question.is_known:
        return (
            f"{files.name} is not known as a reranker (config.json says {files.architecture}); it is asked the yes/no "
            f"prompt of Qwen3-Reranker ('{JUDGE} ...')"
        )
    if kind == "cross-encoder" and not files.is_cross_encoder and _is_decoder(files.config):
        return (
            f"{files.name} is a decoder whose prompt is not known (config.json says {files.architecture}); it reads "
            "query and passage without one"
        )
    return ""


def _is_llm_embedder(files: ModelFiles, prompts: Mapping[Role, str]) -> tuple[bool, str]:
    """Tell whether an embedder is a decoder that embeds what `EmbeddingPrompt` writes, and from what that was read.

    Its vector is the hidden state at the last token with no layer behind it; it declares the prompt
    "Instruct: ...\\nQuery:" for queries and none for passages. It is a decoder when transformers has a causal language
    model of its type, and its config has no `is_decoder` that is false, as those of BERT's kind have. The name of
    its architecture says less: saved by sentence-transformers, a Qwen3ForCausalLM is a Qwen3Model.
    """
    paths = {module["type"].rpartition(".")[2]: module["path"] for module in files.modules}
    further = sorted(paths.keys() - {"Transformer", "Pooling", "Normalize"})
    if further:
        return False, f" and a layer {', '.join(further)}"
    if not _takes_last_token(read_json(files.name, f"{paths['Pooling']}/config.json") or {}):
        return False, ", not of the last token"
    said = f", config.json says {files.architecture}"
    if not _is_decoder(files.config):
        return False, said
    if not _DECLARED_QUERY_PROMPT.fullmatch(prompts.get("query", "")) or prompts.get("passage"):
        return False, f"{said}, its prompts are not 'Instruct: ...\\nQuery:' and none for passages"
    return True, said


def _takes_last_token(pooling: dict[str, Any]) -> bool:
    """Read the config of a pooling layer, which names its modes, or in older versions has a flag for each."""
    flagged = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    return pooling.get("pooling_mode", flagged) in ("lasttoken", ["lasttoken"], ["pooling_mode_lasttoken"])


def _is_decoder(config: Mapping[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and config.get("is_decoder") is not False
