"""Other forms of a model's vectors: fewer bits, fewer dimensions. Each is searched exactly, so that what it loses is told
apart from what an index loses.

| variant | a number is kept as | bytes of a vector |
|---|---|---|
| `float32` | it is | 4 d |
| `float16` | IEEE half | 2 d |
| `int8` | a whole number of -127 to 127, one scale for all | d |
| `sq8`, `sq4` | one of 256 or 16 steps between its dimension's least and greatest value | d, d/2 |
| `binary` | its sign; Hamming distance | d/8 |
| `first<n>` | it is, of the first n dimensions, made length 1 again: right for Matryoshka models | 4 n |
| `pca<n>` | it is, of the n directions of most variance of the documents | 4 n |
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import UsageError

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

_NUMBERED = re.compile(r"(first|pca)([1-9][0-9]*)")
_PLAIN = ("float32", "float16", "int8", "sq8", "sq4", "binary")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form of vectors.

    Attributes:
        dimensions, bytes_per_vector: of a document.
        documents: as they are compared; shape (documents, dimensions).
        queries: makes queries comparable with them.
    """

    name: str
    dimensions: int
    bytes_per_vector: int
    documents: Floats
    queries: Callable[[Floats], Floats]

    def scores(self, queries: Floats) -> Scores:
        """Return the inner product of each query with each document; shape (queries, documents)."""
        return self.queries(queries) @ self.documents.T


def check_variant(name: str, dimensions: int) -> None:
    """Check that a name is one of a variant, and that vectors have so many dimensions.

    Raises:
        UsageError: it is not, or they have fewer.
    """
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None and name not in _PLAIN:
        raise UsageError(f"--variants has {name!r}", f"Pass some of: {', '.join(_PLAIN)}, first<n>, pca<n>")
    if numbered and int(numbered[2]) >= dimensions:
        raise UsageError(f"--variants has {name}, and the vectors have {dimensions} dimensions", "Pass fewer")


def make_variant(name: str, documents: Floats) -> Variant:
    """Make a variant of documents' vectors; shape (documents, dimensions), each of length 1."""
    dimensions = documents.shape[1]
    if numbered := _NUMBERED.fullmatch(name):
        count = int(numbered[2])
        if numbered[1] == "first":
            return Variant(name, count, 4 * count, _unit(documents[:, :count]), lambda rows: _unit(rows[:, :count]))
        centre, directions = _principal_directions(documents, count)
        return Variant(
            name, count, 4 * count, (documents - centre) @ directions, lambda rows: np.asarray(rows @ directions)
        )
    if name == "binary":
        signs = np.where(documents > 0, np.float32(1), np.float32(-1))
        return Variant(
            name, dimensions, -(-dimensions // 8), signs, lambda rows: np.where(rows > 0, 1, -1).astype("f4")
        )
    kept = {
        "float32": lambda: documents,
        "float16": lambda: documents.astype(np.float16).astype(np.float32),
        "int8": lambda: _scaled(documents),
        "sq8": lambda: _in_steps(documents, 256),
        "sq4": lambda: _in_steps(documents, 16),
    }[name]()
    bits = {"float32": 32, "float16": 16, "int8": 8, "sq8": 8, "sq4": 4}[name]
    return Variant(name, dimensions, -(-dimensions * bits // 8), np.asarray(kept, dtype=np.float32), lambda rows: rows)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def _principal_directions(documents: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the documents' mean, and the directions of most variance; shape (dimensions, count)."""
    centre = documents.mean(axis=0, dtype=np.float64)
    centred = documents - centre.astype(np.float32)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    return centre.astype(np.float32), np.asarray(directions[:, ::-1][:, :count], dtype=np.float32)


def _scaled(documents: Floats) -> Floats:
    scale = np.abs(documents).max() / 127
    return np.asarray(np.rint(documents / scale) * scale, dtype=np.float32)


def _in_steps(documents: Floats, steps: int) -> Floats:
    low, high = documents.min(axis=0), documents.max(axis=0)
    step = np.maximum((high - low) / (steps - 1), np.finfo(np.float32).tiny)
    return np.asarray(low + np.rint((documents - low) / step) * step, dtype=np.float32)
