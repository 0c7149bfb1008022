"""Which way to rank is chosen, the defaults that it is held against, and whether it is better than they are.

The choice is made by the tune half, and so is the best default. Figures are of the report half, which had no say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from milvus_optimization.quality.halves import FEWEST_TO_TUNE
from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import Fusion, Normalisation, RetrievalTrial, Setting, Verdict
from rag_core.base.errors import DataError
from rag_core.metrics.differences import Difference, difference
from rag_core.retrieval.bm25 import K1, B
from rag_core.retrieval.fusion import RANK_CONSTANT

Target = Literal["lite", "server"]

# What somebody would set without tuning. A Milvus server has k1 1.2 where nothing is said, milvus-lite 1.5.
DEFAULT_K, DEFAULT_WEIGHT, DEFAULT_DEPTH = RANK_CONSTANT, 0.5, 100
DEFAULT_K1, DEFAULT_B = K1, B

# How Milvus normalises the scores of a weighted sum, if it is to. milvus-lite 3.2.2 has the server's functions; the
# min-max in its sources is unused.
WEIGHTED_BY: dict[Target, Normalisation] = {"lite": "arctan", "server": "arctan"}

_SIMPLEST_FIRST: tuple[Fusion, ...] = ("dense", "bm25", "rrf", "weighted")
_TIE = 1e-9  # of means whose values have 6 decimals


def choose(trials: Sequence[RetrievalTrial], target: Target) -> RetrievalTrial:
    """Return the best by the tune half of those that a target can do; of equal ones the simplest.

    Simpler is without a reranker, of fewer reranked, of fewer rankings, of fewer candidates, and what stands first.

    Args:
        trials: of one model or several; leave out before what is not to be chosen.

    Raises:
        DataError: the target can do none of them.
    """
    allowed = [trial for trial in trials if is_for(trial, target)]
    if not allowed:
        raise DataError(f"no way to rank was measured that a {target} target can do", "Run tune_retrieval again")
    best = max(trial.ndcg_tune for trial in allowed)
    return min((trial for trial in allowed if trial.ndcg_tune >= best - _TIE), key=_complexity)


def is_for(trial: RetrievalTrial, target: Target) -> bool:
    """Tell whether a target can do it."""
    return trial.normalisation in ("none", "rank", WEIGHTED_BY[target])


def family_of(trial: RetrievalTrial) -> tuple[str | None, ...]:
    """Return what trials have in common of which one is a variation of another."""
    return trial.model, trial.fusion, trial.normalisation, trial.reranker


def best_of_families(trials: Sequence[RetrievalTrial]) -> list[RetrievalTrial]:
    """Return the best by the tune half of each family, in the order of the families; the first of equal ones."""
    best: dict[tuple[str | None, ...], RetrievalTrial] = {}
    for trial in trials:
        family = family_of(trial)
        if family not in best or trial.ndcg_tune > best[family].ndcg_tune:
            best[family] = trial
    return list(best.values())


def defaults(trials: Sequence[RetrievalTrial], target: Target, model: str) -> dict[str, RetrievalTrial]:
    """Return what is set without tuning: "dense only", "RRF 60" and "equal weights", the latter of 100 candidates each.

    Raises:
        DataError: one was not measured for the model.
    """
    wanted: dict[str, Callable[[RetrievalTrial], bool]] = {
        "dense only": lambda trial: trial.fusion == "dense",
        "RRF 60": lambda trial: trial.fusion == "rrf" and trial.parameter == DEFAULT_K and _is_plain(trial),
        "equal weights": lambda trial: (
            trial.normalisation == WEIGHTED_BY[target] and trial.parameter == DEFAULT_WEIGHT and _is_plain(trial)
        ),
    }
    own = [trial for trial in trials if trial.model == model and trial.reranker is None]
    found = {name: next(filter(is_it, own), None) for name, is_it in wanted.items()}
    if missing := [name for name, trial in found.items() if trial is None]:
        raise DataError(f"the trials of {model} lack: {', '.join(missing)}", "Run tune_retrieval again for this model")
    return {name: trial for name, trial in found.items() if trial is not None}


def against(
    choice: RetrievalTrial, defaults: Mapping[str, RetrievalTrial], report_queries: Sequence[str], seed: int
) -> dict[str, Difference]:
    """Return default -> the choice minus it on the report half, which has at least 2 queries."""
    return {
        name: difference(default.by_query, choice.by_query, report_queries, seed) for name, default in defaults.items()
    }


def best_default(defaults: Mapping[str, RetrievalTrial]) -> str:
    """Return the name of the default that is best by the tune half; the first of equal ones."""
    return max(defaults, key=lambda name: defaults[name].ndcg_tune)


def verdict(choice: RetrievalTrial, defaults: Mapping[str, RetrievalTrial], halves: Halves, seed: int) -> Verdict:
    """Say how the choice compares with the best default, by the 95 % interval on the report half."""
    if len(halves.tune) < FEWEST_TO_TUNE:
        return "too few queries"
    found = difference(defaults[best_default(defaults)].by_query, choice.by_query, halves.report, seed)
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "equal"


def _is_plain(trial: RetrievalTrial) -> bool:
    return trial.depth == DEFAULT_DEPTH and is_default_bm25(trial.bm25)


def is_default_bm25(bm25: Setting) -> bool:
    """Tell whether k1 and b are those of Milvus where nothing is said."""
    return math.isclose(float(bm25["k1"]), DEFAULT_K1) and math.isclose(float(bm25["b"]), DEFAULT_B)


def _complexity(trial: RetrievalTrial) -> tuple[int, int, int]:
    return trial.reranker_depth, _SIMPLEST_FIRST.index(trial.fusion), trial.depth
