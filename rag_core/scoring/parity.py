"""The same teacher in every engine that is installed here: do they score a few pairs alike?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.engines.canary import LEAST_CORRELATION
from rag_core.engines.loading import installed_engines, scores_and_close, scores_of
from rag_core.engines.options import EngineName, EngineOptions
from rag_core.engines.protocols import Pair
from rag_core.scoring.settings import load

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parity:
    """How an engine's scores differ from those of the engine that was chosen.

    Attributes:
        largest: of the absolute differences, in the unit of the score.
        correlation: Spearman's, over all pairs.
    """

    engine: EngineName
    largest: float
    correlation: float


def check_parity(engine: EngineName, options: EngineOptions, pairs: Sequence[Pair]) -> list[Parity]:
    """Score pairs with the chosen engine and with every other one that is installed; log each difference.

    Args:
        options: settled: with precision and instruction.

    Raises:
        EngineError: an engine cannot be loaded, or ranks the pairs differently.
    """
    from scipy.stats import spearmanr

    reference = scores_and_close(load(engine, options, pairs), pairs)
    found = []
    exact = replace(options, vllm=replace(options.vllm, vllm_runner="generate"), ray=None)
    for name in installed_engines(options.model):
        if name == engine:
            continue
        scores = scores_of(name, exact, pairs)
        largest = float(np.abs(scores - reference).max())
        found.append(Parity(name, largest, float(spearmanr(scores, reference).statistic)))
    for parity in found:
        logger.info(
            "parity on %d pairs: %s differs from %s by up to %.3g (standard deviation of the scores: %.3g), "
            "rank correlation %.5f",
            len(pairs),
            parity.engine,
            engine,
            parity.largest,
            reference.std(),
            parity.correlation,
        )
    if not found:
        logger.info("parity: no other engine that is installed here runs %s", options.model.name)
    worst = min(found, key=lambda parity: parity.correlation, default=None)
    if worst and not worst.correlation >= LEAST_CORRELATION:
        raise EngineError(
            f"the engines {engine} and {worst.engine} rank {len(pairs)} pairs differently "
            f"(rank correlation {worst.correlation:.3f}, largest difference {worst.largest:.3g})",
            "Pass --dtype float32 to see whether it is rounding; else one of them computes this model wrongly",
        )
    return found
