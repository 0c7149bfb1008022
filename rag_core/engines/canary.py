"""The check before a long run: does the teacher tell a few pairs apart, and does a fast form of it score them alike?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.base.records import LARGEST_SCORE
from rag_core.engines.precision import Dtype
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder

CANARY_PAIRS = 20

# Largest difference of two forms of one model, in log-odds. Both add up the same products in another order:
# in float32 that is below 1e-5; bfloat16 keeps 8 bits of each hidden state, float16 11. A wrong prompt or
# classifier row moves trained rerankers by several units.
TOLERANCE: dict[Dtype, float] = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}

# Rank correlation below which two ways to run a model are two teachers. bfloat16 in each costs about 0.001.
LEAST_CORRELATION = 0.98

# Below this the scores differ by rounding only: the model reads the same text for every pair.
_LEAST_DEVIATION = 1e-6


def check(model: PairScorer | TextEncoder, pairs: Sequence[Pair]) -> Floats:
    """Score the first `CANARY_PAIRS` of some distinct pairs, see that they can be a teacher's, and return them.

    Raises:
        EngineError: a score is not finite, or all are the same.
    """
    pairs = pairs[:CANARY_PAIRS]
    truncated = model.truncated
    scores = score_once(model, pairs)
    model.truncated = truncated  # a rehearsal; the run itself counts these pairs
    check_finite(scores)
    if len(pairs) > 1 and scores.std() < _LEAST_DEVIATION:
        raise EngineError(
            f"the teacher gives all {len(pairs)} pairs tried the same score ({scores[0]:.4g})",
            "Check that it is a trained reranker or embedder, that the passages differ within --max_length, "
            "and try --dtype float32 or another --engine",
        )
    return scores


def check_finite(scores: Floats) -> None:
    """Check that no score is NaN, infinite, or larger than a record may hold.

    Raises:
        EngineError: one is.
    """
    wrong = int((~(np.abs(scores) <= LARGEST_SCORE)).sum())
    if wrong:
        raise EngineError(
            f"{wrong} of {len(scores)} scores of the teacher are not finite (NaN or infinite), "
            f"or beyond {LARGEST_SCORE:g}",
            "Pass --dtype float32 (float16 overflows in many models), or try another --engine",
        )


def compare(exact: Floats, fast: Floats, dtype: Dtype) -> float:
    """Return the largest difference of two forms of one model over the same pairs.

    Raises:
        EngineError: it is above the tolerance of the precision, or a score is not finite.
    """
    check_finite(exact)
    check_finite(fast)
    difference = float(np.abs(exact - fast).max())
    if difference > TOLERANCE[dtype]:
        raise EngineError(
            f"the pooling form of the teacher differs from the exact one by up to {difference:.4g} log-odds on "
            f"{len(exact)} pairs, where {TOLERANCE[dtype]:g} is allowed in {dtype}",
            "Pass --vllm_runner generate",
        )
    return difference


def compare_ranking(reference: Floats, scores: Floats) -> float:
    """Return the rank correlation (Spearman) of two teachers' scores over the same pairs.

    Raises:
        EngineError: it is below `LEAST_CORRELATION`.
    """
    from scipy.stats import spearmanr

    correlation = float(spearmanr(reference, scores).statistic)
    if not correlation >= LEAST_CORRELATION:
        raise EngineError(
            f"the quantised teacher ranks {len(scores)} pairs differently from the unquantised one (rank correlation "
            f"{correlation:.3f}, largest difference {np.abs(reference - scores).max():.3g})",
            "Quantise it with more bits, or leave out --quantization; --reference none skips this comparison",
        )
    return correlation


def score_once(model: PairScorer | TextEncoder, pairs: Sequence[Pair]) -> Floats:
    """Score a few pairs with a model of either kind; shape (pairs,)."""
    if isinstance(model, PairScorer):
        return model.score(pairs)
    queries = model.encode([query for query, _ in pairs], "query")
    passages = model.encode([passage for _, passage in pairs], "passage")
    cosines: Floats = (queries * passages).sum(axis=1)
    return cosines
