"""Measured times in the folder of unfinished work: a run that was killed and goes on does not take them again."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_json

_FILE = "milliseconds.json"

logger = logging.getLogger(__name__)


class KeptTimes:
    """Milliseconds by name; each is on disk when it is kept."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._by_name: dict[str, float] = _read(self._path) if self._path.exists() else {}

    def get(self, name: str) -> float | None:
        """Return what was measured first; None for nothing."""
        return self._by_name.get(name)

    def keep(self, name: str, milliseconds: float) -> float:
        """Keep a time unless there is one, and return the one that is kept."""
        if name not in self._by_name:
            self._by_name[name] = round(milliseconds, 4)
            with atomic_write(self._path) as file:
                file.write(json.dumps(self._by_name).encode())
        return self._by_name[name]


def _read(path: Path) -> dict[str, float]:
    """Return what was kept; nothing of a file that is damaged, which is said."""
    try:
        found = read_json(path, "Pass --overwrite to start afresh")
    except DataError as error:
        found = str(error)
    if isinstance(found, dict) and all(isinstance(one, float) and math.isfinite(one) for one in found.values()):
        return found
    logger.warning("WARNING: %s is damaged: times are taken again", path)
    return {}
