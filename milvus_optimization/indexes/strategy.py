"""How the settings of a table are gone through: screened or not, in the grid's order or by Optuna."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.loading import open_backend
from milvus_optimization.backends.protocol import Backend
from milvus_optimization.backends.space import BuildSetting
from milvus_optimization.indexes.builds import Builds
from milvus_optimization.indexes.honesty import honest
from milvus_optimization.indexes.optuna_search import search_table
from milvus_optimization.indexes.screening import choose_builds, left_out
from milvus_optimization.indexes.store import TrialStore
from milvus_optimization.indexes.sweep import Subject, Sweep
from milvus_optimization.indexes.workload import Workload
from milvus_optimization.records import IndexTrial
from rag_core.base.errors import UsageError

Floats = npt.NDArray[np.float32]
SearchName = Literal["grid", "optuna"]

logger = logging.getLogger(__name__)

_DATABASE = "database"
_SMALLEST_PART = 1000  # documents
_SECONDS_A_LINE = 30
_STANDING = 8  # indexes that Optuna may go back to without building them again


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Which settings are tried, and where what is measured is kept.

    Attributes:
        evaluations: of Optuna; None for half of the settings.
        screen_fraction: share of the documents on which builds are left out first; None for no screening.
        seconds: after which nothing more is begun; None for no end.
        uri: of a server.
        folder: where trials are kept until all are there.
    """

    search: SearchName
    evaluations: int | None
    screen_fraction: float | None
    seconds: float | None
    uri: str | None
    folder: Path


def run_strategy(
    strategy: Strategy, settings: Sequence[BuildSetting], documents: Floats, workload: Workload, subject: Subject
) -> list[IndexTrial]:
    """Measure; return a trial for each search setting of the table, in its order.

    Raises:
        EngineError, DataError: the backend cannot be used, or is gone; what is measured stays.
    """
    with _tidied(strategy.folder):
        return _run(strategy, settings, documents, workload, subject)


def _run(
    strategy: Strategy, settings: Sequence[BuildSetting], documents: Floats, workload: Workload, subject: Subject
) -> list[IndexTrial]:
    until = None if strategy.seconds is None else time.monotonic() + strategy.seconds
    opened = _opener(strategy, subject)
    screened: list[list[IndexTrial]] = []
    kept = list(range(len(settings)))
    if strategy.screen_fraction is not None:
        part = _part(documents, strategy.screen_fraction, workload.seed)
        subject_of_part = dataclasses.replace(subject, screened_rows=len(part))
        with _progress(settings, "screen") as told, Builds(opened, part, most=1, seed=workload.seed) as builds:
            store = TrialStore(strategy.folder / "screened")
            bare = workload.without_judgements()
            screened = Sweep(builds, part, bare, subject_of_part, store, until=until, told=told).run(settings)
        kept = choose_builds(settings, screened)
    chosen = [settings[place] for place in kept]
    most = _STANDING if strategy.search == "optuna" else 1
    with _progress(chosen, "trials") as told, Builds(opened, documents, most=most, seed=workload.seed) as builds:
        store = TrialStore(strategy.folder / "trials")
        sweep = Sweep(builds, documents, workload, subject, store, until=until, told=told)
        grid = strategy.search == "grid"
        made = sweep.run(chosen) if grid else _by_optuna(strategy, chosen, sweep, workload.seed, told)
        of_place = dict(zip(kept, made, strict=True))
        return [
            trial
            for place, setting in enumerate(settings)
            for trial in of_place.get(place) or left_out(setting, screened[place], sweep.skipped)
        ]


@contextlib.contextmanager
def _progress(settings: Sequence[BuildSetting], what: str) -> Iterator[Callable[[], None]]:
    """Show a bar, or a line every half minute where there is no terminal; yield what is called for each trial."""
    from tqdm import tqdm

    total = sum(len(setting.searches) for setting in settings)
    done, latest = 0, time.monotonic()
    with tqdm(total=total, unit="trial", desc=what, disable=None) as bar:

        def told() -> None:
            nonlocal done, latest
            done += 1
            bar.update()
            if bar.disable and (done == total or time.monotonic() - latest > _SECONDS_A_LINE):
                logger.info("%s: %d of %d", what, done, total)
                latest = time.monotonic()

        yield told


def _opener(strategy: Strategy, subject: Subject) -> Callable[[], Backend]:
    numbers = itertools.count()

    def opened() -> Backend:
        folder = strategy.folder / f"{_DATABASE}-{next(numbers)}"
        if subject.backend == "lite":
            folder.mkdir()
        return open_backend(subject.backend, uri=strategy.uri, folder=folder)

    return opened


@contextlib.contextmanager
def _tidied(folder: Path) -> Iterator[None]:
    """Remove the databases of milvus-lite before, where a run was killed, and after."""
    try:
        _remove_databases(folder)
        yield
    finally:
        _remove_databases(folder)


def _remove_databases(folder: Path) -> None:
    for database in folder.glob(f"{_DATABASE}-*"):
        shutil.rmtree(database)


def _part(documents: Floats, fraction: float, seed: int) -> Floats:
    """Return a part of the documents, drawn at random.

    Raises:
        UsageError: it is too small to say anything of the whole.
    """
    size = round(fraction * len(documents))
    if size < _SMALLEST_PART:
        what = f"--screen_fraction {fraction:g} of {len(documents)} documents is {size}, fewer than {_SMALLEST_PART}"
        raise UsageError(what, "Leave it out: so few are measured in seconds")
    rows = np.sort(np.random.default_rng(seed).choice(len(documents), size, replace=False))
    return np.ascontiguousarray(documents[rows])


def _by_optuna(
    strategy: Strategy, settings: Sequence[BuildSetting], sweep: Sweep, seed: int, told: Callable[[], object]
) -> list[list[IndexTrial]]:
    total = sum(len(setting.searches) for setting in settings)
    evaluations = strategy.evaluations or math.ceil(total / 2)
    found = search_table(settings, sweep.trial, evaluations=evaluations, seed=seed, told=told)
    return [
        honest(
            [
                found.get((build, search)) or sweep.skipped(setting, parameters, "Optuna did not propose it")
                for search, parameters in enumerate(setting.searches)
            ]
        )
        for build, setting in enumerate(settings)
    ]
