"""Several rankings of a query made into one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt

from rag_core.retrieval.dense import Floats, Places

# How little more the first places count in rank fusion than the others; the value of the paper.
RANK_CONSTANT = 60


def take_turns(rankings: Sequence[Sequence[int]], count: int) -> list[int]:
    """Interleave rankings of positions, each position once; return the first `count`.

    Every ranking gets its best ones in, whatever its scores are.
    """
    merged = dict.fromkeys(place for place in chain.from_iterable(zip_longest(*rankings)) if place is not None)
    return list(merged)[:count]


def reciprocal_ranks(scores: npt.ArrayLike, k: float = RANK_CONSTANT) -> npt.NDArray[np.float64]:
    """Return the `rank_shares` of scores: the highest has rank 1, ties share their mean rank."""
    from scipy.stats import rankdata

    return rank_shares(rankdata(-np.asarray(scores, dtype=np.float64)), k)


def rank_shares(ranks: npt.ArrayLike, k: float = RANK_CONSTANT) -> npt.NDArray[np.float64]:
    """Return 1 / (k + rank) of ranks from 1.

    Their sum over rankings is reciprocal rank fusion. Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion
    outperforms Condorcet and individual Rank Learning Methods".
    """
    shares: npt.NDArray[np.float64] = 1 / (k + np.asarray(ranks, dtype=np.float64))
    return shares


def standardise(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the scores of one query with mean 0 and standard deviation 1; zeros where all are equal."""
    values = np.asarray(scores, dtype=np.float64)
    if (values == values[0]).all():
        return np.zeros_like(values)
    centred = values - values.mean()
    if not centred.std():  # the squares of scores that are nearly equal need not be above 0
        centred /= np.abs(centred).max()
    standardised: npt.NDArray[np.float64] = centred / centred.std()
    return standardised


def fuse(rankings: Sequence[Places], count: int, k: float = RANK_CONSTANT) -> tuple[Places, Floats]:
    """Fuse rankings by reciprocal rank; ties in passage order.

    Args:
        rankings: places of documents, best first, -1 where nothing was found; shape (queries, results) each.

    Returns:
        Places and their sums of 1 / (k + rank); shape (queries, count) each. The rest has place -1 and score -inf.
    """
    rows = len(rankings[0])
    places = np.full((rows, count), -1, dtype=np.int64)
    scores = np.full((rows, count), -np.inf, dtype=np.float32)
    for row in range(rows):
        sums: dict[int, float] = {}
        for ranking in rankings:
            found = [int(place) for place in ranking[row] if place >= 0]
            for place, share in zip(found, rank_shares(np.arange(1, len(found) + 1), k), strict=True):
                sums[place] = sums.get(place, 0.0) + float(share)
        best = sorted(sums, key=lambda place: (-sums[place], place))[:count]
        places[row, : len(best)], scores[row, : len(best)] = best, [sums[place] for place in best]
    return places, scores
