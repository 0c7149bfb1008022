"""A look at 20 pairs before a long run: a teacher that cannot tell them apart has nothing to teach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_core.engines.precision import Precision
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder
from rag_core.errors import EngineError

CANARY_PAIRS = 20

# Largest difference of log-odds between two exact ways of computing: rounding, times some room. Measured on random
# models of up to 82M parameters, not on an 8B one.
_TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.5, "float16": 0.1}


def check(model: PairScorer | TextEncoder, pairs: Sequence[Pair]) -> Floats:
    """Score the pairs; return the scores.

    Raises:
        EngineError: a score is not finite, or all are the same.
    """
    if isinstance(model, PairScorer):
        scores = model.score(pairs)
    else:
        queries = model.encode([query for query, _ in pairs], "query")
        scores = (queries * model.encode([passage for _, passage in pairs], "passage")).sum(axis=1)
    if not np.isfinite(scores).all():
        raise EngineError(
            "the model gives scores that are not finite (NaN or infinite)", "Try --dtype float32, or another engine"
        )
    if len(set(pairs)) > 1 and scores.std() == 0:
        raise EngineError(
            f"the model gives all of {len(pairs)} different pairs the same score ({scores[0]:g})",
            "Check that it is a trained reranker or embedder, and try --dtype float32 or another engine",
        )
    return scores


def compare(exact: Floats, fast: Floats, dtype: Precision) -> None:
    """Compare the scores of a fast form with those of the exact one.

    Raises:
        EngineError: they differ by more than rounding explains.
    """
    difference = float(np.abs(exact - fast).max())
    if difference > _TOLERANCE[dtype]:
        raise EngineError(
            f"vLLM's pooling form differs from the exact scores by up to {difference:.3g} on {len(exact)} pairs "
            f"(in {dtype}, {_TOLERANCE[dtype]:g} would be rounding)",
            "Pass --vllm_runner generate",
        )
