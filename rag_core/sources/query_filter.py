"""Which queries of a language model are worth training on: those that find the passage that they were written for.

Round trips after Dai et al. 2022, "Promptagator: Few-shot Dense Retrieval From 8 Examples", arXiv:2209.11755, with BM25
in the place of a trained retriever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from rag_core.base.records import Query
from rag_core.retrieval.analyser import count_words
from rag_core.retrieval.bm25 import BM25
from rag_core.sources.query_prompt import Example

_LEAST_WORDS = 2
_LEAST_COPIED = 3  # words; shorter spans of an example are found in other texts, too
_ABOUT_THE_TASK = re.compile(
    r"\bpassages?\b|\bsearch quer(?:y|ies)\b|\bquery:|\bthe (?:above|following|given) text\b|\bthis text\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="ignore"))
class Written:
    """What a model wrote for the passage at a place; `query` is `None` where the answer was none."""

    place: int
    query: str | None = None


class QueryFilter:
    """Leaves queries out, and counts them by reason.

    Attributes:
        dropped: reason -> how many.
    """

    def __init__(self, passages: Sequence[str], examples: Iterable[Example], round_trip: int) -> None:
        """Index the passages where there are round trips.

        Args:
            round_trip: a query must find its passage among so many; 0 asks for none.
        """
        self._passages, self._round_trip = passages, round_trip
        self._examples = [(_plain(one.query), _plain(one.passage)) for one in examples]
        self._index = BM25(passages) if round_trip else None
        reasons = ("no_answer", "too_short", "copies_an_example", "about_the_task", "passage_not_found", "repeated")
        self.dropped: Counter[str] = Counter(dict.fromkeys(reasons, 0))

    def kept(self, written: Iterable[Written]) -> Iterator[Query]:
        """Yield the queries that are kept, each once."""
        seen: set[str] = set()
        for one in written:
            reason = self._fault(one.query, one.place)
            if reason is None and one.query in seen:
                reason = "repeated"
            if reason is not None:
                self.dropped[reason] += 1
            elif one.query is not None:
                seen.add(one.query)
                yield Query(one.query)

    def _fault(self, query: str | None, place: int) -> str | None:
        if query is None:
            return "no_answer"
        if count_words(query) < _LEAST_WORDS:
            return "too_short"
        if self._copies(_plain(query)):
            return "copies_an_example"
        found = _ABOUT_THE_TASK.search(query)
        if found and found[0].lower() not in self._passages[place].lower():
            return "about_the_task"
        if self._index is not None and place not in self._index.nearest(query, self._round_trip)[0]:
            return "passage_not_found"
        return None

    def _copies(self, query: str) -> bool:
        """Tell whether a query holds an example's, or is a part of one."""
        for asked, passage in self._examples:
            if f" {asked} " in f" {query} ":
                return True
            if len(query.split()) >= _LEAST_COPIED and f" {query} " in f" {asked} | {passage} ":
                return True
        return False


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
