"""The recommendation: an index, a way to rank, and in one sentence what they are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from milvus_optimization.indexes.pareto import milliseconds
from milvus_optimization.records import IndexTrial, Recommendation, RetrievalTrial, Verdict
from milvus_optimization.report.evidence import LABELS, Evidence
from milvus_optimization.report.index_choice import Constraints, IndexChoice, choose_index, measured_trials
from milvus_optimization.report.wording import difference_text, index_name, retrieval_name
from milvus_optimization.retrieval import choice
from milvus_optimization.retrieval.choice import Target
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.metrics.differences import Difference

# The form of vectors that an index holds, whose own loss `compare_vectors` measures.
_HELD = dict.fromkeys(("FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX"), "float32") | {"IVF_SQ8": "sq8"}
_HELD_BY_CODE = {"SQ8": "sq8", "SQ4U": "sq4", "FP16": "float16"}  # of HNSW_SQ


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A recommendation and the trials behind it, with their values by query.

    Attributes:
        defaults: what it is held against, of the same model.
    """

    recommendation: Recommendation
    index: IndexChoice
    retrieval: RetrievalTrial
    first_stage: RetrievalTrial
    defaults: dict[str, RetrievalTrial]


def recommend(
    evidence: Evidence,
    constraints: Constraints,
    *,
    target: Target,
    dense_only: bool,
    model: str | None,
    available: Sequence[str],
    tune_fraction: float,
    seed: int,
) -> Outcome:
    """Choose by the tune half, and measure the choice on the report half.

    Args:
        dense_only: leave out what takes BM25; the defaults are held against it all the same.
        model: that is asked for; `None` for the best of those with index trials.
        available: names of the indexes that the target has.

    Raises:
        DataError: the model was not measured, or no trial keeps the constraints.
    """
    of_models = [trial for trial in _retrieval_of(evidence, model) if not (dense_only and trial.bm25)]
    retrieval = choice.choose(of_models, target)
    first_stage = first_stage_of(retrieval, of_models)
    index = choose_index(evidence.index, retrieval.model, constraints, target, available)
    defaults = choice.defaults(evidence.retrieval, target, retrieval.model)
    halves = evidence.halves
    against = choice.against(retrieval, defaults, halves.report, seed)
    verdict = choice.verdict(retrieval, defaults, halves, seed)
    best_default = choice.best_default(defaults)
    recommendation = Recommendation(
        constraints=constraints.given(),
        target=target,
        model=retrieval.model,
        variant=held_variant(index.trial),
        index=dataclasses.replace(index.trial, by_query=None),
        retrieval=dataclasses.replace(retrieval, by_query={}),
        first_stage=dataclasses.replace(first_stage, by_query={}),
        tune_fraction=tune_fraction,
        tune_queries=len(halves.tune),
        report_queries=len(halves.report),
        against=against,
        verdict=verdict,
        sentence=_sentence(
            retrieval, index, defaults, against=against, best_default=best_default, verdict=verdict, evidence=evidence
        ),
        judged_by=evidence.judged_by,
    )
    return Outcome(recommendation, index, retrieval, first_stage, defaults)


def held_variant(trial: IndexTrial) -> str:
    """Return the form of vectors that an index holds; "" where `compare_vectors` has none like it, or it rescores."""
    if "refine_type" in trial.build:
        return ""
    if trial.index == "HNSW_SQ":
        return _HELD_BY_CODE.get(str(trial.build.get("sq_type", "SQ8")), "")
    return _HELD.get(trial.index, "")


def first_stage_of(retrieval: RetrievalTrial, trials: Sequence[RetrievalTrial]) -> RetrievalTrial:
    """Return the trial of the same ranking without its reranker; itself where it has none.

    Raises:
        DataError: it was not measured.
    """
    without = dataclasses.replace(retrieval, reranker=None, reranker_depth=0)
    for trial in trials:
        if _ranking(trial) == _ranking(without):
            return trial
    raise DataError(f"{retrieval_name(without)} was not measured without the reranker", "Run tune_retrieval again")


def _ranking(trial: RetrievalTrial) -> tuple[object, ...]:
    bm25 = tuple(sorted(trial.bm25.items()))
    first_stage = (trial.model, trial.fusion, trial.normalisation, trial.parameter, trial.depth, bm25)
    return (*first_stage, trial.reranker, trial.reranker_depth)


def _retrieval_of(evidence: Evidence, model: str | None) -> list[RetrievalTrial]:
    ranked = list(dict.fromkeys(trial.model for trial in evidence.retrieval))
    both = [name for name in ranked if measured_trials(evidence.index, name)]
    if (model is None and not both) or (model is not None and model not in both):
        asked = f"of {quoted(repr(model))} " if model else ""
        told = f"Pass --model with one of: {', '.join(map(quoted, both))}" if both else "Measure both for one model"
        raise DataError(f"no model {asked}has both retrieval trials and whole index trials with status ok", told)
    wanted = both if model is None else [model]
    return [trial for trial in evidence.retrieval if trial.model in wanted]


def _sentence(
    retrieval: RetrievalTrial,
    index: IndexChoice,
    defaults: Mapping[str, RetrievalTrial],
    *,
    against: Mapping[str, Difference],
    best_default: str,
    verdict: Verdict,
    evidence: Evidence,
) -> str:
    """Say what to use, what it is worth, and what it is not."""
    queries = len(evidence.halves.report)
    use = "Use " if retrieval.fusion == "bm25" else f"Use {index_name(index.trial)} and "
    reached = f"nDCG@10 {retrieval.ndcg:.4f} on {queries} queries that it was not chosen on"
    if retrieval is not defaults["dense only"]:
        reached += f", {difference_text(against['dense only'])} against dense only"
    searched = "" if retrieval.fusion == "bm25" else f"; {_index_cost(index)}"
    parts = [f"{use}{retrieval_name(retrieval)}: {reached}{searched}."]
    if index.trial is index.flat and retrieval.fusion != "bm25":
        parts.append(_why_flat(index))
    if retrieval is defaults[best_default] and verdict == "equal":
        parts.append(f"No other way to rank did better than the default {best_default} on the tune half.")
    else:
        parts.append(_verdict_sentence(against, best_default, verdict, len(evidence.halves.tune)))
    if evidence.judged_by != LABELS:
        parts.append(f"Judged by the scores of {quoted(evidence.judged_by)}, not by labels.")
    return " ".join(parts)


def _index_cost(index: IndexChoice) -> str:
    loss = index.trial.loss
    if index.trial.index == "FLAT" or loss is None:
        return "exact search loses nothing"
    return f"the index itself changes it by {difference_text(loss)}"


def _why_flat(index: IndexChoice) -> str:
    flat, other = index.flat, index.cheapest
    time, least = milliseconds(flat), milliseconds(other)
    told = "FLAT is enough" if index.is_flat_enough else "FLAT is the cheapest that keeps the constraints"
    if time is not None:
        told += f": exact search of {flat.rows:,} vectors takes {time:.2g} ms a query"
    if other is not flat and time is not None and least is not None:
        told += f", and {index_name(other)} would save {time - least:.2g} ms"
    return f"{told}."


def _verdict_sentence(against: Mapping[str, Difference], best_default: str, verdict: Verdict, tune: int) -> str:
    if verdict == "too few queries":
        return f"{tune} queries are too few to choose by: take a default until more are judged."
    found = difference_text(against[best_default])
    return {
        "better": f"It is better than the best default, {best_default}: {found}.",
        "worse": f"It is worse than the best default: take {best_default} ({found}).",
        "equal": f"Tuning gained nothing that is sure over the best default, {best_default}: {found}.",
    }[verdict]
