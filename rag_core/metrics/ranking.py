"""MAP, MRR@10, NDCG@10 and recall per query, through ir-measures (trec_eval), with one policy for what they leave open.

- Ties: documents with equal scores are ordered by the SHA-256 of their text (samples) or id (runs, which have no
  texts). It knows nothing of labels, so a model that gives every document the same score is judged as a random
  order, not as a perfect one.
- Queries that say nothing about a ranking have the value NaN, and means leave them out (`measured` counts the
  others): a sample without a positive or without a negative, a query of qrels without a relevant document.
- Relevance above 0 is relevant. The gain of NDCG is the relevance itself, as in trec_eval (not 2^relevance - 1), its
  discount log2(rank + 1). Documents that nobody judged are not relevant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rag_core.base.records import Qrels, RankingSample, Run
from rag_core.metrics.differences import ByQuery
from rag_core.metrics.significance import Values

MetricName = Literal["MAP", "MRR@10", "NDCG@10"]
METRICS: tuple[MetricName, ...] = ("MAP", "MRR@10", "NDCG@10")
RunMetricName = Literal[MetricName, "Recall@10", "Recall@100"]
RUN_METRICS: tuple[RunMetricName, ...] = (*METRICS, "Recall@10", "Recall@100")
M = TypeVar("M", MetricName, RunMetricName)

PerQuery = dict[MetricName, Values]
Places = npt.NDArray[np.int64]

# As ir-measures spells them.
_MEASURES: dict[RunMetricName, str] = {
    "MAP": "AP",
    "MRR@10": "RR@10",
    "NDCG@10": "nDCG@10",
    "Recall@10": "R@10",
    "Recall@100": "R@100",
}


def measure(samples: Sequence[RankingSample], scores: Sequence[npt.ArrayLike]) -> PerQuery:
    """Return each metric's value for each sample; shape (samples,), NaN where a query cannot be measured.

    Args:
        scores: for each sample the scores of its `passages()`, in their order.
    """
    qrels: dict[str, dict[str, int]] = {str(number): {} for number in range(len(samples))}
    run: dict[str, dict[str, float]] = {}
    for number, (sample, sample_scores) in enumerate(zip(samples, scores, strict=True)):
        if not (sample.positive and sample.negative):
            continue
        qrels[str(number)] = {passage: int(label or 0) for passage, label in sample.passages()}
        flat = np.asarray(sample_scores, dtype=np.float64).tolist()
        run[str(number)] = dict(zip(qrels[str(number)], flat, strict=True))
    return _measure(METRICS, qrels, run)


def measure_run(qrels: Qrels, run: Run, metrics: Sequence[RunMetricName] = RUN_METRICS) -> dict[RunMetricName, Values]:
    """Return each metric's value for each query of the qrels, in their order; shape (queries,).

    A query of the qrels that the run lacks has found nothing: 0. A query that the qrels lack is left out. Recall is
    the share of all relevant documents among the first 10 or 100, so it cannot reach 1 where there are more of them.
    """
    return _measure(metrics, qrels, run)


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


def _measure(metrics: Sequence[M], qrels: Qrels, run: Run) -> dict[M, Values]:
    import ir_measures

    names = {ir_measures.parse_measure(_MEASURES[metric]): metric for metric in metrics}
    values: dict[M, Values] = {metric: np.full(len(qrels), np.nan) for metric in metrics}
    judged: dict[str, dict[str, int]] = {}
    ranked: dict[str, dict[str, float]] = {}
    for number, (query, relevance) in enumerate(qrels.items()):
        if max(relevance.values(), default=0) <= 0:
            continue
        scores = run.get(query, {})
        ids = {document: str(i) for i, document in enumerate({**scores, **relevance})}
        judged[str(number)] = {ids[document]: grade for document, grade in relevance.items()}
        # trec_eval would compare scores as float32, and order equal ones by the names of the documents.
        places = rank(list(scores), np.fromiter(scores.values(), np.float64))
        ranked[str(number)] = {ids[document]: -float(place) for document, place in zip(scores, places, strict=True)}
    if judged:
        for value in ir_measures.iter_calc(list(names), judged, ranked):
            values[names[value.measure]][int(value.query_id)] = value.value
    return values


def rank(documents: Sequence[str], scores: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return each document's place, 0 for the highest score; ties by the SHA-256 of its text or id."""
    descending = -np.asarray(scores, dtype=np.float64)
    order = np.argsort(descending, kind="stable")
    if (np.diff(descending[order]) == 0).any():
        tie_break = [hashlib.sha256(document.encode()).digest() for document in documents]
        order = np.array(sorted(order, key=lambda i: (descending[i], tie_break[i])))
    ranks = np.empty(len(documents), dtype=np.int64)
    ranks[order] = np.arange(len(documents))
    return ranks


def measured(values: Mapping[M, Values]) -> int:
    """Count the queries that could be measured."""
    return int(np.isfinite(values["MAP"]).sum())


def means(values: Mapping[M, Values]) -> dict[M, float]:
    """Return each metric's mean over the queries that could be measured; NaN where there are none."""
    if not measured(values):
        return dict.fromkeys(values, float("nan"))
    return {metric: float(np.nanmean(found)) for metric, found in values.items()}
