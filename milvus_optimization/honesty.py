"""Is what was measured an index at all? Some backends take what they do not understand, and search without an index.

A build's trials are looked at together. What is found ignores them all: no figure of theirs is of the index whose name
they carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from milvus_optimization.records import IndexTrial, Setting

MOST_EXACT_ROWS = 1000  # up to which an index may well find everything

# What recall may fall by from one search setting to the next wider one. A graph is not searched in nested sets, so a
# few queries lose a neighbour that they had.
_SLACK = 0.005
_WIDER = 4  # times: from there on, a setting that is read has some effect

_FIGURES = (
    "recall", "top1_kept", "ndcg", "ndcg_tune", "mrr", "recall_100", "loss", "cpu_ms_p50", "cpu_ms_p95", "wall_ms_p50",
    "wall_ms_p95", "wall_ms_p99", "qps", "filtered", "by_query",
)  # fmt: skip


def honest(trials: Sequence[IndexTrial]) -> list[IndexTrial]:
    """Return the trials of one build, all that are ok as `ignored` where they cannot be of such an index."""
    reason = fault_of([trial for trial in trials if trial.status == "ok"])
    return [ignored(trial, reason) if reason and trial.status == "ok" else trial for trial in trials]


def ignored(trial: IndexTrial, reason: str) -> IndexTrial:
    """Return a trial without its figures."""
    return dataclasses.replace(trial, status="ignored", reason=reason, noisy=False, **dict.fromkeys(_FIGURES))


def fault_of(trials: Sequence[IndexTrial]) -> str:
    """Return why measured trials of one build are not of an index, empty where nothing speaks against it."""
    if not trials or trials[0].index == "FLAT":
        return ""
    recalls = [(trial.search, trial.recall) for trial in trials if trial.recall is not None]
    if (trials[0].screened_rows or trials[0].rows) > MOST_EXACT_ROWS and min(recall for _, recall in recalls) == 1:
        return f"recall is 1.000 at {_named(recalls[0][0])} already: this is a search through all vectors"
    for key in ("ef", "nprobe", "search_list"):
        for (narrow, low), (wide, high) in _neighbours(recalls, key):
            if high < low - _SLACK:
                return f"recall falls from {low:.3f} at {_named(narrow)} to {high:.3f} at {_named(wide)}"
        for (narrow, low), (wide, high) in _ends(recalls, key):
            if low == high and float(wide[key]) >= _WIDER * float(narrow[key]):
                return f"recall is {low:.3f} at {_named(narrow)} and at {_named(wide)} alike: {key} is not read"
    return ""


Recalls = list[tuple[Setting, float]]


def _chains(recalls: Recalls, key: str) -> list[Recalls]:
    """Return the settings that differ in one parameter alone, by its value."""
    chains: dict[tuple[tuple[str, object], ...], Recalls] = {}
    for search, recall in recalls:
        if key in search:
            others = tuple(sorted((name, value) for name, value in search.items() if name != key))
            chains.setdefault(others, []).append((search, recall))
    return [sorted(chain, key=lambda one: float(one[0][key])) for chain in chains.values()]


def _neighbours(recalls: Recalls, key: str) -> list[tuple[tuple[Setting, float], tuple[Setting, float]]]:
    return [pair for chain in _chains(recalls, key) for pair in zip(chain, chain[1:], strict=False)]


def _ends(recalls: Recalls, key: str) -> list[tuple[tuple[Setting, float], tuple[Setting, float]]]:
    return [(chain[0], chain[-1]) for chain in _chains(recalls, key)]


def _named(search: Setting) -> str:
    return ", ".join(f"{name} {value}" for name, value in search.items())
