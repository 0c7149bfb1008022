"""BM25 through bm25s: it finds candidates, and it is the baseline row of a report."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag_core.base.records import RankingSample
from rag_core.retrieval.analyser import PLAIN, Analyser
from rag_core.retrieval.dense import best_places

# The values of Anserini's MS MARCO baseline are tuned to passages; these are the Lucene defaults.
K1, B = 1.2, 0.75

_PASSAGES_AT_ONCE = 2**13  # whose terms are held twice


class BM25:
    """Okapi BM25 (Lucene's variant, without the factor k1 + 1) over the terms of an analyser."""

    def __init__(
        self,
        passages: Sequence[str],
        analyser: Analyser = PLAIN,
        *,
        k1: float = K1,
        b: float = B,
        terms: list[list[str]] | None = None,
    ) -> None:
        """Index the passages.

        Args:
            k1: how much a word counts that comes again: 0 for nothing.
            b: how much the length of a passage is held against it: from 0, not at all, to 1.
            terms: of the passages by the analyser, where they are at hand.
        """
        # Where JAX is installed, importing bm25s starts it; on a GPU it would take three quarters of the memory.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets it to DEBUG
        self._analyser = analyser
        self._size = len(passages)
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._vocabulary: dict[str, int] = {}
        terms = _terms_of(passages, analyser) if terms is None else terms
        if any(terms):  # bm25s takes no passages without any word
            self._index.index(terms, show_progress=False)
            self._vocabulary = self._index.vocab_dict

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score every passage for a query; shape (passages,), 0 where no word is shared, and only there."""
        known = [word for word in self._analyser.terms([query])[0] if word in self._vocabulary]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._index.get_scores(known), dtype=np.float32)

    def weighted_scores(self, weights: Mapping[str, float]) -> npt.NDArray[np.float32]:
        """Score every passage for terms that count differently; shape (passages,).

        With the occurrences of the query's terms as weights, these are `scores`.

        Args:
            weights: term, as the analyser gives it -> how much it counts.
        """
        scores = np.zeros(self._size, dtype=np.float32)
        for term, weight in weights.items():
            if (number := self._vocabulary.get(term)) is not None:
                having = self._postings(number)
                scores[self._index.scores["indices"][having]] += weight * self._index.scores["data"][having]
        return scores

    def _postings(self, number: int) -> slice:
        starts = self._index.scores["indptr"]
        return slice(starts[number], starts[number + 1])

    def nearest(self, query: str, count: int) -> tuple[list[int], npt.NDArray[np.float32]]:
        """Return the places of at most `count` passages that share a word with a query, and their scores, best first.

        Ties are in passage order.
        """
        scores = self.scores(query)
        places = [place for place in best_places(scores, count) if scores[place] > 0]
        return places, scores[places]


def _terms_of(passages: Sequence[str], analyser: Analyser) -> list[list[str]]:
    """Return the terms of passages; equal ones are one object, or a large corpus would hold each word many times."""
    known: dict[str, str] = {}
    found: list[list[str]] = []
    for first in range(0, len(passages), _PASSAGES_AT_ONCE):
        block = analyser.terms(passages[first : first + _PASSAGES_AT_ONCE])
        found += [[known.setdefault(term, term) for term in terms] for terms in block]
    return found


def nearest_passages(
    queries: Sequence[str], passages: Sequence[str], count: int, analyser: Analyser = PLAIN
) -> list[list[int]]:
    """Return the positions of at most `count` passages that share a word with each query, best first.

    Ties are in passage order.
    """
    from tqdm import tqdm

    index = BM25(passages, analyser)
    asked = tqdm(queries, unit="query", desc="search bm25", disable=None)
    return [index.nearest(query, count)[0] for query in asked]


def filled_at_random(places: Sequence[int], size: int, count: int, generator: random.Random) -> list[int]:
    """Return `count` positions of `size`: those given, then others at random; all where there are no more.

    What shares no word with a query is one large tie: the first passages of the corpus are no better than any.
    """
    missing = min(count, size) - len(places)
    if missing <= 0:
        return list(places)
    given = set(places)
    drawn = generator.sample(range(size), missing + len(given))
    return [*places, *[place for place in drawn if place not in given][:missing]]


def unmatched_note(unmatched: int, queries: int, passages: str, consequence: str) -> str:
    """Say how many queries BM25 can do nothing for, what becomes of them, and what to do."""
    return (
        f"{unmatched} of {queries} queries ({unmatched / queries:.0%}) share no word with {passages}: "
        f"{consequence}. Where queries and passages are in different languages BM25 is of no use; for other forms of "
        "a word pass --bm25_stemmer"
    )


def bm25_scores(samples: Sequence[RankingSample], analyser: Analyser = PLAIN) -> list[list[float]]:
    """Score each sample's `passages()` by BM25, with the statistics of all distinct passages of the samples."""
    index = {text: row for row, text in enumerate(dict.fromkeys(t for s in samples for t, _ in s.passages()))}
    bm25 = BM25(list(index), analyser)
    rows = []
    for sample in samples:
        scores = bm25.scores(sample.query)
        rows.append([float(scores[index[passage]]) for passage, _ in sample.passages()])
    return rows
