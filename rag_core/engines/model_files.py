"""The small files of a model, in a folder or on a hub, and the hash of all files that decide what it computes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rag_core.base.errors import EngineError
from rag_core.files.inputs import sha256

# Of a folder itself; of a module's folder within it, whatever stands there.
_WEIGHTS_AND_CONFIG = (
    "*.safetensors",
    "*.bin",
    "*.json",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "*/config.json",
    "*.onnx",
    "*.onnx*data",
)

_LIBRARY = "sentence_transformers."


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """The JSON files of a model: config.json, what sentence-transformers adds, and what an adapter adds.

    Attributes:
        config: of the transformer, empty where the model has none; of an adapter, that of its base.
        saved: config_sentence_transformers.json.
        modules: modules.json.
        adapter: adapter_config.json, `None` where the model is no adapter.
        max_length: tokens of a text that it was saved to read; `None` where only the tokenizer knows.
    """

    name: str
    config: Mapping[str, Any]
    saved: Mapping[str, Any]
    modules: list[dict[str, str]]
    adapter: Mapping[str, Any] | None
    max_length: int | None

    @classmethod
    def read(cls, name: str) -> ModelFiles:
        """Read them.

        Raises:
            EngineError: there is no such model, or it needs code of its own.
        """
        declared: list[dict[str, str]] | None = read_json(name, "modules.json")
        modules = declared or []
        foreign = [module["type"] for module in modules if not module["type"].startswith(_LIBRARY)]
        if foreign:
            raise _needs_code(name, f"modules.json names {foreign[0]}")
        path = _transformer_path(declared)
        adapter = _read_at(name, path, "adapter_config.json")
        config = _load_config(name, path, adapter)
        return cls(
            name=name,
            config={} if config is None else config.to_dict(),
            saved=read_json(name, "config_sentence_transformers.json") or {},
            modules=modules,
            adapter=adapter,
            max_length=(_read_at(name, path, "sentence_bert_config.json") or {}).get("max_seq_length"),
        )

    @property
    def base(self) -> str | None:
        """The model that it is an adapter of, `None` where it is none."""
        return None if self.adapter is None else str(self.adapter["base_model_name_or_path"])

    @property
    def architecture(self) -> str:
        """The first architecture that its config names, "none" where it names none."""
        named: list[str] = self.config.get("architectures") or ["none"]
        return named[0]

    @property
    def is_cross_encoder(self) -> bool:
        """Whether sentence-transformers saved it as a CrossEncoder."""
        return self.saved.get("model_type") == "CrossEncoder"

    @property
    def default_prompt(self) -> str | None:
        """The prompt that sentence-transformers takes where none is named."""
        return self.prompts.get(self.saved.get("default_prompt_name") or "") or None

    @property
    def chat_template(self) -> str | None:
        """The chat template of its tokenizer."""
        written = read_text(self.name, "chat_template.jinja")
        written = written or (read_json(self.name, "tokenizer_config.json") or {}).get("chat_template")
        if isinstance(written, list):  # several by name
            return next((str(one["template"]) for one in written if one.get("name") == "default"), None)
        return written

    def path(self, layer: str) -> str | None:
        """Return the path of a module, `None` where it has no such module."""
        return next((module["path"] for module in self.modules if module["type"].endswith(layer)), None)

    @property
    def module_names(self) -> list[str]:
        """The classes of its modules."""
        return [module["type"].rpartition(".")[2] for module in self.modules]

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts that it declares, by name."""
        return {name: prompt for name, prompt in (self.saved.get("prompts") or {}).items() if prompt is not None}


def exact_version(name: str) -> dict[str, str | None]:
    """Return a model's name, and the SHA-256 of its folder, or its commit on the hub."""
    if Path(name).is_dir():
        return {"name": name, "sha256": content_hash(Path(name))}
    from transformers.utils.hub import extract_commit_hash

    paths = (find_file(name, file_name) for file_name in ("config.json", "adapter_config.json", "modules.json"))
    commits = (extract_commit_hash(str(path), None) for path in paths if path)
    return {"name": name, "revision": next(commits, None)}


