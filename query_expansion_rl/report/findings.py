"""The whole report: rows, what is behind a reranker, the control, the verdict, the queries that changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from query_expansion_rl.records import Topic
from query_expansion_rl.report.measuring import LABELS, RowReport
from query_expansion_rl.report.rows import Row
from query_expansion_rl.report.verdict import Controlled, Verdict

MOST_EXAMPLES = 10
FEW_QUERIES = 50


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Example:
    """A query, the expansion that it was searched with, and nDCG@10 without it and with it."""

    query_id: str
    query: str
    expansion: str
    before: FiniteFloat
    after: FiniteFloat


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Report:
    """What `evaluate` found; `report.json`.

    Attributes:
        retriever: the row of the retriever alone.
        best: the row of the best way that needs no training, chosen on the dev queries.
        judged_by: "labels", or the teacher whose gains stand in for them.
        headroom: nDCG@10 of the oracle over the ways that need no training, minus that of the retriever.
        reranked: the rows behind the reranker; empty without one.
        shown: the row that the examples are of.
    """

    retriever: str
    best: str
    judged_by: str
    queries: int
    dev_queries: int
    query_weight: FiniteFloat
    reranker: str | None
    reranker_depth: int
    headroom: FiniteFloat
    verdict: Verdict
    reranked_verdict: Verdict | None
    rows: list[RowReport]
    reranked: list[RowReport]
    controls: list[Controlled]
    shown: str
    gains: list[Example]
    losses: list[Example]

    @property
    def headline(self) -> str:
        """The verdict, after what a reader has to know of it."""
        first = ""
        if self.judged_by != LABELS:
            first = (
                f"Nobody judged these queries: every figure is agreement with the teacher ({self.judged_by}), who also "
                "decides what the gate lets through. "
            )
        if self.queries < FEW_QUERIES:
            first += f"Only {self.queries} queries report. "
        behind = f" Behind the reranker: {self.reranked_verdict.sentence}" if self.reranked_verdict else ""
        return f"{first}{self.verdict.sentence}{behind}"

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the figures that --expect can name: "test", row, metric."""
        return {"test": {row.name: {str(k): v for k, v in row.means.items()} for row in [*self.rows, *self.reranked]}}


def examples(
    row: Row, before: Mapping[str, float], after: Mapping[str, float], topics: Sequence[Topic]
) -> tuple[list[Example], list[Example]]:
    """Return the queries that gained and lost most, the largest change first, ties in their order.

    Args:
        before, after: query id -> nDCG@10 of the retriever and of the row.
    """
    found = [
        Example(
            query_id=topic.query_id,
            query=topic.query,
            expansion=row.texts.get(topic.query_id, ""),
            before=before[topic.query_id],
            after=after[topic.query_id],
        )
        for topic in topics
        if topic.query_id in before
    ]
    changed = sorted(found, key=lambda one: one.before - one.after)
    gains = [one for one in changed if one.after > one.before][:MOST_EXAMPLES]
    losses = [one for one in reversed(changed) if one.after < one.before][:MOST_EXAMPLES]
    return gains, losses


def behind_name(name: str) -> str:
    """Return the name of a row behind the reranker."""
    return f"{name} + reranker"
