"""An index, a way to rank and a difference as one says them in a sentence."""

from __future__ import annotations

from pathlib import PurePath

from milvus_optimization.indexes.table import named
from milvus_optimization.records import IndexTrial, RetrievalTrial
from rag_core.base.outside_text import quoted
from rag_core.base.tables import format_difference
from rag_core.metrics.differences import Difference


def index_name(trial: IndexTrial) -> str:
    """Return an index, as in `HNSW (M 16, efConstruction 100, ef 64)`."""
    parameters = named(trial.build | trial.search)
    return f"{trial.index} ({parameters})" if parameters else trial.index


def retrieval_name(trial: RetrievalTrial) -> str:
    """Return a way to rank, as in `weighted fusion (0.4 dense, 0.6 BM25) of 100 candidates each`."""
    parameter = trial.parameter or 0.0
    named = {
        "dense": "dense only",
        "bm25": "BM25 only",
        "rrf": f"rank fusion (RRF, k {parameter:g}) of {trial.depth} candidates each",
        "weighted": f"weighted fusion ({parameter:g} dense, {1 - parameter:g} BM25) of {trial.depth} candidates each",
    }[trial.fusion]
    return named if trial.reranker is None else f"{named}, the first {trial.reranker_depth} reranked by {_short(trial)}"


def _short(trial: RetrievalTrial) -> str:
    return quoted(PurePath(trial.reranker or "").name or "?", 60)


def bm25_name(trial: RetrievalTrial) -> str:
    """Return BM25's settings, as in `k1 1.2, b 0.75, stemmer english`; nothing where it has no part."""
    shown = {name: value for name, value in trial.bm25.items() if name != "analyser"}  # a version of ours
    return ", ".join(f"{name.replace('_', ' ')} {quoted(str(value), 60)}" for name, value in shown.items())


def difference_text(difference: Difference) -> str:
    """Return a difference and its interval, as in `+0.0123 [+0.0010, +0.0236]`."""
    return format_difference(difference.difference, difference.low, difference.high)
