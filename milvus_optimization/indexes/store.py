"""Trials on disk while a sweep runs: a file each, whole or not there, so that a killed sweep measures none twice."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from milvus_optimization.records import IndexTrial
from rag_core.base.errors import DataError
from rag_core.base.outside_text import first_line
from rag_core.files.atomic import atomic_write
from rag_core.files.jsonl import read_records, write_records

Arrays = Mapping[str, npt.NDArray[Any]]
E = TypeVar("E")

_REFERENCE = "exact.npz"

logger = logging.getLogger(__name__)


def trial_id(**defining: Any) -> str:
    """Return the name of a trial: a hash of all that defines it."""
    return hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()[:16]


class TrialStore:
    """A folder of trials that are measured."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; what is damaged is measured again, and said."""
        self._folder = folder
        self._trials: dict[str, IndexTrial] = {}
        for path in sorted(folder.glob("*.jsonl")):
            try:
                (trial,) = read_records(path, IndexTrial)
            except (DataError, ValueError) as error:
                logger.warning("WARNING: %s is damaged (%s): it is measured again", path, error)
                continue
            self._trials[trial.trial_id] = trial

    def get(self, trial_id: str) -> IndexTrial | None:
        """Return a trial, `None` where it is not measured."""
        return self._trials.get(trial_id)

    def put(self, trial: IndexTrial) -> None:
        """Keep a trial; it is on disk when this returns."""
        write_records(self._folder / f"{trial.trial_id}.jsonl", [trial])
        self._trials[trial.trial_id] = trial

    def read_reference(self, make: Callable[[Arrays], E]) -> E | None:
        """Return what is made of what the exact search of the first trial found, `None` where it is not there whole.

        Args:
            make: may raise whatever it likes of arrays that are not those that were written.
        """
        path = self._folder / _REFERENCE
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return make(dict(stored))
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001  # of a damaged head NumPy raises whatever Python's own parser does
            logger.warning("WARNING: %s is damaged (%s): it is measured again", path, first_line(error))
            return None

    def write_reference(self, arrays: Arrays) -> None:
        """Keep what the exact search found, before its trial is."""
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        with atomic_write(self._folder / _REFERENCE) as file:
            file.write(content.getbuffer())
