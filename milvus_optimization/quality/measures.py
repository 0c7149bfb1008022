"""Quality by the user's qrels: nDCG@10 of each judged query, means over the two halves, and differences of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from milvus_optimization.quality.halves import is_tune_query
from milvus_optimization.records import ByQuery, Difference
from rag_core.base.records import Qrels
from rag_core.metrics.ranking import RunMetricName, measure_run
from rag_core.metrics.significance import count_wins, mean_interval

Places = npt.NDArray[np.int64]

FEWEST_TO_COMPARE = 2  # queries of a paired comparison


@dataclasses.dataclass(frozen=True)
class Halves:
    """The judged queries: those to choose by, and those whose figures are reported; ids in the order of the corpus."""

    tune: list[str]
    report: list[str]

    @classmethod
    def of(cls, query_ids: Collection[str], tune_fraction: float) -> Halves:
        """Split queries by their ids."""
        halves: tuple[list[str], list[str]] = ([], [])
        for query_id in query_ids:
            halves[not is_tune_query(query_id, tune_fraction)].append(query_id)
        return cls(*halves)

    def means(self, by_query: Mapping[str, float]) -> tuple[float, float]:
        """Return the means over the report and over the tune half; NaN of an empty one."""
        return mean(by_query, self.report), mean(by_query, self.tune)


def mean(by_query: Mapping[str, float], query_ids: Sequence[str]) -> float:
    """Return the mean over some queries; NaN of none."""
    return float(np.mean([by_query[query_id] for query_id in query_ids])) if query_ids else float("nan")


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


def measure_places(
    qrels: Qrels,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    places: Places,
    metrics: Sequence[RunMetricName],
) -> dict[RunMetricName, ByQuery]:
    """Return metric -> query id -> value of rankings given as places of documents.

    Args:
        query_ids: judged queries, one per row of `places`.
        places: best first, -1 where nothing was found; shape (queries, results).
        metrics: those that are wanted: each takes its time.
    """
    run = {
        query_id: {document_ids[place]: -float(rank) for rank, place in enumerate(row) if place >= 0}
        for query_id, row in zip(query_ids, places, strict=True)
    }
    judged = {query_id: qrels[query_id] for query_id in query_ids}
    found = measure_run(judged, run, metrics)
    return {
        metric: dict(zip(query_ids, (round(float(value), 6) for value in values), strict=True))
        for metric, values in found.items()
    }
