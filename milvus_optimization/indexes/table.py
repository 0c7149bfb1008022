"""Trials as a table for the screen: one row for each that is measured, and a count of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from milvus_optimization.indexes.pareto import milliseconds
from milvus_optimization.records import IndexTrial, Setting
from rag_core.base.tables import format_difference, format_rows

_HEAD = (
    "index", "build", "search", "recall", "first kept", "nDCG@10", "loss [95 %]", "{clock} ms", "MB", "build s",
    "status",
)  # fmt: skip


def format_trials(trials: Sequence[IndexTrial]) -> str:
    """Return the table; trials that are not measured stand below it, by build and reason."""
    measured = [trial for trial in trials if trial.status == "ok"]
    clock = "wall" if any(trial.wall_ms_p50 is not None for trial in measured) else "CPU"
    rows = [[name.format(clock=clock) for name in _HEAD], *(_row(trial) for trial in measured)]
    others = Counter(
        f"{trial.status}: {trial.index} {named(trial.build)}: {trial.reason}".replace("  ", " ")
        for trial in trials
        if trial.status != "ok"
    )
    lines = [f"{count} {what}" for what, count in others.items()]
    return "\n".join([format_rows(rows), *([""] if lines else []), *lines])


def _row(trial: IndexTrial) -> list[str]:
    loss = trial.loss
    return [
        trial.index,
        named(trial.build),
        named(trial.search),
        _number(trial.recall, 3),
        _number(trial.top1_kept, 3),
        _number(trial.ndcg, 4),
        "" if loss is None else format_difference(loss.difference, loss.low, loss.high),
        _number(milliseconds(trial), 3),
        "" if trial.index_bytes is None else f"{trial.index_bytes / 1e6:.1f}",
        _number(trial.build_cpu_s, 1),
        "noisy" if trial.noisy else "ok",
    ]


def named(setting: Setting) -> str:
    """Return `M 16, efConstruction 100`."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
