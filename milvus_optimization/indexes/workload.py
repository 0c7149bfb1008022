"""What every trial of a sweep searches for, and by what it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from milvus_optimization.quality.judged import Judged
from milvus_optimization.quality.measures import Halves
from rag_core.base.records import Qrels
from rag_core.corpora.corpus import Vectors

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Workload:
    """Queries and judgements.

    Attributes:
        queries: of those that are searched for; shape (queries, dimensions).
        timed: which rows of `queries` are timed, and recall is taken of.
        judged: which rows have qrels, and `judged_ids` their ids.
        relevant: judged query id -> places of the documents that are relevant.
        halves: of the judged queries.
        k: results of a query.
        seed: of the order of queries and of intervals.
        known: query id and places found -> what they are worth; settings agree on most queries.
    """

    queries: Floats
    timed: Places
    judged: Places
    judged_ids: Sequence[str]
    document_ids: Sequence[str]
    qrels: Qrels
    relevant: Mapping[str, Places]
    halves: Halves
    k: int
    seed: int
    known: dict[tuple[str, bytes], list[float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, judged: Judged, vectors: Vectors, *, timed: int, k: int, seed: int) -> Self:
        """Draw the queries that are timed, judged ones first; judged ones that are not timed are searched for, too.

        Args:
            timed: how many.
        """
        drawn = np.random.default_rng(seed).permutation(len(judged.corpus.queries))
        chosen = drawn[np.argsort(~np.isin(drawn, judged.rows), kind="stable")][:timed]
        searched = np.union1d(chosen, np.array(judged.rows, dtype=np.int64))
        return cls(
            queries=np.ascontiguousarray(vectors.queries[searched]),
            timed=np.searchsorted(searched, np.sort(chosen)),
            judged=np.searchsorted(searched, judged.rows),
            judged_ids=judged.ids,
            document_ids=list(judged.corpus.documents),
            qrels=judged.corpus.qrels,
            relevant=_relevant_places(judged),
            halves=judged.halves,
            k=k,
            seed=seed,
        )

    @property
    def reported(self) -> Places:
        """The rows of `queries` that have qrels and are of the report half."""
        row_of = dict(zip(self.judged_ids, self.judged.tolist(), strict=True))
        return np.array([row_of[query_id] for query_id in self.halves.report], dtype=np.int64)

    def without_judgements(self) -> Workload:
        """Return it for a part of the documents, of which the qrels say nothing."""
        return dataclasses.replace(
            self,
            queries=self.queries[self.timed],
            timed=np.arange(len(self.timed)),
            judged=np.array([], dtype=np.int64),
            judged_ids=[],
            qrels={},
            relevant={},
            halves=Halves([], []),
            known={},
        )


def _relevant_places(judged: Judged) -> dict[str, Places]:
    place_of = {document_id: place for place, document_id in enumerate(judged.corpus.documents)}
    return {
        query_id: np.array(
            [place_of[key] for key, grade in judged.corpus.qrels[query_id].items() if grade > 0], dtype=np.int64
        )
        for query_id in judged.ids
    }
