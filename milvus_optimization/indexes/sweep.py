"""The sweep: one build after another, cheap ones first, and through each the search settings from narrow to wide.

Builds are dear and few, searches nearly free, and quality rises with `ef` and `nprobe`. So a build is gone through
whole while it stands, and left where nothing more is to be gained: from recall .999 on, or after two settings in a row
whose nDCG is within .0005 of that of FLAT on the tune half. What is left out is listed as `skipped`, with the reason.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.protocol import Built, UnsupportedIndexError
from milvus_optimization.backends.readback import built_as_asked
from milvus_optimization.backends.space import BuildSetting, check_setting
from milvus_optimization.indexes.builds import Builds, build_name
from milvus_optimization.indexes.honesty import honest
from milvus_optimization.indexes.store import TrialStore, trial_id
from milvus_optimization.indexes.trial import DEEP, Exact, exact_of, figures, measure
from milvus_optimization.indexes.workload import Workload
from milvus_optimization.quality.halves import FEW_TO_TUNE
from milvus_optimization.records import BackendName, IndexTrial, Setting
from rag_core.base.errors import DataError, EngineError, PipelineError
from rag_core.base.outside_text import one_line

Floats = npt.NDArray[np.float32]

ENOUGH_RECALL = 0.999
NO_LOSS, TIMES = 0.0005, 2  # of nDCG@10 on the tune half, and how often in a row

_FAILS = (UnsupportedIndexError, EngineError, DataError)
_FAILURES = 3  # in a row, after which the backend is taken for gone
_ROUNDS = 2  # what has failed is tried once more at the end

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What the trials of a sweep have in common.

    Attributes:
        vectors: SHA-256 of all that is searched for and in.
        screened_rows: how many documents, where they are a part of the whole.
    """

    backend: BackendName
    model: str
    vectors: Sequence[str]
    rows: int
    dimensions: int
    k: int
    queries: int
    screened_rows: int | None = None

    def trial(self, setting: BuildSetting, search: Setting) -> IndexTrial:
        """Return a trial that is not measured."""
        defining = dataclasses.asdict(self) | {"index": setting.index, "build": setting.build, "search": search}
        name = trial_id(**defining)
        own = {key: value for key, value in defining.items() if key != "vectors"}
        return IndexTrial(trial_id=name, backend_version="", status="skipped", **own)


