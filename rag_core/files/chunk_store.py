"""Computed rows on disk, found by what they were computed from: one file per finished chunk, never a half one.

A row is a score or a vector. Its key is the hash of all that determines it (`row_key`), so that a killed run goes on
where it stopped, and files that share pairs or texts share their rows. A chunk is computed as a whole or not at all:
a run that was stopped computes exactly the batches that an uninterrupted one computes, and the result is the same to
the bit (on hardware whose arithmetic is repeatable).
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError, StaleError
from rag_core.base.outside_text import quoted
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import open_input

Floats = npt.NDArray[np.float32]

_KEY = np.dtype("S16")
_LONGEST_MERGED = 2**18  # keys
_BUFFER = 2**20  # bytes that are hashed at once
_SECONDS_TO_WAIT = 0.05  # for another process that writes the same chunk
_Run = tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]]  # keys, and their places

logger = logging.getLogger(__name__)


class ChunkStore:
    """Rows of float32, all of one shape, in the chunk files of some folders; new ones go to the first folder.

    A chunk file is a NumPy array with the fields `key` and `value`, and the hash of all that behind it, by which a
    damaged one is found. Each is written beside its place, synced (fsync) and renamed. Memory holds 24 bytes per row,
    its key and its place; values are read through a memory map that is closed again, so that they do not stay.
    """

    def __init__(self, folders: Sequence[Path], kind: str) -> None:
        """Find the chunks of a kind of rows, e.g. "pair"."""
        self._folder = folders[0]
        self._kind = kind
        self._row: np.dtype[np.void] | None = None  # of all rows
        self._paths: list[Path] = []
        self._ends = [0]  # of each chunk, in the count of all rows
        self._damaged: set[Path] = set()
        self._runs: list[_Run] = []  # sorted by key, each less than half as long as the one before it
        for folder in folders:
            for path in sorted(folder.glob(f"{kind}-*.npy")):
                try:
                    _check(path)
                    self._add(path)
                except (DataError, OSError, ValueError, EOFError) as error:  # not by a run of ours
                    logger.warning("WARNING: %s is damaged (%s): its rows are computed again", path, error)
                    self._damaged.add(path)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Return the places of the keys that have no row."""
        return [int(place) for place in np.flatnonzero(self._find(keys) < 0)]

    def write(self, keys: Sequence[bytes], values: Floats) -> None:
        """Keep a chunk for good; it is on disk when this returns. What another process writes meanwhile is taken."""
        chunk = np.empty(len(keys), dtype=[("key", _KEY), ("value", "<f4", values.shape[1:])])
        chunk["key"] = keys
        chunk["value"] = values
        path = self._folder / f"{self._kind}-{_digest(b''.join(keys)).hex()}.npy"
        content = io.BytesIO()
        np.save(content, chunk)
        while path in self._damaged or not path.exists():
            try:
                with atomic_write(path) as file:
                    file.write(content.getbuffer())
                    file.write(_digest(content.getbuffer()))
                self._damaged.discard(path)
            except StaleError:
                time.sleep(_SECONDS_TO_WAIT)
        self._add(path)

    def read(self, keys: Sequence[bytes]) -> Floats:
        """Return the rows of keys, in their order; shape (keys, ...).

        Raises:
            KeyError: one has no row.
        """
        places = self._find(keys)
        if (places < 0).any():
            raise KeyError(keys[int(np.argmin(places))])
        chunk_of = np.searchsorted(self._ends, places, side="right") - 1
        values: Floats | None = None
        for number in np.unique(chunk_of):
            mine = chunk_of == number
            chunk = np.load(self._paths[number], mmap_mode="r")
            rows = chunk["value"][places[mine] - self._ends[number]]
            if values is None:
                values = np.empty((len(keys), *rows.shape[1:]), dtype=np.float32)
            values[mine] = rows
        return np.empty(0, dtype=np.float32) if values is None else values

    def _add(self, path: Path) -> None:
        chunk = np.load(path, mmap_mode="r")
        if self._row is None:
            self._row = chunk.dtype
        elif chunk.dtype != self._row:
            raise ValueError(f"its rows are of {quoted(str(chunk.dtype))}, where others are of {self._row}")
        keys = chunk["key"]
        run = _sorted_run(keys, self._ends[-1] + np.arange(len(keys)))
        self._paths.append(path)
        self._ends.append(self._ends[-1] + len(keys))
        # Merged like the digits of a binary counter, so that a row is sorted a logarithmic number of times; not beyond
        # a length, since a merge holds both runs twice.
        while self._runs and len(self._runs[-1][0]) <= min(2 * len(run[0]), _LONGEST_MERGED):
            longer = self._runs.pop()
            run = _sorted_run(np.concatenate([longer[0], run[0]]), np.concatenate([longer[1], run[1]]))
        self._runs.append(run)

    def _find(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Return each key's place among all rows, -1 where it has none."""
        wanted = np.array(keys, dtype=_KEY)
        found = np.full(len(keys), -1, dtype=np.int64)
        for known, places in self._runs:
            near = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            found = np.where(known[near] == wanted, places[near], found)
        return found


def row_key(*parts: str) -> bytes:
    """Return the key of a row: 128 bits of a hash of all that determines it."""
    lengths = " ".join([str(len(part)) for part in parts])  # so that ("a", "bc") is not ("ab", "c")
    return _digest(f"{lengths}:{''.join(parts)}".encode())


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_KEY.itemsize).digest()


def _check(path: Path) -> None:
    """Hold a chunk against its hash, which those of before do not have.

    Raises:
        DataError, OSError, ValueError, EOFError: it is damaged.
    """
    open_input(path).close()  # which a pipe would not let be mapped
    try:
        chunk = np.load(path, mmap_mode="r")
    except Exception as error:  # of a damaged head NumPy raises whatever Python's own parser does
        raise ValueError("its head cannot be read") from error
    if not isinstance(chunk, np.memmap) or chunk.ndim != 1 or not _is_row(chunk.dtype):
        raise ValueError("it holds no keys with their values")
    left = chunk.offset + chunk.nbytes
    digest = hashlib.blake2b(digest_size=_KEY.itemsize)
    with path.open("rb") as file:
        while left:
            block = file.read(min(left, _BUFFER))
            if not block:
                raise EOFError("it is cut short")
            digest.update(block)
            left -= len(block)
        written = file.read()
    if not len(chunk) or written not in (b"", digest.digest()):
        raise ValueError("its bytes are not those that were written" if len(chunk) else "it is empty")


def _is_row(kind: np.dtype[Any]) -> bool:
    if kind.names != ("key", "value") or kind["key"] != _KEY:
        return False
    return kind["value"].base == np.float32


def _sorted_run(keys: npt.NDArray[np.bytes_], places: npt.NDArray[np.int64]) -> _Run:
    order = np.argsort(keys, kind="stable")
    return keys[order], places[order]
