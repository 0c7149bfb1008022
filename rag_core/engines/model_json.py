"""What the JSON files of a model look like, and what in them would run code: weights are data, and never code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rag_core.base.errors import EngineError

# Of a transformer within sentence-transformers, by the names of its releases; the first that is there is read.
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
SAVED_TRANSFORMER = tuple(f"sentence_{kind}_config.json" for kind in _KINDS)


def _within(path: str) -> str:
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/") or "\\" in path or "\0" in path:
        raise ValueError("leads out of the folder")
    return path


_Inner = Annotated[str, AfterValidator(_within)]


class _Module(TypedDict):
    type: str
    path: _Inner


class _Config(TypedDict):
    """Of a transformer, or of another module."""

    architectures: NotRequired[list[str] | None]
    model_type: NotRequired[str]
    num_hidden_layers: NotRequired[Annotated[int, Field(le=1000)] | None]  # more would be built for minutes
    id2label: NotRequired[dict[Any, Any] | None]
    quantization_config: NotRequired[dict[str, Any] | None]
    sentence_transformers: NotRequired[dict[str, Any] | None]
    true_token_id: NotRequired[int | None]
    false_token_id: NotRequired[int | None]
    activation_function: NotRequired[str]


class _Saved(TypedDict):
    model_type: NotRequired[str]
    prompts: NotRequired[dict[str, str | None] | None]
    default_prompt_name: NotRequired[str | None]
    activation_fn: NotRequired[str | None]


class _Transformer(TypedDict):
    max_seq_length: NotRequired[int | None]
    modality_config: NotRequired[dict[str, dict[str, Any]]]
    processing_kwargs: NotRequired[dict[str, dict[str, Any]] | None]


class _Adapter(TypedDict):
    base_model_name_or_path: str
    task_type: NotRequired[str | None]


class _NamedTemplate(TypedDict):
    name: str
    template: str


class _Tokenizer(TypedDict):
    chat_template: NotRequired[str | list[_NamedTemplate] | None]


class _Router(TypedDict):
    types: dict[_Inner, str]


class _Shards(TypedDict):
    weight_map: dict[str, _Inner]


class _Export(TypedDict):
    kind: Literal["cross-encoder", "bi-encoder"]
    format: Literal["onnx", "openvino"]
    precision: Literal["fp32", "int8"]
    inputs: list[Literal["input_ids", "attention_mask", "token_type_ids"]]
    max_length: int | None
    prompts: dict[str, str]


_SHAPES: Mapping[str, Any] = {
    "modules.json": list[_Module],
    "config.json": _Config,
    "config_sentence_transformers.json": _Saved,
    "sentence_bert_config.json": _Transformer,
    "adapter_config.json": _Adapter,
    "tokenizer_config.json": _Tokenizer,
    "router_config.json": _Router,
    "export.json": _Export,
    "model.safetensors.index.json": _Shards,
    "pytorch_model.bin.index.json": _Shards,
}


@cache
def _adapter(file_name: str) -> TypeAdapter[Any]:
    known = "sentence_bert_config.json" if file_name in SAVED_TRANSFORMER else file_name
    return TypeAdapter(_SHAPES.get(known, dict[str, Any]))


def check_shape(name: str, file_name: str, content: Any) -> None:
    """Check the JSON of a model's file, as far as it is read here; a number in quotes is no number.

    Raises:
        EngineError: it is of another shape.
    """
    try:
        _adapter(PurePosixPath(file_name).name).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(name, file_name, f"is damaged ({place}: {first['msg']})" if place else "is damaged") from error


# The modules of sentence-transformers itself, by their names in all releases: whatever is named would be imported.
_OWN_MODULE = re.compile(r"sentence_transformers(\.[a-z_]+)?\.(models|modules)(\.\w+)?\.[A-Z]\w*")
# What is named is called.
_ACTIVATION = re.compile(r"torch\.nn(\.modules\.[a-z]+)?\.[A-Z]\w*")
_KEYWORDS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# Of transformers' `from_pretrained`: unpickle whatever there is, or fetch code that computes.
_OPEN = ("weights_only", "use_kernels", "allow_all_kernels", "kernel_config", "code_revision")


def check_no_code(name: str, contents: Iterable[tuple[str, Any]]) -> None:
    """Check that the JSON files of a model ask for no code but that of the installed libraries.

    Args:
        contents: file name and content of each.

    Raises:
        EngineError: one does.
    """
    for file_name, content in contents:
        for asked in _asked(content):
            raise needs_code(name, f"{file_name} names {asked}")


def _asked(content: Any) -> Iterator[str]:
    """Yield what a file asks for that would run other code."""
    if isinstance(content, list):  # modules.json
        yield from _foreign(module["type"] for module in content)
        return
    yield from _foreign(content.get("types", {}).values() if isinstance(content.get("types"), dict) else ())
    for settings in (content, content.get("sentence_transformers") or {}):
        for key in ("activation_fn", "activation_function", "sbert_ce_default_activation_function"):
            named = settings.get(key)
            # What does not begin with "torch." is not taken by sentence-transformers.
            if isinstance(named, str) and named.startswith("torch.") and not _ACTIVATION.fullmatch(named):
                yield named
    for keywords in (content, *(content.get(key) for key in _KEYWORDS)):
        if isinstance(keywords, dict):
            yield from (key for key in _OPEN if key in keywords)
            attention = str(keywords.get("attn_implementation") or "")
            if "/" in attention:  # a repository of compiled code
                yield attention
    if content.get("megatron_config"):
        yield str(content.get("megatron_core"))


def _foreign(types: Iterable[str]) -> Iterator[str]:
    return (kind for kind in types if not _OWN_MODULE.fullmatch(kind))


def damaged(name: str, file_name: str, what: str) -> EngineError:
    """Return the error for a file of a model that cannot be read."""
    return EngineError(f"{file_name} of {name} {what}", "Fetch or save the model again")


def needs_code(name: str, where: str) -> EngineError:
    """Return the error for a model that asks for code."""
    return EngineError(
        f"{name} needs Python code of its own folder, which is never run here ({where})",
        "Choose a model whose architecture transformers or sentence-transformers has itself",
    )
