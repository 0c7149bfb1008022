"""What was measured, as tables for the screen: the best of each family, and what the choice is worth."""

from __future__ import annotations

from collections.abc import Sequence

from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import RetrievalTrial
from milvus_optimization.retrieval.choice import (
    Target,
    against,
    best_default,
    best_of_families,
    choose,
    defaults,
    verdict,
)
from rag_core.base.tables import format_difference, format_rows
from rag_core.metrics.differences import Difference, difference

_TARGETS: tuple[Target, ...] = ("lite", "server")


def format_trials(trials: Sequence[RetrievalTrial], halves: Halves, seed: int) -> str:
    """Return the tables of each model."""
    models = dict.fromkeys(trial.model for trial in trials)
    return "\n\n".join(
        _format_model(name, [trial for trial in trials if trial.model == name], halves, seed) for name in models
    )


def describe(trial: RetrievalTrial) -> str:
    """Return a way to rank in words."""
    words = f", BM25 k1 {trial.bm25['k1']:g} b {trial.bm25['b']:g}" if trial.bm25 else ""
    if trial.fusion == "rrf":
        name = f"RRF {trial.parameter:g}, depth {trial.depth}"
    elif trial.fusion == "weighted":
        scores = "no normalisation" if trial.normalisation == "none" else trial.normalisation
        name = f"{trial.parameter:g} dense, {scores}, depth {trial.depth}"
    else:
        name, words = ("dense only", "") if trial.fusion == "dense" else ("BM25 only", words)
    return f"{name}{words}" + (f", {trial.reranker_depth} reranked" if trial.reranker else "")


def _format_model(model: str, trials: Sequence[RetrievalTrial], halves: Halves, seed: int) -> str:
    usual = {name: trial for target in _TARGETS for name, trial in defaults(trials, target, model).items()}
    reference = usual[best_default(usual)]
    named = {trial.trial_id: name for name, trial in usual.items()}
    shown = {trial.trial_id: trial for trial in [*usual.values(), *best_of_families(trials)]}
    head = [
        "way to rank",
        f"nDCG@10, {len(halves.tune)} tune queries",
        f"{len(halves.report)} report queries",
        f"minus {named[reference.trial_id]}",
        "default",
    ]
    rows = [
        [
            describe(trial),
            f"{trial.ndcg_tune:.4f}",
            f"{trial.ndcg:.4f}",
            _minus(reference, trial, halves, seed),
            named.get(trial.trial_id, ""),
        ]
        for trial in sorted(shown.values(), key=lambda trial: trial.ndcg_tune)
    ]
    return f"{model}\n\n{format_rows([head, *rows])}\n\n{format_rows(_choices(model, trials, halves, seed))}"


def _choices(model: str, trials: Sequence[RetrievalTrial], halves: Halves, seed: int) -> list[list[str]]:
    """Return a head and a row for each target: what is chosen, and how it compares with the defaults."""
    rows = [["target", "choice by the tune half", "minus dense only", "minus RRF 60", "minus equal weights", "verdict"]]
    seen: dict[tuple[str, ...], list[str]] = {}
    for target in _TARGETS:
        usual, choice = defaults(trials, target, model), choose(trials, target)
        key = (choice.trial_id, *(trial.trial_id for trial in usual.values()))
        if key in seen:  # the same for both
            seen[key][0] += f", {target}"
            continue
        found = against(choice, usual, halves.report, seed)
        differences = [_format(found[name]) for name in usual]
        seen[key] = [target, describe(choice), *differences, verdict(choice, usual, halves, seed)]
    return [*rows, *seen.values()]


def _minus(old: RetrievalTrial, new: RetrievalTrial, halves: Halves, seed: int) -> str:
    return "" if old is new else _format(difference(old.by_query, new.by_query, halves.report, seed))


def _format(found: Difference) -> str:
    return format_difference(found.difference, found.low, found.high)
