"""The ways that need no training beside the retriever: figures of the test queries, and what to use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from query_expansion_rl.records import Split, Topic
from rag_core.base.records import Qrels
from rag_core.base.tables import format_difference
from rag_core.metrics.differences import FEWEST_TO_COMPARE, Difference, difference
from rag_core.metrics.ranking import Places, RunMetricName, measure_places

METRICS: tuple[RunMetricName, ...] = ("NDCG@10", "MAP", "Recall@100")
ORACLE, PICKED = "oracle", "picked"
FEW_TO_CHOOSE = 100  # dev queries; with fewer, train and dev choose together

_HEAD = ("nDCG@10", "minus {retriever}", "wins", "losses", "harm", "MAP", "recall@100")
_NOTES = {
    ORACLE: "the best of the ways for each query, known only afterwards",
    PICKED: "BM25 or one of 12 RM3 variants (with the hybrid's feedback passages where there is a hybrid) for each "
    "query, picked by the judge, without labels",
}

ByWay = dict[str, dict[RunMetricName, dict[str, float]]]


@dataclass(frozen=True)
class Baselines:
    """Rankings of all topics by each way, and what they are measured by.

    Attributes:
        places: way -> best first; shape (topics, results).
        qrels: judgements of people, or the judge's gains.
        by_labels: which of both.
        chosen_from: the ways that may be recommended, the cheapest first.
    """

    retriever: str
    topics: Sequence[Topic]
    document_ids: Sequence[str]
    places: Mapping[str, Places]
    qrels: Qrels
    by_labels: bool
    chosen_from: Sequence[str]
    seed: int

    def measured(self, splits: Collection[Split]) -> ByWay:
        """Return way -> metric -> query id -> value, of the queries that are judged; the oracle over the ways, too."""
        rows = [row for row, topic in enumerate(self.topics) if topic.split in splits and self._is_judged(topic)]
        ids = [self.topics[row].query_id for row in rows]
        found: ByWay = {
            way: measure_places(self.qrels, ids, self.document_ids, places[rows], METRICS)
            for way, places in self.places.items()
        }
        ways = [found[way] for way in self.chosen_from]
        found[ORACLE] = {
            metric: {query_id: max(way[metric][query_id] for way in ways) for query_id in ids} for metric in METRICS
        }
        return found

    def choose(self, *, few: int = FEW_TO_CHOOSE) -> tuple[str, str]:
        """Return the way with the highest mean nDCG@10, of equal ones the cheapest, and the queries that tell."""
        dev = sum(topic.split == "dev" and self._is_judged(topic) for topic in self.topics)
        on: tuple[Split, ...] = ("train", "dev") if dev < few else ("dev",)
        means = self.means(self.measured(on))
        if not means:
            return self.retriever, " and ".join(on)
        return max(self.chosen_from, key=lambda way: means[way]["NDCG@10"]), " and ".join(on)

    def means(self, measured: ByWay) -> dict[str, dict[str, float]]:
        """Return way -> metric -> mean; empty where no query is judged."""
        if not measured[self.retriever]["NDCG@10"]:
            return {}
        return {
            way: {metric: round(float(np.mean(list(values.values()))), 6) for metric, values in by_metric.items()}
            for way, by_metric in measured.items()
        }

    def differences(self, measured: ByWay) -> dict[str, Difference]:
        """Return way -> its nDCG@10 minus the retriever's; empty where too few queries are judged."""
        before = measured[self.retriever]["NDCG@10"]
        if len(before) < FEWEST_TO_COMPARE:
            return {}
        return {
            way: difference(before, by_metric["NDCG@10"], list(before), self.seed)
            for way, by_metric in measured.items()
            if way != self.retriever
        }

    def rows(self, measured: ByWay) -> list[list[str]]:
        """Return the table, its head first; the oracle is the last row."""
        means, differences = self.means(measured), self.differences(measured)
        head = "way" if self.by_labels else "way (by the judge)"
        rows = [[head, *(cell.format(retriever=self.retriever) for cell in _HEAD)]]
        for way, figures in means.items():
            more = [""] * 4
            if one := differences.get(way):
                harm = f"{one.worse / len(measured[way]['NDCG@10']):.0%}"
                more = [format_difference(one.difference, one.low, one.high), str(one.better), str(one.worse), harm]
            first, *others = (f"{figures[metric]:.4f}" for metric in METRICS)
            rows.append([way, first, *more, *others])
        return rows

    def advice(self, best: str, best_on: str, measured: ByWay) -> str:
        """Say what to use, with the figure of the test queries."""
        one = self.differences(measured).get(best)
        if not self.by_labels:
            return (
                f"No test query is judged: {best} agrees best with the judge on the {best_on} queries, and whether it "
                "ranks better nobody can tell. Judge 100 queries to know."
            )
        if best == self.retriever or one is None:
            return f"Keep {self.retriever}: no way that needs no training ranks better on the {best_on} queries."
        figure = format_difference(one.difference, one.low, one.high)
        if one.low > 0:
            return f"Use {best}: {figure} nDCG@10 over {self.retriever} on the test queries, and no training."
        return (
            f"Keep {self.retriever}: {best} is best on the {best_on} queries, and on the test queries the interval "
            f"does not exclude that it gains nothing ({figure} nDCG@10)."
        )

    def _is_judged(self, topic: Topic) -> bool:
        return max(self.qrels.get(topic.query_id, {}).values(), default=0) > 0


def with_times(table: Sequence[Sequence[str]], milliseconds: Mapping[str, float]) -> list[list[str]]:
    """Return the table with a column of CPU milliseconds of a query."""
    head, *rows = table
    times = {way: f"{spent:.1f}" for way, spent in milliseconds.items()}
    return [[*head, "CPU ms"], *([*row, times.get(row[0], "")] for row in rows)]


def notes(table: Sequence[Sequence[str]]) -> str:
    """Return what the rows are that are no way to search."""
    return "\n".join(f"{row[0]}: {_NOTES[row[0]]}." for row in table if row[0] in _NOTES)
