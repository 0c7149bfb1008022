"""What is worth having of a table of trials: its Pareto front and hypervolume, and a pair that recall takes for equal.

Quality is to be high, cost low. Costs may be anything that is below when it is better: milliseconds, bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import IndexTrial
from rag_core.metrics.differences import FEWEST_TO_COMPARE, Difference, difference

Point = tuple[float, float]  # quality, cost

WORST_RECALL = 0.5  # where a hypervolume begins: nobody wants less
_WITHIN, _LOWEST, _HIGHEST = 0.02, 0.5, 0.98  # recalls that count as equal, and those that are looked at


def milliseconds(trial: IndexTrial) -> float | None:
    """Return the median time of a query: of this process's CPU, on a server of the clock; None where neither tells."""
    return trial.wall_ms_p50 if trial.cpu_ms_p50 is None else trial.cpu_ms_p50


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the places of the points that no other beats, cheapest first; of equal ones, the first."""
    front: list[int] = []
    best = -math.inf
    for place in sorted(range(len(points)), key=lambda place: (points[place][1], -points[place][0])):
        if points[place][0] > best:
            best = points[place][0]
            front.append(place)
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the area that points cover of what is better than a reference, in units of quality times cost."""
    covered, below = 0.0, reference[0]
    inside = [point for point in points if point[0] > reference[0] and point[1] < reference[1]]
    for place in pareto_front(inside):
        quality, cost = inside[place]
        covered += (quality - below) * (reference[1] - cost)
        below = quality
    return covered


def recall_and_latency(trials: Iterable[IndexTrial]) -> list[Point]:
    """Return recall and the logarithm of the milliseconds of trials that have both: ten times faster is one step."""
    found = [(trial.recall, milliseconds(trial)) for trial in trials if trial.status == "ok"]
    return [(recall, math.log10(ms)) for recall, ms in found if recall is not None and ms]


@dataclasses.dataclass(frozen=True)
class EqualRecallPair:
    """Two indexes that whoever looks at recall takes for equals.

    Attributes:
        better, worse: by nDCG of the tune half.
        difference: better minus worse in nDCG@10, on the report half.
    """

    better: IndexTrial
    worse: IndexTrial
    difference: Difference


def equal_recall_pair(
    trials: Iterable[IndexTrial], *, tune_fraction: float = 0.5, seed: int = 42
) -> EqualRecallPair | None:
    """Return the two trials of about equal recall that differ most in nDCG on the tune half, `None` for no such pair.

    They are of two index types, and of recall between .5 and .98: above, nothing differs; below, nothing is of use.

    Args:
        tune_fraction, seed: as the trials were made with.
    """
    known = [
        (trial, trial.recall, trial.ndcg_tune)
        for trial in trials
        if trial.status == "ok" and trial.by_query and trial.recall is not None and trial.ndcg_tune is not None
    ]
    usable = sorted((one for one in known if _LOWEST <= one[1] <= _HIGHEST), key=lambda one: one[2], reverse=True)
    pairs = [
        (better, worse)
        for better, worse in combinations(usable, 2)
        if better[0].index != worse[0].index and abs(better[1] - worse[1]) <= _WITHIN
    ]
    if not pairs:
        return None
    better, worse = (one[0] for one in max(pairs, key=lambda pair: pair[0][2] - pair[1][2]))
    assert better.by_query and worse.by_query  # seen above
    shared = [query_id for query_id in better.by_query if query_id in worse.by_query]
    report = Halves.of(shared, tune_fraction).report
    if len(report) < FEWEST_TO_COMPARE:
        return None
    return EqualRecallPair(better, worse, difference(worse.by_query, better.by_query, report, seed))
