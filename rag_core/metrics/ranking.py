"""MAP, MRR@10 and NDCG@10 per query, through ir-measures (trec_eval), with one policy for what they leave open.

- Ties: passages with equal scores are ordered by the SHA-256 of their text, which knows nothing of labels,
  so that a model that gives every passage the same score is judged as a random order, not as a perfect one.
- Queries without a positive or without a negative say nothing about a ranking: their values are NaN, and
  means leave them out (`measured` counts the others).
- Relevance is binary; the gain of NDCG is the label, its discount log2(rank + 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rag_core.base.records import RankingSample

MetricName = Literal["MAP", "MRR@10", "NDCG@10"]
METRICS: tuple[MetricName, ...] = ("MAP", "MRR@10", "NDCG@10")

PerQuery = dict[MetricName, npt.NDArray[np.float64]]


def measure(samples: Sequence[RankingSample], scores: Sequence[npt.ArrayLike]) -> PerQuery:
    """Return each metric's value for each sample; shape (samples,), NaN where a query cannot be measured.

    Args:
        scores: for each sample the scores of its `passages()`, in their order.
    """
    import ir_measures

    names = {ir_measures.AP: "MAP", ir_measures.RR @ 10: "MRR@10", ir_measures.nDCG @ 10: "NDCG@10"}
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number, (sample, sample_scores) in enumerate(zip(samples, scores, strict=True)):
        if not (sample.positive and sample.negative):
            continue
        passages, labels = zip(*sample.passages(), strict=True)
        ranks = rank(passages, sample_scores)
        qrels[str(number)] = {str(i): int(label) for i, label in enumerate(labels)}
        run[str(number)] = {str(i): -float(ranks[i]) for i in range(len(passages))}
    values: PerQuery = {metric: np.full(len(samples), np.nan) for metric in METRICS}
    if qrels:
        for value in ir_measures.iter_calc(list(names), qrels, run):
            values[names[value.measure]][int(value.query_id)] = value.value  # type: ignore[index]
    return values


def rank(passages: Sequence[str], scores: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return each passage's place, 0 for the highest score; ties by the SHA-256 of the text."""
    descending = -np.asarray(scores, dtype=np.float64)
    order = np.argsort(descending, kind="stable")
    if (np.diff(descending[order]) == 0).any():
        tie_break = [hashlib.sha256(passage.encode()).digest() for passage in passages]
        order = np.array(sorted(order, key=lambda i: (descending[i], tie_break[i])))
    ranks = np.empty(len(passages), dtype=np.int64)
    ranks[order] = np.arange(len(passages))
    return ranks


def measured(values: PerQuery) -> int:
    """Count the queries that could be measured."""
    return int(np.isfinite(values["MAP"]).sum())


def means(values: PerQuery) -> dict[MetricName, float]:
    """Return each metric's mean over the queries that could be measured; NaN where there are none."""
    if not measured(values):
        return dict.fromkeys(METRICS, float("nan"))
    return {metric: float(np.nanmean(values[metric])) for metric in METRICS}
