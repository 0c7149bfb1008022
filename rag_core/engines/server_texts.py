"""Texts for a server that tokenises them itself: none of them spells a special token of the model."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from rag_core.base.errors import EngineError
from rag_core.engines.protocols import Pair
from rag_core.engines.special_tokens import spaced, special_tokens, starts_of
from rag_core.engines.tokenizer import load_tokenizer

_FORM = re.compile(r"[<\[][^<>\[\]\s]{1,60}[>\]]")  # of special tokens; where none is, no tokenizer is loaded

_compatible = partial(unicodedata.normalize, "NFKC")

logger = logging.getLogger(__name__)


class ServerTexts:
    """Put a space into each special token that a text spells: a server finds them in all texts, and has no switch."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._starts: re.Pattern[str] | None = None
        self._told = False

    def of_pairs(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, tuple[list[Pair], int]]]:
        """Yield (number of the chunk, (its pairs, how many of them were cut: none))."""
        for number, chunk in enumerate(chunks):
            yield number, ([(self._as_text(query), self._as_text(passage)) for query, passage in chunk], 0)

    def behind(self, prompt: str, chunks: Iterable[Sequence[str]]) -> Iterator[tuple[int, tuple[list[str], int]]]:
        """Yield (number of the chunk, (its texts behind a prompt, how many of them were cut: none))."""
        for number, chunk in enumerate(chunks):
            yield number, ([prompt + self._as_text(text) for text in chunk], 0)

    def _as_text(self, text: str) -> str:
        # Where its compatibility form spells one, that form is sent: XLM-RoBERTa's tokenizer makes it of a text.
        for form in (str, _compatible):
            found = form(text)
            if _FORM.search(found) and self._find().search(found):
                text = spaced(self._find(), found)
                self._tell()
        return text

    def _tell(self) -> None:
        if not self._told:
            logger.info("texts that spell special tokens of %s are sent with a space in these: '< /s>'", self._model)
            self._told = True

    def _find(self) -> re.Pattern[str]:
        if self._starts is None:
            try:
                self._starts = re.compile(starts_of(special_tokens(load_tokenizer(self._model))))
            except EngineError as error:
                logger.warning("WARNING: %s; the server may read parts of texts as special tokens", error)
                self._starts = re.compile(starts_of([]))
        return self._starts
