"""A reranker mixed with the first stage that it reorders: the mixed scores, and the weight that a dev file chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_core.base.records import RankingSample
from rag_core.distillation.teachers import merge
from rag_core.evaluation.rankers import RANKERS, FileEvaluation, Ranker
from rag_core.metrics.ranking import PerQuery, measure
from rag_core.metrics.significance import Values

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
"""Among which a dev file chooses."""

Scores = Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the first stage and the reranker are mixed.

    Attributes:
        first_stage: its name.
        weight: of the reranker; `None` where the two are not mixed.
        dev_file: that chose the weight; `None` where the weight was given.
        dev_queries: how many of its queries have a positive and a negative.
        dev_means: MAP of the mix on that file, by weight.
    """

    first_stage: str
    weight: float | None = None
    dev_file: str | None = None
    dev_queries: int = 0
    dev_means: Mapping[float, float] = dataclasses.field(default_factory=dict)

    @property
    def formula(self) -> str:
        """What the mixed score is, e.g. "0.7 first stage + 0.3 after"; empty where there is none."""
        return "" if self.weight is None else f"{1 - self.weight:.4g} first stage + {self.weight:.4g} after"

    def as_json(self) -> dict[str, Any]:
        """Return the content of `mixing` in `report.json`; what there is not has no key."""
        found: dict[str, Any] = {"first_stage": self.first_stage}
        if self.weight is not None:
            found["weight"] = self.weight
        if self.dev_file is not None:
            found |= {"dev_file": self.dev_file, "dev_queries": self.dev_queries}
            found["dev_MAP"] = {f"{weight:g}": value for weight, value in self.dev_means.items()}
        return found


def mixed(first: npt.ArrayLike, reranker: npt.ArrayLike, weight: float) -> npt.NDArray[np.float64]:
    """Return (1 - weight) * first stage + weight * reranker, each standardised over the candidates of one query.

    Args:
        first, reranker: their scores; shape (candidates,) each.
        weight: from 0, the first stage alone, to 1, the reranker alone.
    """
    return merge([first, reranker], [1 - weight, weight], "standardised_mean")


def mixed_rows(first: Scores, reranker: Scores, weight: float) -> list[list[float]]:
    """Return the mixed scores of each query's candidates."""
    return [mixed(one, other, weight).tolist() for one, other in zip(first, reranker, strict=True)]


def weight_curve(samples: Sequence[RankingSample], first: Scores, reranker: Scores) -> dict[float, Values]:
    """Return weight -> average precision of each query by the mix; shape (queries,), NaN where it has none."""
    from tqdm import tqdm

    weights = tqdm(WEIGHTS, desc="weight of the reranker", disable=None)
    return {weight: measure(samples, mixed_rows(first, reranker, weight))["MAP"] for weight in weights}


def choose_weight(curve: Mapping[float, Values]) -> float:
    """Return the weight with the highest mean, of equal ones the smallest, which asks least of the reranker.

    It is the best, not the smallest within a standard error of the best: queries that chose no weight say with an
    interval whether the mix is worth its reranker, and a weight that leans towards the first stage would answer that
    beforehand. Weights are compared on the same queries, so their means have most of their noise in common.

    Args:
        curve: weight -> a metric's values; shape (queries,), NaN values left out.
    """
    return max(curve, key=lambda weight: (float(np.nanmean(curve[weight])), -weight))


def with_first_stage(evaluation: FileEvaluation, weight: float | None) -> FileEvaluation:
    """Return an evaluation with the row of the first stage, which is BM25 where no other was scored, and of the mix.

    Args:
        weight: of "after" in the mix; `None` for no mix.
    """
    scores, values = dict(evaluation.scores), dict(evaluation.values)
    scores.setdefault("first stage", scores["BM25"])
    values.setdefault("first stage", values["BM25"])
    if weight is not None:
        scores["mixed"] = mixed_rows(scores["first stage"], scores["after"], weight)
        values["mixed"] = measure(evaluation.samples, scores["mixed"])
    order: list[Ranker] = [ranker for ranker in RANKERS if ranker in values]
    in_order: dict[Ranker, PerQuery] = {ranker: values[ranker] for ranker in order}
    return dataclasses.replace(evaluation, values=in_order, scores={ranker: scores[ranker] for ranker in order})
