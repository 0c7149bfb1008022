"""Quality by the user's qrels: means over the two halves of the judged queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from milvus_optimization.quality.halves import is_tune_query


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
