"""Which model is it: what kind, and which exact weights."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rag_core.errors import EngineError
from rag_core.manifest import sha256

ModelKind = Literal["llm-reranker", "cross-encoder", "bi-encoder"]

_WEIGHTS_AND_CONFIG = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.tiktoken", "*/config.json")


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


def model_kind(name: str) -> tuple[ModelKind, str]:
    """Tell how a model scores a pair, and from which of its files that was read.

    Raises:
        EngineError: there is no such model, or it is none of the three kinds.
    """
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


def _config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot load the model {name!r} ({str(error).splitlines()[0]})",
            "Check the name or folder, the network, and for gated models the access token (hf auth login)",
        ) from error
    return {**config.to_dict(), "_commit_hash": getattr(config, "_commit_hash", None)}


def _read_json(name: str, file_name: str) -> Any:
    """Return the content of a model's file, `None` where the model has no such file."""
    from transformers.utils import cached_file

    path = cached_file(
        name,
        file_name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