class Sweep:
    """Trials over one set of vectors, each measured once, those of an earlier run included."""

    def __init__(
        self,
        builds: Builds,
        documents: Floats,
        workload: Workload,
        subject: Subject,
        store: TrialStore,
        *,
        until: float | None = None,
        told: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            until: of `time.monotonic`, after which nothing more is begun; None for no end.
            told: called for each setting that is done with, measured or not.
        """
        self._builds = builds
        self._documents = documents
        self._workload = workload
        self._subject = subject
        self._store = store
        self._until = until
        self._told = told
        self._exact: Exact | None = None
        self._goal: float | None = None
        self._failures = 0
        self._version = ""
        self._unusable: dict[str, dict[str, Any]] = {}  # builds of this round -> why there is nothing to search in

    def run(self, settings: Sequence[BuildSetting]) -> list[list[IndexTrial]]:
        """Go through the settings, FLAT first; return the trials of each.

        Raises:
            EngineError: FLAT cannot be measured, or the backend is gone.
        """
        found: dict[int, list[IndexTrial]] = {}
        for attempt in range(_ROUNDS):
            for number, setting in enumerate(settings):
                if attempt == 0 or any(trial.status == "failed" for trial in found[number]):
                    found[number] = self._sweep(setting)
            self._unusable.clear()
        return [honest(trials) for trials in found.values()]

    def _sweep(self, setting: BuildSetting) -> list[IndexTrial]:
        trials: list[IndexTrial] = []
        for search in setting.searches:
            reason = enough(trials, self._goal)
            trials.append(self.skipped(setting, search, reason) if reason else self.trial(setting, search))
            self._told()
        return trials

    def skipped(self, setting: BuildSetting, search: Setting, reason: str) -> IndexTrial:
        """Return a trial that is not measured, for a reason."""
        trial = self._subject.trial(setting, search)
        return dataclasses.replace(trial, backend_version=self._version, reason=reason)

    def trial(self, setting: BuildSetting, search: Setting) -> IndexTrial:
        """Return a trial, measured now or by an earlier run; `skipped` where there is no time left.

        Raises:
            EngineError: FLAT cannot be measured, or this is the third failure in a row.
        """
        asked = self._subject.trial(setting, search)
        stored = self._store.get(asked.trial_id)
        if setting.index == "FLAT":
            exact = self._store.read_reference(lambda arrays: Exact.from_arrays(arrays, self._workload))
            if stored is None or exact is None:
                return self._measured_exact(setting, asked)
            self._exact = exact
            self._aim_at(stored)
        if stored and stored.status != "failed":
            self._version = stored.backend_version
            return stored
        if self._until is not None and time.monotonic() > self._until:
            return self.skipped(setting, search, "--budget_seconds are over")
        trial = self._tried(setting, asked)
        self._store.put(trial)
        if self._failures >= _FAILURES:
            raise EngineError(
                f"{_FAILURES} trials in a row have failed, the last one ({trial.index}) with: {trial.reason}",
                "Run the same command again to go on, where need be with --indexes without those that fail",
            )
        return trial

    def _measured_exact(self, setting: BuildSetting, asked: IndexTrial) -> IndexTrial:
        backend, built = self._builds.get(setting)
        self._version = backend.version
        found = measure(
            backend, self._documents, self._workload, asked.search, deep=self._is_deep(setting, asked.search)
        )
        self._exact = exact_of(found, self._workload)
        self._store.write_reference(self._exact.arrays())
        known = figures(found, self._exact, self._workload, backend)
        trial = dataclasses.replace(asked, status="ok", backend_version=self._version, **_told_by(built), **known)
        self._store.put(trial)
        self._aim_at(trial)
        return trial

    def _aim_at(self, flat: IndexTrial) -> None:
        """Take what the others can reach at best, where there are queries enough to tell when they do."""
        self._goal = flat.ndcg_tune if len(self._workload.halves.tune) >= FEW_TO_TUNE else None

    def _tried(self, setting: BuildSetting, asked: IndexTrial) -> IndexTrial:
        """Return a trial with what became of it; what fails in a row is counted, a build once."""
        asked = dataclasses.replace(asked, backend_version=self._version)
        name = build_name(setting)
        if name in self._unusable:
            return dataclasses.replace(asked, **self._unusable[name])
        try:
            backend, built = self._builds.get(setting)
        except _FAILS as error:
            self._unusable[name] = self._failure(error)
            return dataclasses.replace(asked, **self._unusable[name])
        asked = dataclasses.replace(asked, **_told_by(built))
        if reason := built_as_asked(setting.build, built.seen):
            return dataclasses.replace(asked, status="ignored", reason=reason)
        assert self._exact is not None  # FLAT comes first
        try:
            deep = self._is_deep(setting, asked.search)
            found = measure(backend, self._documents, self._workload, asked.search, deep=deep)
        except _FAILS as error:
            return dataclasses.replace(asked, **self._failure(error))
        self._failures = 0
        return dataclasses.replace(asked, status="ok", **figures(found, self._exact, self._workload, backend))

    def _failure(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, UnsupportedIndexError):
            return {"status": "unsupported", "reason": one_line(str(error))}
        self._failures += 1
        return {"status": "failed", "reason": str(error)}

    def _is_deep(self, setting: BuildSetting, search: Setting) -> bool:
        try:
            check_setting(
                setting.index,
                setting.build,
                search,
                rows=len(self._documents),
                dimensions=self._subject.dimensions,
                k=DEEP,
            )
        except PipelineError:
            return False
        return True


def enough(trials: Sequence[IndexTrial], goal: float | None) -> str:
    """Return why wider settings than those that are measured of a build gain nothing, empty where they may.

    Args:
        goal: nDCG@10 of FLAT on the tune half; None to go by recall alone.
    """
    measured = [trial for trial in trials if trial.status == "ok"]
    if measured and (measured[-1].recall or 0) >= ENOUGH_RECALL:
        return f"recall is {ENOUGH_RECALL} or more before it"
    last = [trial.ndcg_tune for trial in measured[-TIMES:]]
    if (
        len(last) == TIMES
        and goal is not None
        and all(ndcg is not None and abs(ndcg - goal) <= NO_LOSS for ndcg in last)
    ):
        return f"nDCG is within {NO_LOSS} of FLAT's {TIMES} times before it"
    return ""


def _told_by(built: Built) -> dict[str, Any]:
    return {"build_seen": built.seen, "build_cpu_s": built.cpu_seconds, "index_bytes": built.index_bytes}
