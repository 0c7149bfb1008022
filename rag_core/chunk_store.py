"""Computed rows on disk, found by what they were computed from: one file a finished chunk, never a half one.

A row is a score or a vector. Its key is the hash of all that determines it (`row_key`), so that a killed run goes on
where it stopped, and files that share pairs or texts share their rows. A chunk is computed as a whole or not at all:
a run that was stopped computes exactly the batches that an uninterrupted one computes, and the result is the same to
the bit (on hardware whose arithmetic is repeatable).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.engines.protocols import Floats
from rag_core.jsonl import atomic_write

logger = logging.getLogger(__name__)


class ChunkStore:
    """Rows of float32, all of one shape, in the chunk files of some folders; new ones go to the first folder.

    A chunk file is a NumPy array with the fields `key` and `value`. Each is written beside its place, synced and
    renamed. In memory are the keys, 32 bytes a row and as much again while they are sorted; values are read through a
    memory map that is closed again, so that they do not stay.
    """

    def __init__(self, folders: Sequence[Path], kind: str) -> None:
        """Find the chunks of a kind of rows, e.g. "pair"."""
        self._folder = folders[0]
        self._kind = kind
        self._paths: list[Path] = []
        self._keys: list[npt.NDArray[np.bytes_]] = []
        self._index: tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]] | None = None
        for folder in folders:
            for path in sorted(folder.glob(f"{kind}-*.npy")):
                try:
                    self._add(path)
                except (OSError, ValueError):  # damaged by something other than this program
                    logger.warning("%s cannot be read: its rows are computed again", path)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the places of the keys that have no row."""
        return [int(place) for place in np.flatnonzero(self._find(keys) < 0)]

    def write(self, keys: Sequence[str], values: Floats) -> None:
        """Keep a chunk for good; it is on disk when this returns."""
        chunk = np.empty(len(keys), dtype=[("key", "S32"), ("value", "<f4", values.shape[1:])])
        chunk["key"] = keys
        chunk["value"] = values
        path = self._folder / f"{self._kind}-{row_key(*keys)}.npy"
        with atomic_write(path) as file:
            np.save(file, chunk)
        self._add(path)

    def read(self, keys: Sequence[str]) -> Floats:
        """Return the rows of keys, in their order; shape (keys, ...).

        Raises:
            KeyError: one has no row.
        """
        places = self._find(keys)
        if (places < 0).any():
            raise KeyError(keys[int(np.argmin(places))])
        ends = np.cumsum([len(chunk) for chunk in self._keys])
        chunk_of = np.searchsorted(ends, places, side="right")
        values: Floats | None = None
        for number in np.unique(chunk_of):
            mine = chunk_of == number
            chunk = np.load(self._paths[number], mmap_mode="r")
            rows = chunk["value"][places[mine] - (ends[number] - len(chunk))]
            if values is None:
                values = np.empty((len(keys), *rows.shape[1:]), dtype=np.float32)
            values[mine] = rows
        return np.empty(0, dtype=np.float32) if values is None else values

    def _add(self, path: Path) -> None:
        chunk = np.load(path, mmap_mode="r")
        self._keys.append(chunk["key"].copy())
        self._paths.append(path)
        self._index = None

    def _find(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return each key's place among all rows, -1 where it has none."""
        if not self._keys:
            return np.full(len(keys), -1, dtype=np.int64)
        if self._index is None:
            known = np.concatenate(self._keys)
            order = np.argsort(known, kind="stable")
            self._index = known[order], order
        known, order = self._index
        wanted = np.array(keys, dtype="S32")
        near = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[near] == wanted, order[near], -1)


def row_key(*parts: str) -> str:
    """Return the key of a row: 128 bits of a hash of all that determines it, in hex."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
