"""Measured times in the folder of unfinished work: a run that was killed and goes on does not take them again."""

from __future__ import annotations

import json
from pathlib import Path

from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_json

_FILE = "milliseconds.json"


class KeptTimes:
    """Milliseconds by name; each is on disk when it is kept."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        found = read_json(self._path, "Pass --overwrite to start afresh") if self._path.exists() else {}
        self._by_name: dict[str, float] = {str(name): float(value) for name, value in dict(found).items()}

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
