"""How deep to rerank: quality when the first 10, 30, 100 or 1,000 of BM25's order are reranked and the rest stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag_core.evaluation.rankers import FileEvaluation, Ranker
from rag_core.metrics.ranking import measure, rank
from rag_core.metrics.significance import mean_interval, paired_change

DEPTHS = (10, 30, 100, 1000)

_NOT_RERANKED: tuple[Ranker, ...] = ("BM25", "first stage", "mixed")  # the order below is BM25's, not another's


@dataclasses.dataclass(frozen=True)
class DepthResult:
    """The MAP of a ranker that reranks the first `depth` candidates.

    Attributes:
        interval: 95 %, of MAP.
        best_shallower: the shallower depth of the highest MAP; `None` at the first.
        change: MAP minus that at `best_shallower`, with its 95 % interval: difference, low, high; `None` at the first.
    """

    depth: int
    MAP: float
    interval: tuple[float, float]
    best_shallower: int | None
    change: tuple[float, float, float] | None


def measure_depths(evaluation: FileEvaluation, seed: int) -> dict[Ranker, list[DepthResult]]:
    """Return for before, after and the teacher the result at each depth, up to the longest list of candidates."""
    longest = min(max(map(len, evaluation.scores["BM25"])), DEPTHS[-1])
    depths = [*(depth for depth in DEPTHS if depth < longest), longest]
    return {
        ranker: _measure_ranker(evaluation, scores, depths, seed)
        for ranker, scores in evaluation.scores.items()
        if ranker not in _NOT_RERANKED
    }


def _measure_ranker(
    evaluation: FileEvaluation, scores: Sequence[Sequence[float]], depths: Sequence[int], seed: int
) -> list[DepthResult]:
    found: list[DepthResult] = []
    values: dict[int, npt.NDArray[np.float64]] = {}
    for depth in depths:
        order = [
            _reranked([text for text, _ in sample.passages()], first, second, depth)
            for sample, first, second in zip(evaluation.samples, evaluation.scores["BM25"], scores, strict=True)
        ]
        values[depth] = measure(evaluation.samples, order)["MAP"]
        best = max(found, key=lambda result: result.MAP).depth if found else None
        change = None if best is None else paired_change(values[best], values[depth], seed)
        found.append(
            DepthResult(
                depth=depth,
                MAP=float(np.nanmean(values[depth])),
                interval=mean_interval(values[depth], seed),
                best_shallower=best,
                change=None if change is None else (change.difference, change.low, change.high),
            )
        )
    return found


def _reranked(
    passages: Sequence[str], first: Sequence[float], second: Sequence[float], depth: int
) -> npt.NDArray[np.float64]:
    """Return scores whose order is that of `second` among the first `depth` by `first`, and of `first` below them."""
    places = rank(passages, first).astype(np.float64)
    top = np.flatnonzero(places < depth)
    places[top] = rank([passages[i] for i in top], np.asarray(second)[top])
    return -places


def depth_warnings(path: str, depths: Mapping[Ranker, Sequence[DepthResult]]) -> list[str]:
    """Say where reranking more candidates makes the ranking worse, beyond the interval."""
    return [
        f"WARNING: on {path} {ranker} ranks worse where it reranks {result.depth} candidates instead of "
        f"{result.best_shallower} (MAP {result.change[0]:+.4f}, 95 % interval {result.change[1]:+.4f} to "
        f"{result.change[2]:+.4f}): rerank no more than {result.best_shallower} of BM25's."
        for ranker, results in depths.items()
        for result in results
        if result.change and result.change[2] < 0
    ]
