"""Which index is chosen: the cheapest that keeps the constraints by what it does on the tune half of the queries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from milvus_optimization.indexes.pareto import milliseconds
from milvus_optimization.records import BackendName, IndexTrial
from milvus_optimization.report.wording import index_name
from milvus_optimization.retrieval.choice import Target
from rag_core.base.errors import DataError

# A query is embedded before it is searched for, and the smallest model takes more than a millisecond for that. Where
# exact search is faster still, nobody sees what an index saves. FLAT took 0.4 ms on 5,183 vectors of 384 dimensions,
# 1.7 ms on 24,000 (faiss, one thread).
FAST_MS = 1.0

# Times of different backends cannot be compared, so one of them decides: that which is nearest to what will serve.
# milvus-lite tells no times, and faiss finds what it finds.
_DECIDES: dict[Target, tuple[BackendName, ...]] = {
    "lite": ("faiss", "lite"),
    "server": ("server", "faiss", "lite"),
}


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What an index must keep; `None` where nothing is asked.

    Attributes:
        max_loss: nDCG@10 that it may lose against exact search.
        max_ms: median time of a query.
        max_mb: megabytes (10^6 bytes) of the index.
        min_recall: the least recall@k.
    """

    max_loss: float
    max_ms: float | None = None
    max_mb: float | None = None
    min_recall: float | None = None

    def given(self) -> dict[str, float]:
        """Return those that are asked for, by the names of their flags."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class IndexChoice:
    """The index that is taken, and what stood beside it.

    Attributes:
        trial: the choice.
        flat: exact search of the same backend and model.
        cheapest: that which would have been taken if exact search were not fast enough; the choice itself where it
            was not.
        kept: how many trials keep the constraints, of how many were measured.
    """

    trial: IndexTrial
    flat: IndexTrial
    cheapest: IndexTrial
    kept: int
    measured: int

    @property
    def is_flat_enough(self) -> bool:
        """Whether exact search is taken because it is fast, and not as the cheapest that keeps the constraints."""
        return self.trial is self.flat and is_fast(self.flat)


def is_fast(flat: IndexTrial) -> bool:
    """Tell whether exact search answers within `FAST_MS`."""
    time = milliseconds(flat)
    return time is not None and time <= FAST_MS


def megabytes(trial: IndexTrial) -> float | None:
    """Return the size of an index in 10^6 bytes."""
    return None if trial.index_bytes is None else trial.index_bytes / 1e6


def measured_trials(trials: Sequence[IndexTrial], model: str) -> list[IndexTrial]:
    """Return those of a model that were measured on the whole corpus."""
    return [trial for trial in trials if trial.model == model and trial.status == "ok" and trial.screened_rows is None]


def deciding_trials(trials: Sequence[IndexTrial], model: str, target: Target) -> list[IndexTrial]:
    """Return the measured trials of the one backend whose figures decide.

    Raises:
        DataError: there is none, or exact search is not among them.
    """
    measured = measured_trials(trials, model)
    for backend in _DECIDES[target]:
        own = [trial for trial in measured if trial.backend == backend]
        if any(trial.index == "FLAT" for trial in own):
            return own
    what = "FLAT, which every index is compared with" if measured else "whole trial with status ok"
    raise DataError(f"the index trials of {model} have no {what}", "Run sweep_indexes for this model")


def tune_loss(trial: IndexTrial, flat: IndexTrial) -> float:
    """Return how much less an index reaches on the tune half than exact search; above 0 is worse."""
    assert flat.ndcg_tune is not None and trial.ndcg_tune is not None  # of every trial with status ok
    return flat.ndcg_tune - trial.ndcg_tune


def choose_index(
    trials: Sequence[IndexTrial], model: str, constraints: Constraints, target: Target, available: Sequence[str]
) -> IndexChoice:
    """Choose among the measured trials of a model, by tune figures alone.

    The cheapest has the least median time; where the backend tells none, the smallest index. FLAT is taken where it
    keeps the constraints and answers within `FAST_MS`.

    Args:
        available: names of the indexes that the target has.

    Raises:
        DataError: no trial keeps the constraints, or none tells what is asked about.
    """
    own = deciding_trials(trials, model, target)
    flat = next(trial for trial in own if trial.index == "FLAT")
    there = [trial for trial in own if trial.index in available]
    if not there:
        raise DataError("none of the indexes that were measured is there", "Sweep others, or pass --target")
    kept = [trial for trial in there if not _faults(trial, flat, constraints)]
    if not kept:
        raise _none_keeps(there, flat, constraints)
    cheapest = min(kept, key=_cost)
    return IndexChoice(flat if flat in kept and is_fast(flat) else cheapest, flat, cheapest, len(kept), len(there))


def _cost(trial: IndexTrial) -> tuple[float, float, bool]:
    """Order by time, then size, infinite where they are not known; of equal ones exact search is the simplest."""
    time, size = milliseconds(trial), megabytes(trial)
    return (math.inf if time is None else time, math.inf if size is None else size, trial.index != "FLAT")


@dataclasses.dataclass(frozen=True)
class _Fault:
    """A constraint that is not kept.

    Attributes:
        excess: how far off, relative to the limit; infinite where the figure is not known.
    """

    words: str
    excess: float


def _faults(trial: IndexTrial, flat: IndexTrial, constraints: Constraints) -> list[_Fault]:
    found: list[_Fault] = []
    limits = (
        ("a loss of", "max_loss", tune_loss(trial, flat), constraints.max_loss, 1),
        ("a median time of", "max_ms", milliseconds(trial), constraints.max_ms, 1),
        ("a size in MB of", "max_mb", megabytes(trial), constraints.max_mb, 1),
        ("a recall of", "min_recall", trial.recall, constraints.min_recall, -1),
    )
    for words, name, value, limit, sign in limits:
        if limit is None:
            continue
        if value is None:
            found.append(_Fault(f"no figure for --{name}", math.inf))
        elif sign * value > sign * limit:
            found.append(
                _Fault(f"{words} {value:.4g} (--{name} {limit:g})", abs(value - limit) / max(abs(limit), 1e-4))
            )
    return found


def _none_keeps(trials: Sequence[IndexTrial], flat: IndexTrial, constraints: Constraints) -> DataError:
    """Say which trial comes nearest, and what is wrong with it."""
    faults = {trial.trial_id: _faults(trial, flat, constraints) for trial in trials}
    nearest = min(trials, key=lambda trial: sum(fault.excess for fault in faults[trial.trial_id]))
    told = " and ".join(fault.words for fault in faults[nearest.trial_id])
    return DataError(
        f"none of {len(trials)} index trials keeps the constraints; the nearest is {index_name(nearest)}, with {told}",
        "Relax that, or sweep more settings",
    )
