"""The two halves of the queries: every choice is made on the tune half, every figure is of the report half."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_STEPS = 2**32


def is_tune_query(query_id: str, tune_fraction: float) -> bool:
    """Tell whether a query is one to choose by. It depends on its id alone, so further queries move none."""
    place = int.from_bytes(hashlib.sha256(f"half:{query_id}".encode()).digest()[:4])
    return place < tune_fraction * _STEPS


def tune_mask(query_ids: Iterable[str], tune_fraction: float) -> npt.NDArray[np.bool_]:
    """Return which queries are to choose by; shape (queries,)."""
    return np.array([is_tune_query(query_id, tune_fraction) for query_id in query_ids], dtype=bool)
