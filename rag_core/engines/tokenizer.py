"""A teacher's tokenizer, and the form of it that takes every text literally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag_core.base.errors import EngineError
from rag_core.engines.special_tokens import cut_pieces, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = TypeVar("Row")

_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")
# Tokens beside the special ones that transformers gives a tokenizer of which it finds no file.
_MADE_UP = 2
Tokenised = tuple[list[list[int]], int]  # token ids of each prompt, and how many prompts were cut


def tokenise_ahead(
    chunks: Iterable[Sequence[Row]], tokenise: Callable[[Sequence[Row]], Tokenised]
) -> Iterator[tuple[int, Tokenised]]:
    """Yield (number of the chunk, its prompts); the next chunk is tokenised meanwhile, on a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        ahead: Future[Tokenised] | None = None
        number = -1
        for number, chunk in enumerate(chunks):
            following = thread.submit(tokenise, chunk)
            if ahead is not None:
                yield number - 1, ahead.result()
            ahead = following
        if ahead is not None:
            yield number, ahead.result()


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        EngineError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:
        # Of what it does not know, tokenizers raises nothing finer than Exception.
        if not isinstance(error, OSError | ValueError) and type(error) is not Exception:
            raise
        if lacks_tokenizer(model):
            raise no_tokenizer(model) from error
        raise EngineError(
            f"cannot load the tokenizer of {model!r} ({' '.join(str(error).split())[:200]})",
            "Check the name or folder, and the network",
        ) from error
    check_tokenizer(tokenizer, model)
    return tokenizer


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer was not made up: that it knows more than its special tokens.

    Raises:
        EngineError: it does not.
    """
    known = len(tokenizer) - len(set(tokenizer.all_special_tokens))
    if tokenizer.vocab_files_names and known <= _MADE_UP:
        raise no_tokenizer(name)


def lacks_tokenizer(name: str) -> bool:
    """Tell whether a name is a model's folder without a file that could be of a tokenizer."""
    folder = Path(name)
    is_model = any((folder / file_name).is_file() for file_name in ("config.json", "modules.json"))
    return is_model and not any(True for pattern in _FILES for _ in folder.rglob(pattern))


def no_tokenizer(name: str) -> EngineError:
    """Return the error for a model without a tokenizer."""
    return EngineError(
        f"{name} has no tokenizer", "Copy tokenizer.json and tokenizer_config.json of its origin into it"
    )


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
    cut_pieces(plain, special_tokens(tokenizer))
    return plain
