"""What the report says of ways to rank: the defaults, fusion, reranking, other models, another judgement, queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from milvus_optimization.records import IndexTrial, RetrievalTrial
from milvus_optimization.report.evidence import LABELS, Evidence
from milvus_optimization.report.index_choice import measured_trials
from milvus_optimization.report.recommendation import Outcome
from milvus_optimization.report.section import QueryChange, Section
from milvus_optimization.report.waterfall import dense_trials
from milvus_optimization.report.wording import bm25_name, difference_text, retrieval_name
from milvus_optimization.retrieval import choice
from rag_core.metrics.differences import ByQuery, difference

_MOST_QUERIES = 8  # of each way, those with the largest changes


def against_defaults(outcome: Outcome) -> Section:
    """Compare the choice with what somebody would set without tuning."""
    rows = [["", "nDCG@10", "the choice minus this [95 % interval]", "queries better", "worse"]]
    rows.append([f"the choice: {retrieval_name(outcome.retrieval)}", f"{outcome.retrieval.ndcg:.4f}", "", "", ""])
    for name, default in outcome.defaults.items():
        found = outcome.recommendation.against[name]
        rows.append([name, f"{default.ndcg:.4f}", difference_text(found), str(found.better), str(found.worse)])
    note = (
        f"{outcome.recommendation.tune_queries} queries chose, {outcome.recommendation.report_queries} others report: "
        "all figures here are of the latter."
    )
    return Section("Against what needs no tuning", [note], rows, 1)


def ways_to_rank(evidence: Evidence, outcome: Outcome) -> Section:
    """Show the best of each family, and what it costs."""
    own = [trial for trial in evidence.retrieval if trial.model == outcome.recommendation.model]
    shown = choice.best_of_families(own)
    if outcome.retrieval not in shown:  # of equal ones, the simplest was chosen
        family = choice.family_of(outcome.retrieval)
        shown = [outcome.retrieval if choice.family_of(trial) == family else trial for trial in shown]
    rows = [["the best of each family", "scores", "BM25", "nDCG@10, tune", "report", "ms of BM25", "of reranking"]]
    for trial in shown:
        rows.append(
            [
                retrieval_name(trial),
                trial.normalisation,
                bm25_name(trial),
                f"{trial.ndcg_tune:.4f}",
                f"{trial.ndcg:.4f}",
                f"{trial.bm25_ms:.3g}" if trial.bm25 else "",
                f"{trial.rerank_ms:.3g}" if trial.reranker else "",
            ]
        )
    note = (
        f"{len(own)} ways to rank were measured over exact search. A figure of the tune half is inflated, since it is "
        "the best of many. Milvus makes weighted sums of arctan scores and of scores as they are (none); minmax sums "
        "an application has to make itself. A weight of one kind is wrong with another."
    )
    return Section("Ways to rank", [note], rows, shown.index(outcome.retrieval) + 1)


def models(evidence: Evidence, outcome: Outcome, seed: int) -> Section | None:
    """Compare models with exact search, in the index, fused and reranked: what distillation is worth after all that."""
    dense = dense_trials(evidence.retrieval)
    if len(dense) < 2:
        return None
    chosen = outcome.recommendation.model
    stages = {model: _stages(evidence, outcome, model) for model in dense}
    head = ["exact search", "in the chosen index", "fused", "reranked"]
    rows = [["nDCG@10, report half", *head]]
    for model, by_stage in stages.items():
        cells = [f"{evidence.halves.means(found)[0]:.4f}" if found else "" for found in by_stage]
        rows.append([model, *cells])
    for model in dense:
        if model != chosen:
            pairs = zip(stages[model], stages[chosen], strict=True)
            cells = [_difference(old, new, evidence.halves.report, seed) for old, new in pairs]
            rows.append([f"{chosen} minus {model}", *cells])
    note = (
        "Fused and reranked: the best of each model by the tune half. Where one model is another after distillation, "
        "the difference is what distillation is worth at each stage."
    )
    return Section("Models side by side", [note], rows, list(dense).index(chosen) + 1)


def _stages(evidence: Evidence, outcome: Outcome, model: str) -> list[ByQuery | None]:
    own = [trial for trial in evidence.retrieval if trial.model == model]
    target = outcome.recommendation.target
    return [
        dense_trials(own)[model].by_query,
        next((trial.by_query for trial in measured_trials(evidence.index, model) if _same(trial, outcome)), None),
        _best([t for t in own if t.reranker is None and t.fusion in ("rrf", "weighted")], target),
        _best([t for t in own if t.reranker is not None], target),
    ]


def _same(trial: IndexTrial, outcome: Outcome) -> bool:
    wanted = outcome.index.trial
    mine = (trial.backend, trial.index, trial.build, trial.search)
    return mine == (wanted.backend, wanted.index, wanted.build, wanted.search)


def _best(trials: Sequence[RetrievalTrial], target: choice.Target) -> ByQuery | None:
    possible = [trial for trial in trials if choice.is_for(trial, target)]
    return choice.choose(possible, target).by_query if possible else None


def _difference(old: ByQuery | None, new: ByQuery | None, queries: Sequence[str], seed: int) -> str:
    return difference_text(difference(old, new, queries, seed)) if old and new else ""


def second_judgement(evidence: Evidence, outcome: Outcome, seed: int) -> Section | None:
    """Say how the choice by one judgement fares under another, in which the same ways to rank are found again."""
    chosen = outcome.retrieval
    labelled = {trial.trial_id: trial for trial in evidence.labelled if trial.model == chosen.model}
    common = [trial for trial in evidence.retrieval if trial.trial_id in labelled]
    if not common:
        return None
    from scipy.stats import spearmanr

    by_labels = choice.choose(list(labelled.values()), outcome.recommendation.target)
    halves = evidence.labelled_halves
    rows = [["judged by labels", "nDCG@10", "minus the choice by the teacher [95 % interval]"]]
    taken = labelled.get(chosen.trial_id)
    if taken is None:
        return Section("By another judgement", ["The choice was not measured under the other judgement."])
    rows.append([f"chosen by {evidence.judged_by}: {retrieval_name(taken)}", f"{taken.ndcg:.4f}", ""])
    others = {f"chosen by labels: {retrieval_name(by_labels)}": by_labels}
    others |= choice.defaults(list(labelled.values()), outcome.recommendation.target, chosen.model)
    for name, trial in others.items():
        cell = _difference(taken.by_query, trial.by_query, halves.report, seed)
        rows.append([name, f"{trial.ndcg:.4f}", cell])
    told = "the same way to rank" if taken.trial_id == by_labels.trial_id else "another"
    note = f"By labels one would choose {told}."
    if len(common) > 2:
        pairs = [(trial.ndcg_tune, labelled[trial.trial_id].ndcg_tune) for trial in common]
        note += f" Over {len(common)} ways to rank, the two judgements agree with a Spearman correlation of "
        note += f"{float(spearmanr(*zip(*pairs, strict=True)).statistic):.3f}."
    return Section("By another judgement", [note], rows, 1)


def changed_queries(evidence: Evidence, outcome: Outcome) -> Section | None:
    """Show the queries that the choice changed most, both ways, as text."""
    name = "dense only" if outcome.retrieval is not outcome.defaults["dense only"] else "RRF 60"
    old, new = outcome.defaults[name].by_query, outcome.retrieval.by_query

    def changes(key: Callable[[QueryChange], float]) -> list[QueryChange]:
        found = [QueryChange(evidence.corpus.queries.get(i, i), old[i], new[i]) for i in evidence.halves.report]
        return sorted((one for one in found if key(one) > 0), key=key, reverse=True)[:_MOST_QUERIES]

    lists = {
        f"that gained most against {name}": changes(lambda one: one.new - one.old),
        f"that lost most against {name}": changes(lambda one: one.old - one.new),
    }
    shown = {title: found for title, found in lists.items() if found}
    return Section("Query by query", ["Changes of nDCG@10 on the report half."], queries=shown) if shown else None


def judged_by_in_words(evidence: Evidence) -> str:
    """Say whose judgement all figures are by."""
    return "labels" if evidence.judged_by == LABELS else f"the scores of {evidence.judged_by}, in the place of labels"
