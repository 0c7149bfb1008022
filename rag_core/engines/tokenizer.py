"""A teacher's tokenizer, and the form of it that takes every text literally."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_core.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        EngineError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot load the tokenizer of {model!r} ({' '.join(str(error).split())[:200]})",
            "Check the name or folder, and the network",
        ) from error


def without_special_tokens(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the fast tokenizer without its added tokens, so that no text can spell one, and none is appended.

    `split_special_tokens=True` is not enough: added tokens that are not marked special (`<think>`) still match.

    Raises:
        EngineError: the tokenizer has no fast implementation.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EngineError("the teacher's tokenizer has no fast version", "Choose a model with a tokenizer.json")
    plain = Tokenizer(backend.model)  # shares the vocabulary
    if backend.normalizer is not None:
        plain.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        plain.pre_tokenizer = backend.pre_tokenizer
    return plain
