"""Pretrained models loaded whole, or refused.

What transformers does where a file lacks weights or a tokenizer is to make them up, with a warning: such a model has
other scores at every start. Here it is an error. What a file has beyond the model is a note, code in a model's folder
is never run, and an adapter is merged into its base.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rag_core.base.errors import EngineError
from rag_core.engines.identity import ModelInfo
from rag_core.engines.model_folder import loading
from rag_core.engines.precision import Dtype
from rag_core.engines.special_tokens import read_texts_literally
from rag_core.engines.tokenizer import check_rows, check_tokenizer

M = TypeVar("M")

_UNREAD = "pooler."  # over the first token: sentence-transformers' embedders pool the hidden states themselves

logger = logging.getLogger(__name__)


def load_sentence_transformers(
    model: ModelInfo,
    model_class: type[M],
    *,
    dtype: Dtype,
    device: str | None = None,
    model_settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> M:
    """Load a cross-encoder or an embedder, in a precision of our choice, not of its file.

    It reads no more tokens than it has positions, pads with its end token where it has none to pad with, puts the
    prompts of `model` before queries (`prompts["query"]`) and passages (`prompts["document"]`), and finds special
    tokens in no text.

    Args:
        model_class: CrossEncoder or SentenceTransformer.
        model_settings: further keywords of transformers' `from_pretrained`.
        config: settings that take the place of those in its config.json.

    Raises:
        EngineError: it cannot be loaded, or lacks weights or a tokenizer.
    """
    keywords = {"dtype": dtype, "weights_only": True, **(model_settings or {})}
    settings = {"model_kwargs": keywords, "config_kwargs": {**(config or {})}}
    model.warn_of_unused_prompts()
    with whole(model):
        loaded: Any = model_class(**_source(model, settings) | {"device": device})
    transformer = loaded.transformers_model
    if transformer is not None:
        merge_adapters(transformer)
        check_tokenizer(loaded.tokenizer, model.name)
        check_rows(transformer.get_input_embeddings(), loaded.tokenizer, model.name)
        _set_padding(transformer, loaded.tokenizer, model.name)
        readable = readable_tokens(transformer)
        if readable is not None:
            loaded.max_seq_length = min(loaded.max_seq_length or readable, readable)
    elif hasattr(loaded[0], "embedding"):  # a static embedder
        check_rows(loaded[0].embedding, loaded.tokenizer, model.name)
    read_texts_literally(loaded)
    if model.kind == "bi-encoder":
        loaded.prompts |= {"query": model.prompt("query"), "document": model.prompt("passage")}
    _rehearse(model, loaded)
    return loaded  # type: ignore[no-any-return]


def _rehearse(model: ModelInfo, loaded: Any) -> None:
    """Let a model read a pair once: what its files say of how it reads is looked at by the first text only."""
    from torch.nn import Identity

    with loading(model.name):
        if model.kind == "cross-encoder":
            loaded.predict([("a query", "a passage")], activation_fn=Identity(), show_progress_bar=False)
        else:
            loaded.encode_query("a query", show_progress_bar=False)
            loaded.encode_document("a passage", show_progress_bar=False)


def _source(model: ModelInfo, settings: dict[str, Any]) -> dict[str, Any]:
    """Return from what sentence-transformers makes a model; it reads no config of an adapter with a scoring head."""
    if not model.base or model.kind != "cross-encoder":
        return {"model_name_or_path": model.name, "trust_remote_code": False, **settings}
    from sentence_transformers.base.modules import Transformer

    return {"modules": [Transformer(model.name, transformer_task="sequence-classification", **settings)]}


@contextmanager
def whole(model: ModelInfo) -> Iterator[None]:
    """Let what transformers loads within have all of its weights.

    Raises:
        EngineError: it cannot be loaded, or lacks weights.
    """
    with loading(model.name), _loading_reports() as reports:
        yield
    for report in reports:
        _check_report(model, report)


@contextmanager
def _loading_reports() -> Iterator[list[Mapping[str, Any]]]:
    """Yield what transformers reports of each model that is loaded within: tensors that lack, and those too many."""
    from transformers import PreTrainedModel

    usual = PreTrainedModel.__dict__["from_pretrained"]
    reports: list[Mapping[str, Any]] = []

    def reporting(cls: type, /, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        model, report = usual.__func__(cls, *args, output_loading_info=True, **kwargs)
        reports.append(report)
        return (model, report) if output_loading_info else model

    its_logger = logging.getLogger("transformers.modeling_utils")
    level = its_logger.level
    its_logger.setLevel(logging.ERROR)  # its table says at length what is said below
    PreTrainedModel.from_pretrained = classmethod(reporting)
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = usual
        its_logger.setLevel(level)


def _check_report(model: ModelInfo, report: Mapping[str, Any]) -> None:
    unread = model.kind == "bi-encoder"
    missing = sorted(name for name in report["missing_keys"] if not (unread and name.startswith(_UNREAD)))
    unexpected = sorted(report["unexpected_keys"])
    if missing:
        raise EngineError(
            f"the weights of {model.name!r} lack {_count(missing)}, which would be random",
            _remedy(unexpected),
        )
    if unexpected:
        logger.info("%s: its file has %s that the model does not have", model.name, _count(unexpected))


def _count(names: list[str]) -> str:
    return f"{len(names)} tensors ({names[0]}, ...)" if len(names) > 1 else f"1 tensor ({names[0]})"


def _remedy(unexpected: list[str]) -> str:
    fronts = {name.partition(".")[0] for name in unexpected}
    if len(unexpected) > 1 and len(fronts) == 1:
        return f"Its tensors are named {fronts.pop()}.*: save the model that stands inside that wrapper"
    return "Fetch or save the model again, or choose another one"


def _set_padding(transformer: Any, tokenizer: Any, name: str) -> None:
    """Let a batch be padded, and a decoder with a head find the end of its texts.

    Such a head is read at the last token that is none of the padding's, so that no text may end with that one.
    """
    if tokenizer.pad_token is None:
        last = tokenizer.encode("text")[-1]
        usable = [id for id in (tokenizer.eos_token_id, tokenizer.unk_token_id) if id is not None and id != last]
        if not usable:
            raise EngineError(
                f"the tokenizer of {name} has no token to pad with", "Set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    config = transformer.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id


def readable_tokens(transformer: Any) -> int | None:
    """Return how many tokens a transformers model has positions for, `None` where its config sets no limit.

    RoBERTa's kind numbers positions from the one after its padding's: of 514 it can use 512.
    """
    from torch.nn import Embedding

    positions = getattr(transformer.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    skipped = (
        table.padding_idx + 1
        for module in transformer.modules()
        if isinstance(table := getattr(module, "position_embeddings", None), Embedding)
        and table.padding_idx is not None
    )
    return int(positions - next(skipped, 0))


def merge_adapters(transformer: Any) -> None:
    """Add the adapters in a transformers model to the weights beside them, in place: it is an ordinary one then."""
    if not getattr(transformer, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in list(transformer.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            transformer.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            transformer.set_submodule(name, module.modules_to_save[module.active_adapter])
    transformer.requires_grad_(True)  # beside an adapter they were frozen
    transformer._hf_peft_config_loaded = False
    # With these the weights would be saved by the names that they have beneath an adapter.
    del transformer.peft_config, transformer._weight_conversions
