"""What dense search and BM25 find for each query, before anything is fused."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_core.retrieval.analyser import Analyser
from rag_core.retrieval.bm25 import BM25
from rag_core.retrieval.dense import nearest

Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Documents of each query, best first.

    Attributes:
        places: of documents, -1 where nothing more was found; shape (queries, results).
        scores: as Milvus gives them, -inf there; the same shape.
    """

    places: Places
    scores: Floats


class WordSearch:
    """BM25 over the documents, whose words are found once for all k1 and b."""

    def __init__(self, texts: Sequence[str], analyser: Analyser) -> None:
        self._texts = texts
        self._analyser = analyser
        self._terms = analyser.terms(texts)

    def rank(self, queries: Sequence[str], depth: int, k1: float, b: float) -> tuple[Ranking, float]:
        """Return the best documents of each query that share a word with it, ties by place, and CPU ms of a query."""
        index = BM25(self._texts, self._analyser, k1=k1, b=b, terms=self._terms)
        depth = min(depth, len(self._texts))
        places = np.full((len(queries), depth), -1, dtype=np.int64)
        scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
        started = time.process_time()
        for row, query in enumerate(queries):
            best, values = index.nearest(query, depth)
            places[row, : len(best)], scores[row, : len(best)] = best, values
        milliseconds = (time.process_time() - started) * 1000 / len(queries)
        # Milvus keeps the factor k1 + 1 of the paper. No order changes, but what the arc tangent makes of a score does.
        return Ranking(places, scores * np.float32(k1 + 1)), milliseconds


def dense_ranking(queries: Floats, documents: Floats, depth: int) -> Ranking:
    """Return the documents with the highest cosines of each query; vectors of length 1, shape (rows, dimensions)."""
    return Ranking(*nearest(queries, documents, min(depth, len(documents))))