def content_hash(folder: Path) -> str:
    """Return a SHA-256 over the names and contents of the files that decide what a model computes.

    They are weights, configuration and tokenizer, and all that stands in the folders of its modules
    (`2_Dense/model.safetensors`).
    """
    paths = {path for pattern in _WEIGHTS_AND_CONFIG for path in folder.glob(pattern)} | set(_module_files(folder))
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _module_files(folder: Path) -> Iterator[Path]:
    within = [module["path"] for module in read_json(str(folder), "modules.json") or []]
    # A router stands in the folder itself, the modules that it chooses from in folders beside it.
    within += (read_json(str(folder), "router_config.json") or {}).get("types", {})
    for path in filter(None, within):
        yield from (file for file in (folder / path).rglob("*") if file.is_file())


def read_json(name: str, file_name: str) -> Any:
    """Return the content of a model's file, `None` where the model has no such file.

    Raises:
        EngineError: there is no such model, or the file is no JSON.
    """
    try:
        text = read_text(name, file_name)
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise EngineError(f"{file_name} of {name} is not JSON ({error})", "Fetch or save the model again") from error


def read_text(name: str, file_name: str) -> str | None:
    """Return the text of a model's file, `None` where the model has no such file.

    Raises:
        EngineError: there is no such model.
    """
    path = find_file(name, file_name)
    return None if path is None else path.read_text(encoding="utf-8")


def find_file(name: str, file_name: str) -> Path | None:
    """Return where a model's file stands, fetched where the model is on a hub; `None` where it has no such file.

    Raises:
        EngineError: there is no such model.
    """
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
        raise unloadable(name, str(error).splitlines()[0]) from error
    return None if path is None else Path(path)


def load_config(name: str) -> Any:
    """Return the configuration of a model's transformer, an adapter's being that of its base; `None` without one.

    Raises:
        EngineError: there is no such model, it needs code of its own, or is an adapter and peft is not installed.
    """
    path = _transformer_path(read_json(name, "modules.json"))
    return _load_config(name, path, _read_at(name, path, "adapter_config.json"))


def _load_config(name: str, path: str | None, adapter: Mapping[str, Any] | None) -> Any:
    """Load what `load_config` returns; `path` is that of the transformer, `adapter` its adapter_config.json."""
    from transformers import AutoConfig

    if path is None:
        return None
    if adapter:
        if importlib.util.find_spec("peft") is None:
            raise EngineError(f"{name} is a LoRA adapter, which needs peft", "pip install -c constraints.txt peft")
        name, path = adapter["base_model_name_or_path"], ""
    try:
        return AutoConfig.from_pretrained(name, subfolder=path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise _needs_code(name, "auto_map in config.json") from error
        raise unloadable(name, str(error).splitlines()[0]) from error


def _read_at(name: str, path: str | None, file_name: str) -> Any:
    """Return the content of a JSON file beside a model's transformer, `None` without such a file or transformer."""
    return None if path is None else read_json(name, str(PurePosixPath(path, file_name)))


def _transformer_path(modules: Sequence[Mapping[str, str]] | None) -> str | None:
    """Return the folder of a model's transformer within it, `None` where it has modules and none of them is one."""
    if modules is None:
        return ""
    return next((module["path"] for module in modules if module["type"].endswith("Transformer")), None)


def _needs_code(name: str, where: str) -> EngineError:
    return EngineError(
        f"{name} needs Python code of its own folder, which is never run here ({where})",
        "Choose a model whose architecture transformers or sentence-transformers has itself",
    )


def unloadable(name: str, reason: str) -> EngineError:
    """Return the error for a model that is not there, or cannot be read."""
    return EngineError(
        f"cannot load the model {name!r} ({reason})",
        "Check the name or folder, the network, and for gated models the access token (hf auth login)",
    )
