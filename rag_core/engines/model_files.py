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
from rag_core.engines.model_folder import check_entries, loading, unloadable
from rag_core.engines.model_json import SAVED_TRANSFORMER, check_no_code, check_shape, damaged, needs_code
from rag_core.files.inputs import sha256
from rag_core.files.manifest import MIX

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


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """The JSON files of a model: config.json, what sentence-transformers adds, and what an adapter adds.

    Attributes:
        config: of the transformer, empty where the model has none; of an adapter, that of its base.
        saved: config_sentence_transformers.json.
        modules: modules.json.
        adapter: adapter_config.json, `None` where the model is no adapter.
        transformer: sentence_bert_config.json, `None` of a model that sentence-transformers has not saved.
    """

    name: str
    config: Mapping[str, Any]
    saved: Mapping[str, Any]
    modules: list[dict[str, str]]
    adapter: Mapping[str, Any] | None
    transformer: Mapping[str, Any] | None

    @classmethod
    def read(cls, name: str) -> ModelFiles:
        """Read them.

        Raises:
            EngineError: there is no such model, a file is damaged or names one out of its folder, or it needs code.
        """
        if Path(name).is_dir():
            for index in Path(name).rglob("*.index.json"):  # which may name shards anywhere
                read_json(name, str(index.relative_to(name)))
        declared: list[dict[str, str]] | None = read_json(name, "modules.json")
        modules = declared or []
        check_no_code(name, [("modules.json", modules)])
        path = _transformer_path(declared)
        adapter = _read_at(name, path, "adapter_config.json")
        config = _load_config(name, path, adapter)
        files = cls(
            name=name,
            config={} if config is None else config.to_dict(),
            saved=read_json(name, "config_sentence_transformers.json") or {},
            modules=modules,
            adapter=adapter,
            transformer=_saved_transformer(name, path, declared),
        )
        check_shape(files.base or name, "config.json", files.config)
        check_no_code(name, files._settings(config))
        return files

    def _settings(self, config: Any) -> Iterator[tuple[str, Any]]:
        """Yield what says how modules are made, by file."""
        yield "config.json", {"attn_implementation": getattr(config, "_attn_implementation", None), **self.config}
        yield "config_sentence_transformers.json", self.saved
        yield "sentence_bert_config.json", self.transformer or {}
        yield "adapter_config.json", self.adapter or {}
        if self.path("Router") is not None:
            yield "router_config.json", read_json(self.name, "router_config.json") or {}
        for module in self.modules:
            if module["type"].endswith("Dense"):
                file_name = f"{module['path']}/config.json"
                yield file_name, read_json(self.name, file_name) or {}

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
    def max_length(self) -> int | None:
        """Tokens of a text that it was saved to read; `None` where only the tokenizer knows."""
        length: int | None = (self.transformer or {}).get("max_seq_length")
        return length

    @property
    def reads_messages(self) -> bool:
        """Whether sentence-transformers puts texts into the chat template of its tokenizer."""
        # Of a model that it has not saved, it takes a chat template as a sign.
        return self.transformer is None or "message" in self.transformer.get("modality_config", {})

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
    for path in sorted(paths - {folder / MIX}):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def template_file(name: str) -> dict[str, str]:
    """Return the SHA-256 of the chat template that stands in a file of a model's folder, where there is one.

    `content_hash` leaves it out: few models read a text within it.
    """
    path = Path(name) / "chat_template.jinja"
    return {"chat_template": sha256(path)} if path.is_file() else {}


def _module_files(folder: Path) -> Iterator[Path]:
    within = [module["path"] for module in read_json(str(folder), "modules.json") or []]
    # A router stands in the folder itself, the modules that it chooses from in folders beside it.
    within += (read_json(str(folder), "router_config.json") or {}).get("types", {})
    for path in filter(None, within):
        yield from (file for file in (folder / path).rglob("*") if file.is_file())


def read_json(name: str, file_name: str) -> Any:
    """Return the content of a model's file, `None` where the model has no such file.

    Raises:
        EngineError: there is no such model, or the file is no JSON, or of another shape.
    """
    text = read_text(name, file_name)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(name, file_name, f"is not JSON ({error})") from error
    check_shape(name, file_name, content)
    return content


def read_text(name: str, file_name: str) -> str | None:
    """Return the text of a model's file, `None` where the model has no such file.

    Raises:
        EngineError: there is no such model, or the file is no UTF-8.
    """
    path = find_file(name, file_name)
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except ValueError as error:
        raise damaged(name, file_name, f"is not UTF-8 ({error})") from error


def find_file(name: str, file_name: str) -> Path | None:
    """Return where a model's file stands, fetched where the model is on a hub; `None` where it has no such file.

    Raises:
        EngineError: there is no such model, or a folder stands in the place of the file.
    """
    if Path(name).is_dir():
        path = Path(name, file_name)
        if path.is_dir():
            raise damaged(name, file_name, "is a folder")
        return path if path.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            name,
            file_name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError) as error:  # no folder, and no name that a hub could have
        raise unloadable(name, error) from error
    return None if found is None else Path(found)


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
        if Path(name).is_dir():
            check_entries(Path(name))
    with loading(name):
        try:
            return AutoConfig.from_pretrained(name, subfolder=path, trust_remote_code=False)
        except ValueError as error:
            if "trust_remote_code" in str(error):
                raise needs_code(name, "auto_map in config.json") from error
            raise


def _saved_transformer(name: str, path: str | None, declared: Any) -> Mapping[str, Any] | None:
    """Return how sentence-transformers saved a transformer, which it reads of models with modules alone."""
    file_names = SAVED_TRANSFORMER if declared else SAVED_TRANSFORMER[:1]
    read = (_read_at(name, path, file_name) for file_name in file_names)
    return next((content for content in read if content is not None), None)


def _read_at(name: str, path: str | None, file_name: str) -> Any:
    """Return the content of a JSON file beside a model's transformer, `None` without such a file or transformer."""
    return None if path is None else read_json(name, str(PurePosixPath(path, file_name)))


def _transformer_path(modules: Sequence[Mapping[str, str]] | None) -> str | None:
    """Return the folder of a model's transformer within it, `None` where it has modules and none of them is one."""
    if modules is None:
        return ""
    return next((module["path"] for module in modules if module["type"].endswith("Transformer")), None)
