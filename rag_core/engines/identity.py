"""Which model is it: what kind, and which exact weights."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rag_core.engines.protocols import Role
from rag_core.errors import EngineError
from rag_core.manifest import sha256

ModelKind = Literal["llm-reranker", "cross-encoder", "bi-encoder"]

_WEIGHTS_AND_CONFIG = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.tiktoken", "*/config.json", "*.onnx")

_DECLARED_QUERY_PROMPT = re.compile(r"Instruct: (.+)\nQuery:", re.DOTALL)
_PASSAGE_PROMPTS = ("document", "passage", "corpus")  # the names that sentence-transformers looks for


@cache
def model_identity(name: str) -> dict[str, Any]:
    """Return name and exact version: the commit on the hub, or a SHA-256 over the files of a local folder.

    Raises:
        EngineError: there is no such model.
    """
    folder = Path(name)
    if folder.is_dir():
        digest = hashlib.sha256()
        for path in sorted({path for pattern in _WEIGHTS_AND_CONFIG for path in folder.glob(pattern)}):
            digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
        return {"name": name, "sha256": digest.hexdigest()}
    return {"name": name, "revision": _config(name).get("_commit_hash")}


def is_export(name: str) -> bool:
    """Tell whether a folder was made by `rag_core.export`."""
    return (Path(name) / "export.json").is_file()


def export_precision(name: str) -> str | None:
    """Return the precision that a student was exported in, `None` of a model that is no export."""
    return _read_json(name, "export.json")["precision"] if is_export(name) else None


def model_kind(name: str) -> tuple[ModelKind, str]:
    """Tell how a model scores a pair, and from which of its files that was read.

    Raises:
        EngineError: there is no such model, or it is none of the three kinds.
    """
    if is_export(name):
        return _read_json(name, "export.json")["kind"], "export.json says so"
    saved = _read_json(name, "config_sentence_transformers.json") or {}
    modules = _read_json(name, "modules.json") or []
    if saved.get("model_type") == "CrossEncoder":
        return "cross-encoder", "config_sentence_transformers.json says CrossEncoder"
    if any(module["type"].endswith("Pooling") for module in modules):
        return "bi-encoder", "modules.json has a pooling layer"
    architecture = (_config(name).get("architectures") or ["none"])[0]
    if architecture.endswith("ForCausalLM"):
        return "llm-reranker", f"config.json says {architecture}"
    if architecture.endswith("ForSequenceClassification"):
        return "cross-encoder", f"config.json says {architecture}"
    raise EngineError(
        f"{name} is neither a causal language model, a cross-encoder nor a sentence-transformers embedder "
        f"(its config.json says {architecture})",
        "Choose another model, or wrap it as a sentence-transformers model",
    )


def quantization(name: str) -> str | None:
    """Return how the weights of a model were quantised before they were saved, e.g. "awq"; `None` if they were not."""
    method: str | None = _config(name).get("quantization_config", {}).get("quant_method")
    return method


def llm_embedder(name: str) -> tuple[bool, str]:
    """Tell whether a model is a decoder that embeds what `EmbeddingPrompt` writes, and from what that was read.

    Its vector is the hidden state at the last token with no layer behind it; it declares the prompt
    "Instruct: ...\\nQuery:" for queries and none for passages. It is a decoder when transformers has a causal language
    model of its type, and its config has no `is_decoder` that is false, as those of BERT's kind have. The name of
    its architecture says less: saved by sentence-transformers, a Qwen3ForCausalLM is a Qwen3Model.

    Raises:
        EngineError: as `model_kind`.
    """
    kind, evidence = model_kind(name)
    if kind != "bi-encoder":
        return False, evidence
    paths = {module["type"].rpartition(".")[2]: module["path"] for module in _read_json(name, "modules.json")}
    further = sorted(paths.keys() - {"Transformer", "Pooling", "Normalize"})
    if further:
        return False, f"{evidence} and a layer {', '.join(further)}"
    if not _takes_last_token(_read_json(name, f"{paths['Pooling']}/config.json") or {}):
        return False, f"{evidence}, not of the last token"
    config = _config(name)
    evidence += f", config.json says {(config.get('architectures') or ['none'])[0]}"
    if not _is_decoder(config):
        return False, evidence
    prompts = _prompts(name)
    if declared_instruction(name) is None or any(prompts.get(role) for role in _PASSAGE_PROMPTS):
        return False, f"{evidence}, its prompts are not 'Instruct: ...\\nQuery:' and none for passages"
    return True, evidence


def takes_instruction(name: str) -> bool:
    """Tell whether a model is told the task: an LLM reranker, or an embedder with the prompt "Instruct: ...\\nQuery:".

    Raises:
        EngineError: as `model_kind`.
    """
    return model_kind(name)[0] == "llm-reranker" or declared_instruction(name) is not None


def declared_instruction(name: str) -> str | None:
    """Return the instruction in an embedder's own query prompt, `None` where that is of another form."""
    match = _DECLARED_QUERY_PROMPT.fullmatch(_prompts(name).get("query") or "")
    return match[1] if match else None


def declared_prompt(name: str, role: Role) -> str:
    """Return what sentence-transformers puts before a text of a role."""
    return _prompts(name).get("query" if role == "query" else "document") or ""


def declared_max_length(name: str) -> int | None:
    """Return the tokens of a text that an embedder was saved to read; newer ones have it in their tokenizer."""
    length: int | None = (_read_json(name, "sentence_bert_config.json") or {}).get("max_seq_length")
    return length


def _takes_last_token(pooling: dict[str, Any]) -> bool:
    """Read the config of a pooling layer, which names its modes, or in older versions has a flag for each."""
    flagged = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    return pooling.get("pooling_mode", flagged) in ("lasttoken", ["lasttoken"], ["pooling_mode_lasttoken"])


def _is_decoder(config: dict[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and config.get("is_decoder") is not False


def _prompts(name: str) -> dict[str, str]:
    return (_read_json(name, "config_sentence_transformers.json") or {}).get("prompts") or {}


def _config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _unloadable(name, error) from error
    return {**config.to_dict(), "_commit_hash": getattr(config, "_commit_hash", None)}


def _read_json(name: str, file_name: str) -> Any:
    """Return the content of a model's file, `None` where the model has no such file."""
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
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def _unloadable(name: str, error: Exception) -> EngineError:
    return EngineError(
        f"cannot load the model {name!r} ({str(error).splitlines()[0]})",
        "Check the name or folder, the network, and for gated models the access token (hf auth login)",
    )
