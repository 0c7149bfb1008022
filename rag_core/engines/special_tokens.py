"""Texts that spell special tokens (`[SEP]`, `</s>`, `<|im_end|>`) are read as the text that they are.

The tokenizers' own switch lets special tokens be found in no text. In a vocabulary such as XLM-RoBERTa's they are
pieces like any other, too: there a text is cut within each that it spells, which leaves all other texts as they are.

What a model's maker has written with special tokens, a prompt or a chat template, needs them. With such a model, a
text that spells one gets a space within it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

NOWHERE = "(?!)"  # a pattern that finds nothing

# What may stand around a token where it is found as a piece, and is not where it stands alone.
_AROUND = (("", ""), ("a", "a"), (" ", " "), (">", "<"))


def special_tokens(tokenizer: Any) -> list[str]:
    """Return the special tokens of a tokenizer, of transformers or of tokenizers."""
    if hasattr(tokenizer, "added_tokens_decoder"):
        named, known = tokenizer.all_special_tokens, tokenizer.added_tokens_decoder
    else:
        named, known = [], tokenizer.get_added_tokens_decoder()
    return sorted({*named, *(token.content for token in known.values() if token.special)})


def starts_of(tokens: Iterable[str]) -> str:
    """Return a pattern of the first character of each token that a text spells; without tokens it finds nothing."""
    long = sorted({token for token in tokens if len(token) > 1})
    alike = groupby(long, key=lambda token: token[0])
    starts = [f"{re.escape(first)}(?={'|'.join(re.escape(token[1:]) for token in same)})" for first, same in alike]
    return "|".join(starts) or NOWHERE


def spaced(starts: re.Pattern[str], text: str) -> str:
    """Put a space into each token that a text spells, behind its first character."""
    return starts.sub(r"\g<0> ", text)


def cut_pieces(backend: Any, tokens: Iterable[str]) -> None:
    """Let a tokenizer of tokenizers cut texts within those tokens that are pieces of its vocabulary, too."""
    from tokenizers import Regex, pre_tokenizers

    pieces = _pieces(backend, list(tokens))
    if pieces:
        usual = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        spelled = [*pieces, *(token.replace("▁", " ") for token in pieces)]
        cut = pre_tokenizers.Split(Regex(starts_of(spelled)), "merged_with_previous")
        # Before the usual one, which may add a space: the whole text is searched once. Word by word costs a quarter.
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, *usual])


def _pieces(backend: Any, tokens: Sequence[str]) -> list[str]:
    """Return those tokens that are found in a text, the switch notwithstanding."""
    switch, backend.encode_special_tokens = backend.encode_special_tokens, True
    asked = [token for token in tokens for _ in _AROUND]
    texts = [f"{left}{token}{right}" for token in tokens for left, right in _AROUND]
    rows = backend.encode_batch_fast(texts, add_special_tokens=False)
    backend.encode_special_tokens = switch
    return [
        token
        for token, row in zip(asked, rows, strict=True)
        if (backend.token_to_id(token), 1) in zip(row.ids, row.attention_mask, strict=True)  # 0 is padding
    ]


def _is_found(tokenizer: Any, token: str) -> bool:
    """Tell whether a tokenizer without a fast version finds a token in a text, its switch notwithstanding."""
    ids: list[int] = tokenizer.encode(f"a {token} a", add_special_tokens=False)
    return tokenizer.convert_tokens_to_ids(token) in ids


def read_literally(tokenizer: Any, own: str = "", *, templated: bool = False) -> re.Pattern[str]:
    """Let a tokenizer, of transformers or of tokenizers, find special tokens in no text.

    Args:
        own: the prompts of its model.
        templated: texts are put into a chat template before they are tokenised.

    Returns:
        Where texts have to be `spaced`: nowhere, except where the model's own texts need special tokens, or where the
        tokenizer has no switch that works.
    """
    from tokenizers import Tokenizer

    tokens = special_tokens(tokenizer)
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        cut_pieces(backend, tokens)
    if templated or re.search(starts_of(tokens), own):
        return re.compile(starts_of(tokens))
    if backend is not tokenizer:
        tokenizer.split_special_tokens = True
    if backend is not None:
        backend.encode_special_tokens = True
        return re.compile(NOWHERE)
    return re.compile(starts_of(token for token in tokens if _is_found(tokenizer, token)))


class Ready(str):
    """A text that spells no special token of its own, behind a prompt."""


def read_texts_literally(model: Any) -> None:
    """Let a model of sentence-transformers read texts literally, from now on. It is saved within `as_saved`."""
    own = "\n".join((model.prompts or {}).values())
    for tokenizer, module in _tokenizers(model):
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        usual = getattr(backend, "pre_tokenizer", None)
        templated = "message" in getattr(module, "modality_config", ())
        module.special_starts = read_literally(tokenizer, own, templated=templated)
        if module.special_starts.pattern != NOWHERE:
            module.preprocess = partial(_preprocess, module)
        if hasattr(backend, "pre_tokenizer"):
            module.changed_tokenizer = backend, usual, backend.pre_tokenizer


def behind(model: Any, prompt: str, text: str) -> Ready:
    """Return a text behind a prompt of a model that reads texts literally."""
    starts = next(found for module in model.modules() if (found := vars(module).get("special_starts")))
    return Ready(prompt + spaced(starts, text))


@contextmanager
def as_saved(model: Any) -> Iterator[None]:
    """Give a model its tokenizers back as they were loaded, for the time that it takes to save it."""
    changed = [found for module in model.modules() if (found := vars(module).get("changed_tokenizer"))]
    for backend, usual, _ in changed:
        backend.pre_tokenizer = usual
    try:
        yield
    finally:
        for backend, _, literal in changed:
            backend.pre_tokenizer = literal


def _tokenizers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each tokenizer with the module that uses it; a router, and the model itself, have those of modules."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    known: list[Any] = []
    for module in reversed(list(model.modules())):
        tokenizer = getattr(module, "tokenizer", None)
        new = all(tokenizer is not other for other in known)
        if new and isinstance(tokenizer, Tokenizer | PreTrainedTokenizerBase):
            known.append(tokenizer)
            yield tokenizer, module


def _preprocess(module: Any, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
    def text(row: str) -> str:
        return row if isinstance(row, Ready) else spaced(module.special_starts, row)

    rows = [text(row) if isinstance(row, str) else tuple(map(text, row)) for row in inputs]
    return type(module).preprocess(module, rows, *args, **kwargs)
