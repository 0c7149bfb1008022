"""Merge the scores that several teachers give to a query's candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rag_core.retrieval.fusion import reciprocal_ranks, standardise

Method = Literal["standardised_mean", "rank_fusion"]

# What the merged scores are, for the manifest.
SCORE_UNITS: dict[Method, str] = {"standardised_mean": "standard deviations", "rank_fusion": "reciprocal rank"}


def merge(members: Sequence[npt.ArrayLike], weights: Sequence[float], method: Method) -> npt.NDArray[np.float64]:
    """Return one score for each candidate of a query; shape (candidates,).

    - `standardised_mean`: the weighted mean of the members' standardised scores.
    - `rank_fusion`: the sum over members of weight / (60 + rank), ranks from 1, ties sharing their mean rank. Cormack,
      Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods".

    Args:
        members: the scores of each teacher; shape (members, candidates).
        weights: at least 0, not all 0; in `rank_fusion` they are divided by their mean, so that equal ones count 1.
    """
    shares = np.asarray(weights, dtype=np.float64)
    if method == "standardised_mean":
        parts, shares = [standardise(scores) for scores in members], shares / shares.sum()
    else:
        parts = [reciprocal_ranks(scores) for scores in members]
        shares = shares / shares.mean()
    merged: npt.NDArray[np.float64] = shares @ np.array(parts)
    return merged
