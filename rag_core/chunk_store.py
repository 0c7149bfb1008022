"""Unfinished scores on disk: one file a finished chunk, so that a killed run goes on where it stopped.

A chunk is a fixed piece of the plan that follows from the recipe alone, and is computed as a whole or not
at all. So a run that was stopped computes exactly the batches that an uninterrupted one computes, and the
result is the same to the bit (on hardware whose arithmetic is repeatable).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_core.engines.protocols import Floats
from rag_core.jsonl import atomic_write
from rag_core.unfinished import UnfinishedWork


class ChunkStore(UnfinishedWork):
    """The finished chunks of one output.

    A chunk file has the arrays `keys` (one a row: the SHA-256 of what the row was computed from) and `values`.
    Each is written beside its place, synced and renamed, so there is no half-written chunk to be taken for a
    finished one. A chunk whose keys are not the plan's counts as unfinished.
    """

    def has(self, name: str) -> bool:
        """Tell whether a chunk was kept (whether it is the plan's, `read` tells)."""
        return self._path(name).exists()

    def read(self, name: str, keys: Sequence[str]) -> Floats | None:
        """Return the values of a finished chunk, `None` where it has to be computed."""
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as chunk:
                if chunk["keys"].tolist() == [key.encode() for key in keys]:
                    values: Floats = chunk["values"]
                    return values
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # missing, or damaged by something other than this program: computed again
        return None

    def write(self, name: str, keys: Sequence[str], values: Floats) -> None:
        """Keep a chunk for good; it is on disk when this returns."""
        with atomic_write(self._path(name)) as file:
            np.savez(file, keys=np.array(keys, dtype="S"), values=values)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.npz"


def row_key(*parts: str) -> str:
    """Return the key of a row: hex SHA-256 of its parts, e.g. query and passage."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
