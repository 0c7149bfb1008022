"""Which model is it: what kind, what it reads, and which exact weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from rag_core.base.errors import EngineError
from rag_core.engines.protocols import Role
from rag_core.engines.rerankers import JUDGE, Declared, Question, find_question, why_no_question
from rag_core.files.manifest import sha256

ModelKind = Literal["llm-reranker", "cross-encoder", "bi-encoder"]

_WEIGHTS_AND_CONFIG = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.tiktoken", "*/config.json", "*.onnx")

_DECLARED_QUERY_PROMPT = re.compile(r"Instruct: (.+)\nQuery:", re.DOTALL)
_PASSAGE_PROMPTS = ("document", "passage", "corpus")  # the names that sentence-transformers looks for


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
        prompts: that it declares, by name; what stands before a text.
        max_length: tokens of a text that it was saved to read; `None` where only the tokenizer knows.
        quantization: how its weights were quantised before they were saved, e.g. "awq"; `None` if they were not.
        export_precision: of a student that was exported, "fp32" or "int8"; `None` of a model that is no export.
        revision: the commit on the hub; `None` of a folder.
        question: what an LLM reranker is asked.
        note: what a reader of its scores should know; empty for nothing.
    """

    name: str
    kind: ModelKind
    why: str
    is_llm: bool = False
    architecture: str = "none"
    model_type: str = ""
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_length: int | None = None
    quantization: str | None = None
    export_precision: str | None = None
    revision: str | None = None
    question: Question = Question()
    note: str = ""

    @property
    def instruction(self) -> str | None:
        """The model's own instruction: in an embedder's query prompt, `None` where that is of another form."""
        if self.kind == "llm-reranker":
            return self.question.instruction
        match = _DECLARED_QUERY_PROMPT.fullmatch(self.prompts.get("query") or "")
        return match[1] if match else None

    @property
    def takes_instruction(self) -> bool:
        """Whether it is told the task: it has the yes/no prompt, or an embedder's prompt "Instruct: ...\\nQuery:"."""
        if self.kind == "llm-reranker":
            return self.question.template is None
        return self.instruction is not None

    def prompt(self, role: Role) -> str:
        """Return what sentence-transformers puts before a text of a role."""
        return self.prompts.get("query" if role == "query" else "document") or ""

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Name and exact version: the commit on the hub, or a SHA-256 over the files of a folder."""
        folder = Path(self.name)
        if not folder.is_dir():
            return {"name": self.name, "revision": self.revision}
        digest = hashlib.sha256()
        for path in sorted({path for pattern in _WEIGHTS_AND_CONFIG for path in folder.glob(pattern)}):
            digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
        return {"name": self.name, "sha256": digest.hexdigest()}


def describe_model(name: str) -> ModelInfo:
    """Read the files of a model that say what it is, without its weights.

    Raises:
        EngineError: there is no such model, or it is of none of the three kinds.
    """
    if (Path(name) / "export.json").is_file():
        export = _read_json(name, "export.json")
        return ModelInfo(name, export["kind"], "export.json says so", export_precision=export["precision"])
    files = _Files(
        name=name,
        config=_config(name),
        saved=_read_json(name, "config_sentence_transformers.json") or {},
        modules=_read_json(name, "modules.json") or [],
    )
    kind, is_llm, why, question = _kind(files)
    return ModelInfo(
        name=name,
        kind=kind,
        why=why,
        is_llm=is_llm,
        architecture=files.architecture,
        model_type=files.config["model_type"],
        prompts=files.prompts,
        max_length=(_read_json(name, "sentence_bert_config.json") or {}).get("max_seq_length"),
        quantization=(files.config.get("quantization_config") or {}).get("quant_method"),
        revision=files.config["_commit_hash"],
        question=question,
        note=_note(files, kind, question),
    )


@dataclasses.dataclass(frozen=True)
class _Files:
    """The JSON files of a model: config.json, and what sentence-transformers adds."""

    name: str
    config: Mapping[str, Any]
    saved: Mapping[str, Any]
    modules: list[dict[str, str]]

    @property
    def architecture(self) -> str:
        named: list[str] = self.config.get("architectures") or ["none"]
        return named[0]

    @property
    def prompts(self) -> Mapping[str, str]:
        return self.saved.get("prompts") or {}


def _kind(files: _Files) -> tuple[ModelKind, bool, str, Question]:
    """Return the kind, whether it is an LLM, from which files that was read, and what an LLM reranker is asked."""
    architecture = files.architecture
    declared = Declared(
        files.name, architecture, files.config, files.saved, files.modules, partial(_read_text, files.name)
    )
    found = find_question(declared)
    if found:
        question, why = found
        return "llm-reranker", True, why, question
    if declared.is_cross_encoder:
        return "cross-encoder", False, why_no_question(declared), Question()
    if any(module["type"].endswith("Pooling") for module in files.modules):
        is_llm, why = _is_llm_embedder(files)
        return "bi-encoder", is_llm, f"modules.json has a pooling layer{why}", Question()
    if architecture.endswith("ForSequenceClassification"):
        return "cross-encoder", False, why_no_question(declared), Question()
    raise EngineError(
        f"{files.name} is neither a causal language model, a cross-encoder nor a sentence-transformers embedder "
        f"(its config.json says {architecture})",
        "Choose another model, or wrap it as a sentence-transformers model",
    )


def _note(files: _Files, kind: ModelKind, question: Question) -> str:
    """Return a sentence about a prompt that was guessed or may be missing; empty where there is none."""
    if kind == "llm-reranker" and not question.is_known:
        return (
            f"{files.name} is not known as a reranker (config.json says {files.architecture}); it is asked the yes/no "
            f"prompt of Qwen3-Reranker ('{JUDGE} ...')"
        )
    if kind == "cross-encoder" and files.saved.get("model_type") != "CrossEncoder" and _is_decoder(files.config):
        return (
            f"{files.name} is a decoder whose prompt is not known (config.json says {files.architecture}); it reads "
            "query and passage without one"
        )
    return ""


def _is_llm_embedder(files: _Files) -> tuple[bool, str]:
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
    if not _takes_last_token(_read_json(files.name, f"{paths['Pooling']}/config.json") or {}):
        return False, ", not of the last token"
    said = f", config.json says {files.architecture}"
    if not _is_decoder(files.config):
        return False, said
    declares = _DECLARED_QUERY_PROMPT.fullmatch(files.prompts.get("query") or "")
    if not declares or any(files.prompts.get(role) for role in _PASSAGE_PROMPTS):
        return False, f"{said}, its prompts are not 'Instruct: ...\\nQuery:' and none for passages"
    return True, said


def _takes_last_token(pooling: dict[str, Any]) -> bool:
    """Read the config of a pooling layer, which names its modes, or in older versions has a flag for each."""
    flagged = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    return pooling.get("pooling_mode", flagged) in ("lasttoken", ["lasttoken"], ["pooling_mode_lasttoken"])


def _is_decoder(config: Mapping[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and config.get("is_decoder") is not False


def _config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _unloadable(name, error) from error
    return {**config.to_dict(), "_commit_hash": getattr(config, "_commit_hash", None)}


def _read_json(name: str, file_name: str) -> Any:
    """Return the content of a model's JSON file, `None` where the model has no such file."""
    text = _read_text(name, file_name)
    return None if text is None else json.loads(text)


def _read_text(name: str, file_name: str) -> str | None:
    """Return the text of a model's file, `None` where the model has no such file."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            name,
            file_name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError) as error:  # no folder, and no name that a hub could have
        raise _unloadable(name, error) from error
    return None if path is None else Path(path).read_text(encoding="utf-8")


def _unloadable(name: str, error: Exception) -> EngineError:
    return EngineError(
        f"cannot load the model {name!r} ({str(error).splitlines()[0]})",
        "Check the name or folder, the network, and for gated models the access token (hf auth login)",
    )
