"""Exact search by cosine: every passage is compared with every query."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

Places = npt.NDArray[np.int64]

# A block of scores takes 32 MB, and documents that are mapped from disk are gone through once.
_DOCUMENTS_AT_ONCE, _QUERIES_AT_ONCE = 2**15, 256
_VALUES_AT_ONCE = 2**22  # of documents that are fetched by place


class VectorRows(Protocol):
    """Vectors that are read when they are asked for, by slice or by places; shape (rows, dimensions)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def nearest(queries: Floats, documents: Floats | VectorRows, count: int) -> tuple[Places, Floats]:
    """Return the places of the `count` best documents of each query and their scores, best first, ties by place.

    Args:
        queries: shape (queries, dimensions).
        documents: shape (documents, dimensions), also mapped from disk.

    Returns:
        Shape (queries, count) each; where there are fewer documents, the rest has place -1 and score -inf.
    """
    places = np.full((len(queries), count), -1, dtype=np.int64)
    scores = np.full((len(queries), count), -np.inf, dtype=np.float32)
    for first in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        block = np.asarray(documents[first : first + _DOCUMENTS_AT_ONCE])
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            for row, found in enumerate(queries[start : start + _QUERIES_AT_ONCE] @ block.T, start):
                best = np.array(best_places(found, count), dtype=np.int64)
                # The places before are lower ones, so that a stable order keeps them first among equals.
                both = np.concatenate([places[row], best + first]), np.concatenate([scores[row], found[best]])
                order = np.argsort(-both[1], kind="stable")[:count]
                places[row], scores[row] = both[0][order], both[1][order]
    return places, scores


def scores_at(queries: Floats, documents: Floats | VectorRows, places: Places) -> Floats:
    """Return the score of each query with the documents at its places; shape (queries, results), -inf at place -1."""
    scores = np.empty(places.shape, dtype=np.float32)
    rows = max(1, _VALUES_AT_ONCE // max(1, places.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), rows):
        mine = slice(start, start + rows)
        scores[mine] = np.einsum("qd,qrd->qr", queries[mine], documents[places[mine]])
    return np.where(places >= 0, scores, np.float32(-np.inf))


def best_places(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the positions of the `count` highest scores, best first, ties in their order."""
    if count < len(scores):
        # Whatever ties with the last place stays in, so that the stable sort decides as it would over all.
        kept = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        kept = np.arange(len(scores))
    order = np.argsort(-scores[kept], kind="stable")[:count]
    best: list[int] = kept[order].tolist()
    return best
