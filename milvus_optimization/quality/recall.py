"""How many of the true nearest documents a search finds, with ties counted as equals.

Equal or nearly equal texts have equal cosines, and each index orders them in its own way. So a result counts when its
exact cosine reaches that of the exact k-th one, whichever document it is. The exact ones are those of the same
backend's FLAT index: against another library's exact ranking, FLAT itself lost .002 nDCG on a corpus with duplicates.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
import numpy.typing as npt

from rag_core.retrieval.dense import scores_at

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

# Scores of one text differ by so much with the order of the additions; Milvus, faiss and NumPy each have their own.
_TIE = 1e-5


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """What an exact search finds for each query; shape (queries,) each.

    Attributes:
        first, last: exact score of the first and of the last result.
        count: number of results; fewer than k where there are no more documents, as under a filter.
    """

    first: Floats
    last: Floats
    count: Places

    @classmethod
    def of(cls, scores: Floats) -> Self:
        """Read them off the exact scores of what an exact search found; shape (queries, k)."""
        found = np.isfinite(scores)
        last = np.where(found, scores, np.inf).min(axis=1)
        return cls(scores.max(axis=1), last.astype(np.float32), found.sum(axis=1))

    def recall(self, scores: Floats) -> float:
        """Return the mean share of them that a search found; NaN where there was nothing to be found.

        Args:
            scores: exact scores of what it found, as of `true_scores`; shape (queries, k).
        """
        some = self.count > 0
        if not some.any():
            return float("nan")
        reached = (scores >= self.last[:, None] - _TIE).sum(axis=1)
        return float((np.minimum(reached, self.count)[some] / self.count[some]).mean())

    def first_kept(self, scores: Floats) -> float:
        """Return the share of queries whose first result is an exact first one."""
        return float((scores[:, 0] >= self.first - _TIE).mean())


def true_scores(queries: Floats, documents: Floats, places: Places) -> Floats:
    """Return the cosine of each query with each document found for it, -inf for place -1 and for a place that repeats.

    An index of coded vectors tells approximate scores, so the scores of a backend are not used.

    Args:
        places: shape (queries, k).
    """
    order = np.argsort(places, axis=1, kind="stable")
    ordered = np.take_along_axis(places, order, axis=1)
    repeats = np.zeros(places.shape, dtype=bool)
    np.put_along_axis(repeats, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return scores_at(queries, documents, np.where(repeats, -1, places))
