"""How well rankings agree with a judge whose gains are any numbers, query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag_core.metrics.ranking import Places

Gains = Mapping[int, float]
"""Place of a passage -> how much a judge wants it; a passage that is not there has 0."""

Values = npt.NDArray[np.float64]

TOP = 10


def ndcg(places: Places, gains: Sequence[Gains], count: int = TOP) -> Values:
    """Return nDCG of each ranking: sum of gain / log2(rank + 1), over that of the best order; shape (rankings,).

    For whole gains it is trec_eval's. A gain below 0 counts as 0. Without any gain above 0 it is NaN.

    Args:
        places: best first, -1 where nothing was found; shape (rankings, results).
        gains: of each ranking's query.
    """
    found = _found(places[:, :count], gains)
    best = np.zeros((len(gains), count))
    for row, judged in enumerate(gains):
        top = sorted((gain for gain in judged.values() if gain > 0), reverse=True)[:count]
        best[row, : len(top)] = top
    discounts = 1 / np.log2(np.arange(count) + 2)
    ideal = best @ discounts
    return _over(found @ discounts[: found.shape[1]], ideal)


def log_rank(places: Places, gains: Sequence[Gains]) -> Values:
    """Return how high the judged passages stand, from 0 to 1: the mean of 1 - log(rank) / log(depth + 1) by gain.

    One that halves its rank gains the same wherever it stands, while nDCG@10 sees only the first ten. What is not among
    the results has 0. Without any gain above 0 it is NaN.

    Args:
        places: best first, -1 where nothing was found; shape (rankings, results), where `results` is the depth.
        gains: of each ranking's query.
    """
    found = _found(places, gains)
    depth = places.shape[1]
    heights = 1 - np.log(np.arange(depth) + 1) / np.log(depth + 1)
    sums = np.array([sum(max(gain, 0.0) for gain in judged.values()) for judged in gains], dtype=np.float64)
    return _over(found @ heights, sums)


def _over(reached: Values, most: Values) -> Values:
    shares: Values = np.divide(reached, most, out=np.full(len(most), np.nan), where=most > 0)
    return shares


def _found(places: Places, gains: Sequence[Gains]) -> Values:
    """Return the gain of each result; shape of `places`."""
    rows = [
        [max(judged.get(place, 0.0), 0.0) for place in row] for row, judged in zip(places.tolist(), gains, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(places.shape)
