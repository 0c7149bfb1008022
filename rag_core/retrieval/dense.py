"""Exact search by cosine: every passage is compared with every query."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SEARCHED_AT_ONCE = 256  # queries


def nearest_vectors(
    queries: Sequence[str], vectors_of: Callable[[Sequence[str]], Floats], passages: Floats, count: int
) -> list[list[int]]:
    """Return the positions of the `count` passages with the highest cosines for each query, best first.

    Args:
        vectors_of: gives the vectors of queries; shape (queries, dimensions), each of length 1.
        passages: shape (passages, dimensions), each of length 1.
    """
    found = []
    for start in range(0, len(queries), _SEARCHED_AT_ONCE):
        block = vectors_of(queries[start : start + _SEARCHED_AT_ONCE])
        found += [best_places(np.asarray(row), count) for row in block @ passages.T]
    return found


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
