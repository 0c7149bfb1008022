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

    A chunk file is a NumPy array with the fields `key` and `value`, read through a memory map. Each is written
    beside its place, synced and renamed. Memory is that of the keys: 40 bytes a row.
    """

    def __init__(self, folders: Sequence[Path], kind: str) -> None:
        """Find the chunks of a kind of rows, e.g. "pair"."""
        self._folder = folders[0]
        self._kind = kind
        self._chunks: list[npt.NDArray[np.void]] = []
        self._index: tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]] | None = None
        for folder in folders:
            for path in sorted(folder.glob(f"{kind}-*.npy")):
                try:
                    self._chunks.append(np.load(path, mmap_mode="r"))
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
        self._chunks.append(np.load(path, mmap_mode="r"))
        self._index = None

    def read(self, keys: Sequence[str]) -> Floats:
        """Return the rows of keys, in their order; shape (keys, ...).

        Raises:
            KeyError: one has no row.
        """
        places = self._find(keys)
        if (places < 0).any():
            raise KeyError(keys[int(np.argmin(places))])
        ends = np.cumsum([len(chunk) for chunk in self._chunks])
        chunk_of = np.searchsorted(ends, places, side="right")
        values = np.empty((len(keys), *self._chunks[0]["value"].shape[1:]), dtype=np.float32)
        for number in np.unique(chunk_of):
            mine = chunk_of == number
            chunk = self._chunks[number]
            values[mine] = chunk["value"][places[mine] - (ends[number] - len(chunk))]
        return values

    def _find(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return each key's place among all rows, -1 where it has none."""
        if not self._chunks:
            return np.full(len(keys), -1, dtype=np.int64)
        if self._index is None:
            known = np.concatenate([chunk["key"] for chunk in self._chunks])
            order = np.argsort(known, kind="stable")
            self._index = known[order], order
        known, order = self._index
        wanted = np.array(keys, dtype="S32")
        near = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[near] == wanted, order[near], -1)


def row_key(*parts: str) -> str:
    """Return the key of a row: 128 bits of a hash of all that determines it, in hex."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
