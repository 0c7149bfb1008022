"""Two rankings compared query by query: a mean difference, its interval, and who wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from rag_core.metrics.significance import count_wins, mean_interval

ByQuery = dict[str, FiniteFloat]

FEWEST_TO_COMPARE = 2  # queries of a paired comparison


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="ignore"))
class Difference:
    """A mean difference over queries, new minus old, and on how many of them it is above and below 0."""

    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    better: int
    worse: int


def difference(old: Mapping[str, float], new: Mapping[str, float], query_ids: Sequence[str], seed: int) -> Difference:
    """Compare two rankings query by query: new minus old, with a 95 % bootstrap interval over queries.

    Raises:
        ValueError: fewer than 2 queries.
    """
    if len(query_ids) < FEWEST_TO_COMPARE:
        raise ValueError(f"a paired comparison needs {FEWEST_TO_COMPARE} queries, got {len(query_ids)}")
    before, after = (np.array([side[query_id] for query_id in query_ids]) for side in (old, new))
    low, high = mean_interval(after - before, seed)
    wins = count_wins(before, after)
    return Difference(float((after - before).mean()), low, high, wins.better, wins.worse)
