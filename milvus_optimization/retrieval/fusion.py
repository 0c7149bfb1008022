"""Two rankings of each query made into one, as Milvus' hybrid search does it.

Each ranking gives its first `depth` documents. What stands in one alone gets nothing of the other. Equal sums, of which
rank fusion has many, are ordered by id, which is a document's place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from milvus_optimization.records import Normalisation
from milvus_optimization.retrieval.rankings import Places, Ranking
from rag_core.retrieval.fusion import rank_shares

Values = npt.NDArray[np.float64]

_QUERIES_AT_ONCE = 256  # of two rankings of 100, whose places are compared each with each


class RankingPair:
    """A dense ranking and one of BM25, over the same queries and documents."""

    def __init__(self, dense: Ranking, words: Ranking) -> None:
        self.dense, self.words = dense, words
        self._in_words = _ranks_in(dense.places, words.places)
        self._in_dense = _ranks_in(words.places, dense.places)

    def by_ranks(self, k: float, depth: int, count: int) -> Places:
        """Fuse by reciprocal ranks; return the best `count` places, -1 after the last; shape (queries, count)."""
        places = self.dense.places[:, :depth], self.words.places[:, :depth]
        dense, words = (np.where(of >= 0, rank_shares(np.arange(1, of.shape[1] + 1), k), 0.0) for of in places)
        return self._best(dense, words, depth, count)

    def by_scores(self, weight: float, normalisation: Normalisation, depth: int, count: int) -> Places:
        """Fuse by a weighted sum of normalised scores; return as `by_ranks`.

        Args:
            weight: of dense; that of BM25 is 1 - `weight`.
        """
        dense = normalised(self.dense.scores[:, :depth], normalisation, "cosine")
        words = normalised(self.words.scores[:, :depth], normalisation, "bm25")
        return self._best(weight * dense, round(1 - weight, 9) * words, depth, count)

    def _best(self, dense: Values, words: Values, depth: int, count: int) -> Places:
        """Sum what each ranking gives its first `depth` documents; shape (queries, depth) each."""
        first = dense + _looked_up(words, self._in_words[:, :depth])
        alone = self._in_dense[:, :depth] >= dense.shape[1]  # the others stand among the first already
        places = np.concatenate(
            [self.dense.places[:, :depth], np.where(alone, self.words.places[:, :depth], -1)], axis=1
        )
        sums = np.where(places >= 0, np.concatenate([first, words], axis=1), -np.inf)
        order = np.lexsort((places, -sums), axis=1)[:, :count]
        return np.take_along_axis(places, order, axis=1)


def normalised(scores: npt.ArrayLike, normalisation: Normalisation, kind: str) -> Values:
    """Return scores as a weighted sum takes them, 0 where there is none (-inf).

    Args:
        scores: of one ranking, best first; shape (queries, results).
        normalisation: "arctan" is that of Milvus' WeightedRanker: (1 + s) / 2 of a cosine, 2 atan(s) / pi of BM25;
            "minmax" puts the best of a query at 1 and the last at 0, or all at 1 where they are equal; "none" leaves
            them as they are, which is WeightedRanker with norm_score=False.
        kind: "cosine" or "bm25".
    """
    values = np.asarray(scores, dtype=np.float64)
    there = np.isfinite(values)
    kept = np.where(there, values, 0.0)
    if normalisation == "arctan":
        kept = (1 + kept) / 2 if kind == "cosine" else 2 * np.arctan(kept) / np.pi
    elif normalisation == "minmax":
        least = np.where(there, values, np.inf).min(axis=1, keepdims=True)
        spread = values.max(axis=1, keepdims=True) - least  # -inf where a query has no results
        flat = ~(spread > 0)
        kept = np.where(flat, 1.0, (kept - least) / np.where(flat, 1.0, spread))
    return np.where(there, kept, 0.0)


def _ranks_in(places: Places, others: Places) -> Places:
    """Return the rank from 0 of each document in another ranking, as large as can be where it is not there."""
    absent = np.iinfo(np.int64).max
    ranks = np.full(places.shape, absent, dtype=np.int64)
    for start in range(0, len(places), _QUERIES_AT_ONCE):
        mine = slice(start, start + _QUERIES_AT_ONCE)
        same = (places[mine][:, :, None] == others[mine][:, None, :]) & (places[mine] >= 0)[:, :, None]
        ranks[mine] = np.where(same.any(axis=2), same.argmax(axis=2), absent)
    return ranks


def _looked_up(values: Values, ranks: Places) -> Values:
    """Return the value at each rank of its query, 0 beyond the last."""
    found = np.take_along_axis(values, np.minimum(ranks, values.shape[1] - 1), axis=1)
    return np.where(ranks < values.shape[1], found, 0.0)
