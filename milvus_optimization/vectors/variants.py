"""Other forms of a model's vectors: fewer bits, fewer dimensions.

Each is searched exactly, so that what it loses is told apart from what an index loses.

| variant | a number is kept as | bytes of a vector |
|---|---|---|
| `float32` | it is | 4 d |
| `float16` | IEEE half, of queries too | 2 d |
| `int8` | a whole number of -127 to 127, of queries too: one scale for all of them | d |
| `sq8`, `sq4` | one of 256 or 16 values, evenly from the least to the greatest of its dimension | d, d/2 |
| `binary` | whether it is above 0, of queries too: the Hamming distance | d/8 |
| `first<n>` | it is, of the first n dimensions, made length 1 again: right for Matryoshka models | 4 n |
| `pca<n>` | it is, of the n directions of most variance of the documents | 4 n |

Queries stay as they are where nothing else is said, as in Milvus and faiss. All are compared by the inner product.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import UsageError
from rag_core.base.outside_text import quoted

Floats = npt.NDArray[np.float32]
Form = tuple[Floats, Callable[[Floats], Floats]]  # the documents, and what makes queries comparable with them

_NUMBERED = re.compile(r"(first|pca)([1-9][0-9]{0,8})")
_BITS = {"float32": 32, "float16": 16, "int8": 8, "sq8": 8, "sq4": 4, "binary": 1}
_LARGEST_INT8 = 127
_ROWS_AT_ONCE = 2**14  # of documents whose covariance is summed up


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form of vectors.

    Attributes:
        dimensions, bytes_per_vector: of a document.
        documents: as they are compared; shape (documents, dimensions).
        queries: makes queries comparable with them, by the inner product.
    """

    name: str
    dimensions: int
    bytes_per_vector: int
    documents: Floats
    queries: Callable[[Floats], Floats]


def default_variants(dimensions: int) -> list[str]:
    """Return the bit widths worth a look, and a half and a third of so many dimensions."""
    fewer = [n for n in (dimensions // 2, dimensions // 3) if n >= 1]
    return ["float32", "sq8", "sq4", "int8", "binary", *(f"pca{n}" for n in fewer), *(f"first{n}" for n in fewer)]


def check_variant(name: str, dimensions: int) -> None:
    """Check that a name is one of a variant, and that vectors have so many dimensions.

    Raises:
        UsageError: it is not, or they have fewer.
    """
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None and name not in _BITS:
        what = f"--variants has {quoted(repr(name))}, which is none"
        raise UsageError(what, f"Pass some of: {', '.join(_BITS)}, first<n>, pca<n>")
    if numbered and int(numbered[2]) >= dimensions:
        remedy = f"Pass {numbered[1]}<n> of less than {dimensions}"
        raise UsageError(f"--variants has {name}, and the vectors have {dimensions} dimensions", remedy)


def make_variant(name: str, documents: Floats) -> Variant:
    """Make a variant of documents' vectors; shape (documents, dimensions), each of length 1."""
    dimensions = documents.shape[1]
    if numbered := _NUMBERED.fullmatch(name):
        count = int(numbered[2])
        kept, queries = (_first if numbered[1] == "first" else _principal)(documents, count)
        return Variant(name, count, 4 * count, kept, queries)
    kept, queries = _FORMS[name](documents)
    return Variant(name, dimensions, -(-dimensions * _BITS[name] // 8), kept, queries)


def _as_they_are(rows: Floats) -> Floats:
    return rows


def _half(rows: Floats) -> Floats:
    return rows.astype(np.float16).astype(np.float32)


def _signs(rows: Floats) -> Floats:
    """Return 1 and -1, whose inner product is d minus twice the Hamming distance of the bits."""
    signs: Floats = np.where(rows > 0, np.float32(1), np.float32(-1))
    return signs


def _whole_numbers(documents: Floats) -> Form:
    scale = np.float32(max(np.abs(documents).max() / _LARGEST_INT8, np.finfo(np.float32).tiny))

    def kept(rows: Floats) -> Floats:
        # A query may have a number beyond those of all documents.
        numbers: Floats = np.clip(np.rint(rows / scale), -_LARGEST_INT8, _LARGEST_INT8)
        return numbers

    return kept(documents), kept


def _in_steps(documents: Floats, steps: int) -> Floats:
    low, high = documents.min(axis=0), documents.max(axis=0)
    step = np.maximum((high - low) / np.float32(steps - 1), np.finfo(np.float32).tiny)
    return np.asarray(low + np.rint((documents - low) / step) * step, dtype=np.float32)


def _first(documents: Floats, count: int) -> Form:
    def kept(rows: Floats) -> Floats:
        lengths = np.linalg.norm(rows[:, :count], axis=1, keepdims=True)
        return np.asarray(rows[:, :count] / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)

    return kept(documents), kept


def _principal(documents: Floats, count: int) -> Form:
    """Project onto the directions of most variance.

    The mean is not taken off: of a query's products with all documents it would change each by the same.
    """
    centre = documents.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((documents.shape[1], documents.shape[1]))
    for start in range(0, len(documents), _ROWS_AT_ONCE):
        centred = documents[start : start + _ROWS_AT_ONCE] - centre
        scatter += centred.T @ centred
    _, directions = np.linalg.eigh(scatter)  # of the least variance first
    chosen = np.asarray(directions[:, ::-1][:, :count], dtype=np.float32)

    def kept(rows: Floats) -> Floats:
        return np.asarray(rows @ chosen, dtype=np.float32)

    return kept(documents), kept


_FORMS: dict[str, Callable[[Floats], Form]] = {
    "float32": lambda rows: (rows, _as_they_are),
    "float16": lambda rows: (_half(rows), _half),
    "int8": _whole_numbers,
    "sq8": lambda rows: (_in_steps(rows, 256), _as_they_are),
    "sq4": lambda rows: (_in_steps(rows, 16), _as_they_are),
    "binary": lambda rows: (_signs(rows), _signs),
}
