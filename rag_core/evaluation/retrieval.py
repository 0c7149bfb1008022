"""What rankers find in a whole corpus: per-query values, means, and what changed with training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rag_core.corpora.corpus import Corpus
from rag_core.evaluation.corpus_args import NamedCorpus
from rag_core.evaluation.rankers import Domain
from rag_core.metrics.ranking import Places, RunMetricName, measure_places
from rag_core.metrics.significance import Change, Values, Wins, count_wins, mean_interval, paired_change
from rag_core.retrieval.bm25 import unmatched_note
from rag_core.retrieval.fusion import fuse

SearchRanker = Literal["BM25", "before", "after", "teacher", "hybrid before", "hybrid after"]
Searching = Literal["before", "after", "teacher"]
SEARCH_METRICS: tuple[RunMetricName, ...] = ("NDCG@10", "MRR@10", "Recall@100")
DEPTH = 100  # results of a search: what recall counts, and what the hybrids fuse

# New and old: what training did, alone and beside BM25, and what a user may do in its place.
_COMPARED: tuple[tuple[SearchRanker, SearchRanker], ...] = (
    ("after", "before"),
    ("hybrid after", "hybrid before"),
    ("hybrid after", "after"),
    ("after", "BM25"),
    ("after", "teacher"),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two rankers on the same queries, `new` minus `old`."""

    new: SearchRanker
    old: SearchRanker
    changes: dict[RunMetricName, Change]
    wins: dict[RunMetricName, Wins]


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What each ranker finds in a corpus.

    Attributes:
        name: of the corpus, in the tables.
        queries: those with a relevant document.
        unmatched: how many of them share no word with any document, so that BM25 finds nothing.
        models: their names, by role.
        values: per ranker and metric, one value for each query, in the order of `asked`.
        asked: (query id, text) of the queries.
    """

    name: str
    path: str
    domain: Domain
    documents: int
    queries: int
    unmatched: int
    models: dict[Searching, str]
    means: dict[SearchRanker, dict[RunMetricName, float]]
    intervals: dict[SearchRanker, dict[RunMetricName, tuple[float, float]]]
    comparisons: list[Comparison]
    values: dict[SearchRanker, dict[RunMetricName, Values]]
    asked: list[tuple[str, str]]

    def compared(self, new: SearchRanker, old: SearchRanker) -> Comparison | None:
        """Return a comparison, `None` where one of the two did not search."""
        return next((found for found in self.comparisons if (found.new, found.old) == (new, old)), None)

    def warnings(self) -> list[str]:
        """Say what the reader must not overlook."""
        found = []
        if "teacher" in self.means and self.means["teacher"]["NDCG@10"] < self.means["before"]["NDCG@10"]:
            found.append(
                f"WARNING: in {self.name} the teacher finds less than the student did before (NDCG@10 "
                f"{self.means['teacher']['NDCG@10']:.4f} < {self.means['before']['NDCG@10']:.4f})."
            )
        if self.unmatched:
            note = unmatched_note(self.unmatched, self.queries, "any passage", "BM25 finds nothing for them")
            found.append(f"{self.name}: {note}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the content for `report.json`, without the values of the queries."""
        return {
            field.name: value if field.name != "comparisons" else [dataclasses.asdict(one) for one in value]
            for field in dataclasses.fields(self)
            if field.name not in ("values", "asked")
            for value in [getattr(self, field.name)]
        }

    def per_query(self) -> list[dict[str, Any]]:
        """Return one row per query for `per_query.jsonl`."""
        return [
            {
                "path": self.path,
                "corpus": self.name,
                "query_id": query_id,
                "query": query,
                **{
                    ranker: {metric: float(values[row]) for metric, values in by_metric.items()}
                    for ranker, by_metric in self.values.items()
                },
            }
            for row, (query_id, query) in enumerate(self.asked)
        ]


def with_hybrids(found: Mapping[SearchRanker, Places]) -> dict[SearchRanker, Places]:
    """Add reciprocal rank fusion of BM25's first `DEPTH` with those of before and of after."""
    hybrids: dict[SearchRanker, Places] = {
        "hybrid before": fuse([found["BM25"], found["before"]], DEPTH)[0],
        "hybrid after": fuse([found["BM25"], found["after"]], DEPTH)[0],
    }
    return {**found, **hybrids}


def measure_search(
    corpus: NamedCorpus,
    judged: Corpus,
    found: Mapping[SearchRanker, Places],
    models: Mapping[Searching, str],
    seed: int,
) -> SearchReport:
    """Measure what rankers found.

    Args:
        judged: the corpus; the queries are those of its qrels.
        found: places of documents, best first, -1 where nothing was found; shape (queries, `DEPTH`).
    """
    query_ids, document_ids = list(judged.qrels), list(judged.documents)
    values: dict[SearchRanker, dict[RunMetricName, Values]] = {}
    for ranker, places in found.items():
        by_query = measure_places(judged.qrels, query_ids, document_ids, places, SEARCH_METRICS)
        values[ranker] = {metric: np.array([of[key] for key in query_ids]) for metric, of in by_query.items()}
    return SearchReport(
        name=corpus.name,
        path=str(corpus.path),
        domain=corpus.domain,
        documents=len(document_ids),
        queries=len(query_ids),
        unmatched=int((found["BM25"][:, 0] < 0).sum()),
        models=dict(models),
        means={ranker: {metric: float(of.mean()) for metric, of in by.items()} for ranker, by in values.items()},
        intervals={
            ranker: {metric: mean_interval(of, seed) for metric, of in by.items()} for ranker, by in values.items()
        },
        comparisons=[_compare(new, old, values, seed) for new, old in _COMPARED if new in values and old in values],
        values=values,
        asked=[(key, judged.queries[key]) for key in query_ids],
    )


def _compare(
    new: SearchRanker, old: SearchRanker, values: Mapping[SearchRanker, Mapping[RunMetricName, Values]], seed: int
) -> Comparison:
    pairs = {metric: (values[old][metric], values[new][metric]) for metric in SEARCH_METRICS}
    return Comparison(
        new,
        old,
        {metric: paired_change(*pair, seed) for metric, pair in pairs.items()},
        {metric: count_wins(*pair) for metric, pair in pairs.items()},
    )


def search_means(reports: Sequence[SearchReport]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures that --expect can name: `search in NAME`, ranker, metric."""
    return {
        f"search in {report.name}": {
            str(ranker): {str(metric): value for metric, value in by_metric.items()}
            for ranker, by_metric in report.means.items()
        }
        for report in reports
    }
