"""What is lost and won where: from the best model's exact search to the index, the fusion and the reranker.

Each step is measured by itself. Index and fusion were not measured together: `apply` does that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from milvus_optimization.records import IndexTrial, RetrievalTrial, VectorVariant
from milvus_optimization.report.evidence import Evidence
from milvus_optimization.report.recommendation import Outcome, held_variant
from rag_core.metrics.differences import ByQuery, Difference, difference


@dataclasses.dataclass(frozen=True)
class Step:
    """A level of nDCG@10 on the report half, or a change of it.

    Attributes:
        change: with its interval; `None` of a level.
    """

    name: str
    value: float
    is_level: bool = False
    change: Difference | None = None


_Change = Callable[[str, ByQuery, ByQuery], Step]


def steps(evidence: Evidence, outcome: Outcome, seed: int) -> list[Step]:
    """Return the levels and changes, in the order in which a query goes through them."""

    def change(name: str, old: ByQuery, new: ByQuery) -> Step:
        found = difference(old, new, evidence.halves.report, seed)
        return Step(name, found.difference, change=found)

    dense = outcome.defaults["dense only"]
    best = max(dense_trials(evidence.retrieval).values(), key=lambda trial: trial.ndcg_tune)
    found = [Step("exact search" if best is dense else "best model, exact", best.ndcg, is_level=True)]
    if best is not dense:
        found.append(change("another model", best.by_query, dense.by_query))
    found += _index_steps(evidence, outcome.index.trial, outcome.index.flat, change)
    if outcome.first_stage is not dense:
        found.append(change("fusion", dense.by_query, outcome.first_stage.by_query))
    if outcome.retrieval is not outcome.first_stage:
        found.append(change("reranker", outcome.first_stage.by_query, outcome.retrieval.by_query))
    total = sum(step.value for step in found)
    return [*found, Step("all of it", total, is_level=True)]


def dense_trials(trials: Sequence[RetrievalTrial]) -> dict[str, RetrievalTrial]:
    """Return model -> its exact dense search."""
    return {trial.model: trial for trial in trials if trial.fusion == "dense" and trial.reranker is None}


def _index_steps(evidence: Evidence, trial: IndexTrial, flat: IndexTrial, change: _Change) -> list[Step]:
    if trial.by_query is None or flat.by_query is None:
        return []
    if trial.index == "FLAT":
        return [Step("index: FLAT", 0.0)]
    held = _held(evidence.variants, trial)
    if held is None:
        return [change("representation and index", flat.by_query, trial.by_query)]
    exact = next(v for v in evidence.variants if v.model == trial.model and v.variant == "float32")
    steps = [] if held is exact else [change("representation", exact.by_query, held.by_query)]
    base = flat.by_query if held is exact else held.by_query
    return [*steps, change("index", base, trial.by_query)]


def _held(variants: Sequence[VectorVariant], trial: IndexTrial) -> VectorVariant | None:
    """Return the variant that an index holds; `None` where it was not measured."""
    own = [variant for variant in variants if variant.model == trial.model]
    if not any(variant.variant == "float32" for variant in own):
        return None
    name = held_variant(trial)
    return next((v for v in own if v.variant == name and v.rescore == 0), None)
