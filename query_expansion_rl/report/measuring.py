"""What each way reaches, and how much more than the retriever and than the best way that needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from query_expansion_rl.records import Topic
from query_expansion_rl.report.rows import Kind, Row, Way
from query_expansion_rl.retrieval.workspace import Workspace
from query_expansion_rl.rewards.ndcg import ndcg
from rag_core.base.errors import DataError
from rag_core.metrics.differences import FEWEST_TO_COMPARE, ByQuery, Difference, difference
from rag_core.metrics.ranking import Places, measure_places

Metric = Literal["NDCG@10", "MAP", "Recall@100"]
METRICS: tuple[Metric, ...] = ("NDCG@10", "MAP", "Recall@100")
Values = Mapping[Metric, ByQuery]

LABELS = "labels"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class RowReport:
    """A way and its figures.

    Attributes:
        means: by metric.
        minus_retriever, minus_best: differences of nDCG@10; `None` of a row from itself, and of an oracle.
        recall_minus_retriever: the same of recall@100.
        harm: share of the queries whose nDCG@10 is lower than that of the retriever.
        tokens, search_ms, write_ms: of a query; `None` where nobody measured.
        by_query: nDCG@10.
    """

    name: str
    kind: Kind
    method: str
    way: Way | None
    means: dict[Metric, FiniteFloat]
    minus_retriever: Difference | None
    minus_best: Difference | None
    recall_minus_retriever: Difference | None
    harm: FiniteFloat | None
    tokens: FiniteFloat | None
    search_ms: FiniteFloat | None
    write_ms: FiniteFloat | None
    by_query: ByQuery

    @property
    def ndcg(self) -> float:
        """Mean nDCG@10."""
        return self.means["NDCG@10"]

    @property
    def is_candidate(self) -> bool:
        """Whether the verdict may name it: what has its cost, and can be had."""
        return self.kind in ("expansion", "policy") and self.way != "alone"


class Measure:
    """Measures rankings by the judgements of people, or without any by the teacher's gains.

    Attributes:
        judged_by: "labels", or the teacher's name.
        query_ids: of the queries that are measured.
    """

    def __init__(self, workspace: Workspace, topics: Sequence[Topic]) -> None:
        """Find out who judged.

        Raises:
            DataError: too few queries are judged to be compared.
        """
        self._passages = list(workspace.corpus.documents)
        place_of = {key: place for place, key in enumerate(self._passages)}
        labelled = workspace.qrels(topics)
        self.judged_by = LABELS if labelled else workspace.summary.teacher
        gains = {} if labelled else workspace.gains()
        kept = [(row, t) for row, t in enumerate(topics) if (t.query_id in labelled if labelled else gains[t.query_id])]
        self.query_ids = [topic.query_id for _, topic in kept]
        if len(kept) < FEWEST_TO_COMPARE:
            raise DataError(
                f"has {len(kept)} judged {topics[0].split if topics else 'test'} queries, and a comparison needs "
                f"{FEWEST_TO_COMPARE}",
                "Run rank_baselines with more queries",
                path=workspace.folder,
            )
        self._rows = [row for row, _ in kept]
        self._gains = [{place_of[key]: gain for key, gain in gains[one].items()} for one in self.query_ids if gains]
        self._qrels = labelled or {one: dict.fromkeys(gains[one], 1) for one in self.query_ids}

    @staticmethod
    def is_possible(workspace: Workspace, topics: Sequence[Topic]) -> bool:
        """Tell whether enough queries are judged, by people or by the teacher."""
        gains = workspace.gains()
        judged = len(workspace.qrels(topics)) or sum(bool(gains[topic.query_id]) for topic in topics)
        return judged >= FEWEST_TO_COMPARE

    def __call__(self, places: Places) -> Values:
        """Return metric -> query id -> value; without labels, a passage that the teacher wants is relevant."""
        mine = places[self._rows]
        found = measure_places(self._qrels, self.query_ids, self._passages, mine, METRICS)
        values: dict[Metric, ByQuery] = {metric: found[metric] for metric in METRICS}
        if self._gains:  # which are graded, and no whole numbers
            graded = [round(float(value), 6) for value in ndcg(mine, self._gains)]
            values["NDCG@10"] = dict(zip(self.query_ids, graded, strict=True))
        return values


def report_rows(
    rows: Sequence[Row], values: Mapping[str, Values], best: str, query_ids: Sequence[str], seed: int
) -> list[RowReport]:
    """Compare each way with the retriever that it is for, and with the best that needs no training.

    Args:
        values: name of a row -> what it reaches.
        best: the row of the latter.
    """

    def minus(other: str, row: Row, metric: Metric = "NDCG@10") -> Difference | None:
        if other == row.name or row.kind == "oracle":
            return None
        return difference(values[other][metric], values[row.name][metric], query_ids, seed)

    found = []
    for row in rows:
        mine, over_retriever = values[row.name], minus(row.base, row)
        found.append(
            RowReport(
                name=row.name,
                kind=row.kind,
                method=row.method,
                way=row.way,
                means={metric: float(np.mean(list(mine[metric].values()))) for metric in METRICS},
                minus_retriever=over_retriever,
                minus_best=minus(best, row),
                recall_minus_retriever=minus(row.base, row, "Recall@100"),
                harm=over_retriever.worse / len(query_ids) if over_retriever else None,
                tokens=row.tokens,
                search_ms=row.search_ms,
                write_ms=row.write_ms,
                by_query=mine["NDCG@10"],
            )
        )
    return found
