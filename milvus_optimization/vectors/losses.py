"""What other forms of a model's vectors lose: each is searched exactly, as it is and with its best results rescored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from milvus_optimization.quality.judged import Judged
from milvus_optimization.quality.recall import Neighbours, true_scores
from milvus_optimization.records import VectorVariant
from milvus_optimization.vectors.variants import Variant, make_variant
from rag_core.base.tables import format_difference, format_rows
from rag_core.corpora.corpus import Vectors
from rag_core.metrics.differences import ByQuery, difference
from rag_core.retrieval.dense import Floats, Places, nearest, scores_at

COUNT = 10  # results of a query, as many as nDCG@10 reads
_WITHOUT_LOSS = ("float32", "float16")  # of these, rescoring finds nothing


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Exact search over the vectors of a model as they are, for the judged queries.

    Attributes:
        queries: vectors of the judged queries; shape (queries, dimensions).
        exact: what it finds for these.
        by_query: query id -> nDCG@10.
    """

    judged: Judged
    vectors: Vectors
    queries: Floats
    exact: Neighbours
    by_query: ByQuery

    @classmethod
    def of(cls, judged: Judged, vectors: Vectors) -> Self:
        """Search for all judged queries."""
        queries = np.asarray(vectors.queries[judged.rows])
        places, scores = nearest(queries, vectors.documents, COUNT)
        return cls(judged, vectors, queries, Neighbours.of(scores), judged.ndcg(places))

    def measure(self, name: str, rescore: Sequence[int], seed: int) -> Iterator[VectorVariant]:
        """Make a variant, search it once, and yield a record for each number of candidates per result.

        Args:
            rescore: how many candidates per result the full vectors order; 0 for none. A variant without loss has 0.
            seed: of the intervals.
        """
        variant = make_variant(name, np.asarray(self.vectors.documents))
        numbers = [0] if name in _WITHOUT_LOSS else sorted(set(rescore))
        found, _ = nearest(variant.queries(self.queries), variant.documents, COUNT * max(1, *numbers))
        for number in numbers:
            yield self._record(variant, number, self._rescored(found[:, : COUNT * number]) if number else found, seed)

    def _rescored(self, candidates: Places) -> Places:
        candidates = np.sort(candidates, axis=1)  # so that ties go by place
        order = np.argsort(-scores_at(self.queries, self.vectors.documents, candidates), axis=1, kind="stable")
        return np.take_along_axis(candidates, order, axis=1)

    def _record(self, variant: Variant, number: int, found: Places, seed: int) -> VectorVariant:
        places = found[:, :COUNT]
        ndcg, halves = self.judged.ndcg(places), self.judged.halves
        report, tune = halves.means(ndcg)
        return VectorVariant(
            model=self.vectors.model,
            variant=variant.name,
            rescore=number,
            dimensions=variant.dimensions,
            bytes_per_vector=variant.bytes_per_vector,
            overlap=self.exact.recall(true_scores(self.queries, self.vectors.documents, places)),
            ndcg=report,
            ndcg_tune=tune,
            loss=difference(self.by_query, ndcg, halves.report, seed),
            by_query=ndcg,
        )


def format_variants(found: Sequence[VectorVariant]) -> str:
    """Return a table of variants; losses are of the report half."""
    head = ["model", "variant", "rescored", "bytes", "overlap@10", "nDCG@10", "loss [95 %]", "better", "worse"]
    rows = [
        [
            one.model,
            one.variant,
            str(COUNT * one.rescore) if one.rescore else "-",
            str(one.bytes_per_vector),
            f"{one.overlap:.3f}",
            f"{one.ndcg:.4f}",
            "-" if one.variant == "float32" else format_difference(one.loss.difference, one.loss.low, one.loss.high),
            str(one.loss.better),
            str(one.loss.worse),
        ]
        for one in found
    ]
    return format_rows([head, *rows])
