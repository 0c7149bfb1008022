"""Every way to search that needs no training and no LLM, over all queries, with what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from query_expansion_rl.retrieval.feedback import DenseFeedback, RelevanceModels, Rm3, dense_feedback, rm3_bags
from query_expansion_rl.retrieval.searching import ExpandedQuery, Floats, Found, VectorSearcher, WordSearcher
from query_expansion_rl.retrieval.workspace import DEPTH
from rag_core.retrieval.dense import nearest
from rag_core.retrieval.fusion import fuse


@dataclass
class Ways:
    """The rankings of the queries, way by way, each searched once.

    Attributes:
        vectors: `None` where there is no embedder.
        found: way -> places and scores of each query; shape (queries, 100) each.
        parts: way -> itself and all that it is made from, each of which is searched once.
        milliseconds: way -> CPU time of a query, with that of the rankings that it is made from, and without that of
            embedding the query.
    """

    queries: Sequence[str]
    words: WordSearcher
    vectors: VectorSearcher | None
    found: dict[str, Found] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models = RelevanceModels(self.words)
        self._own: dict[str, float] = {}  # way -> CPU ms of what it does itself
        self.parts: dict[str, set[str]] = {}
        self._query_vectors: Floats | None = None
        if self.vectors:
            self._query_vectors = self.vectors.vectors([ExpandedQuery(query) for query in self.queries])

    @property
    def query_vectors(self) -> Floats:
        """The vectors of the queries; shape (queries, dimensions)."""
        assert self._query_vectors is not None
        return self._query_vectors

    def search(self) -> None:
        """Search by words and by vectors, and fuse: the ways `bm25`, `dense` and `hybrid`."""
        self._keep("bm25", lambda: self.words.search([ExpandedQuery(query) for query in self.queries], DEPTH))
        if vectors := self.vectors:
            self._keep("dense", lambda: nearest(self.query_vectors, vectors.documents, DEPTH))
            self._fuse("hybrid", "bm25", "dense")

    def feed_back(self, tuned: Mapping[str, Rm3 | DenseFeedback]) -> None:
        """Search with feedback, and fuse: the other ways.

        Args:
            tuned: settings of `rm3`, whose feedback passages are from BM25; with vectors also of `rm3_hybrid`, whose
                are from the hybrid, and of `dense_prf`.
        """
        self._rm3("rm3_default", "bm25", Rm3())
        self._rm3("rm3", "bm25", tuned["rm3"])
        self._fuse("rrf_bm25_rm3", "bm25", "rm3")
        if self.vectors is None:
            return
        self._rm3("rm3_hybrid", "hybrid", tuned["rm3_hybrid"])
        self._dense(self.vectors.documents, tuned["dense_prf"])
        self._fuse("rrf_rm3_dense", "rm3", "dense")
        self._fuse("rrf_rm3_hybrid_dense", "rm3_hybrid", "dense")

    def _dense(self, documents: Floats, settings: Rm3 | DenseFeedback) -> None:
        assert isinstance(settings, DenseFeedback)

        def search() -> Found:
            moved = dense_feedback(self.query_vectors, documents, self.found["dense"][0], settings)
            return nearest(moved, documents, DEPTH)

        self._keep("dense_prf", search, "dense")

    def _rm3(self, name: str, feedback: str, settings: Rm3 | DenseFeedback) -> None:
        assert isinstance(settings, Rm3)

        def search() -> Found:
            return self.words.search_weighted(
                rm3_bags(self.models, self.queries, self.found[feedback], settings), DEPTH
            )

        self._keep(name, search, feedback)

    def _fuse(self, name: str, *parts: str) -> None:
        self._keep(name, lambda: fuse([self.found[part][0] for part in parts], DEPTH), *parts)

    def _keep(self, name: str, search: Callable[[], Found], *made_from: str) -> None:
        started = time.process_time()
        places, scores = search()
        spent = (time.process_time() - started) * 1000 / len(self.queries)
        self.found[name] = places, np.round(scores, 6)
        self._own[name] = spent
        self.parts[name] = {name}.union(*(self.parts[part] for part in made_from))
        self.milliseconds[name] = sum(self._own[part] for part in self.parts[name])
