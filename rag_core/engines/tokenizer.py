"""A teacher's tokenizer, and the form of it that takes every text literally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.model_folder import loading, no_tokenizer
from rag_core.engines.special_tokens import cut_pieces, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = TypeVar("Row")

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

    with loading(model, "tokenizer of"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    check_tokenizer(tokenizer, model)
    return tokenizer


@contextmanager
def rendering(remedy: str) -> Iterator[None]:
    """Turn whatever a chat template ends in into one error: it is a program, which transformers runs in a sandbox.

    Raises:
        EngineError: it fails.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise EngineError(f"the model's chat template fails ({quoted(str(error), 200)})", remedy) from error


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer was not made up: that it knows more than its special tokens.

    Raises:
        EngineError: it does not.
    """
    known = len(tokenizer) - len(set(tokenizer.all_special_tokens))
    if tokenizer.vocab_files_names and known <= _MADE_UP:
        raise no_tokenizer(name)


def check_rows(embeddings: Any, tokenizer: Any, name: str) -> None:
    """Check that a model has a row for every token that a text can become; but for the padding's, added ones need none.

    Raises:
        EngineError: it has not.
    """
    rows, ids = getattr(embeddings, "num_embeddings", None), tokenizer.get_vocab().values()
    if rows is None or max(ids, default=0) < rows:
        return
    added = getattr(tokenizer, "added_tokens_decoder", {}).keys() - {getattr(tokenizer, "pad_token_id", None)}
    largest = max(set(ids) - added)
    if largest >= rows:
        raise EngineError(
            f"the tokenizer of {name} has a token {largest}, and the weights end at {rows - 1}",
            "Fetch or save the model again",
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
