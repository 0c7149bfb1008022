"""Recall with ties counted as equals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Scores of one text differ by so much with the order of the additions; Milvus, faiss and NumPy each have their own.
TIE = 1e-5


def share_kept(exact: Floats, found: Floats) -> npt.NDArray[np.float64]:
    """Return recall of each query, ties counted: the share of results that score as the last exact one, or above.

    Args:
        exact: scores of the exact results, best first; shape (queries, results).
        found: scores, by the same vectors, of as many results; -inf for those that are missing.
    """
    return np.asarray((found >= exact[:, -1:] - TIE).mean(axis=1), dtype=np.float64)
