"""The queries of a corpus that somebody judged, which are all that is ranked and measured, in their two halves."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Self

from milvus_optimization.corpus.corpus import Corpus, judged_queries
from milvus_optimization.quality.halves import FEW_TO_TUNE, FEWEST_TO_TUNE
from milvus_optimization.quality.measures import Halves
from rag_core.base.errors import DataError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Judged:
    """Judged queries.

    Attributes:
        rows: their places among the queries of the corpus; `ids` and `texts` in that order.
    """

    corpus: Corpus
    rows: list[int]
    ids: list[str]
    texts: list[str]
    halves: Halves

    @classmethod
    def of(cls, corpus: Corpus, qrels: Path, tune_fraction: float) -> Self:
        """Find them, and say where there are few to choose by.

        Args:
            qrels: where the judgements stand, for errors.

        Raises:
            DataError: there are no qrels, or a half has no query.
        """
        queries = list(corpus.queries)
        rows = judged_queries(corpus.qrels, queries)
        ids = [queries[row] for row in rows]
        if not rows:
            raise DataError("no such file", "Give embed_corpus a corpus with qrels", path=qrels)
        halves = Halves.of(ids, tune_fraction)
        tune = len(halves.tune)
        if not (tune and halves.report):
            raise DataError(
                f"judges {len(rows)} queries: {tune} to choose by, {len(halves.report)} to report on",
                "Judge more queries, or pass another --tune_fraction",
                path=qrels,
            )
        if tune < FEWEST_TO_TUNE:
            logger.warning(
                "WARNING: %d queries to choose by are fewer than %d: the defaults are measured, and no fusion is tuned",
                tune,
                FEWEST_TO_TUNE,
            )
        elif tune < FEW_TO_TUNE:
            logger.warning(
                "WARNING: %d queries to choose by are few, what they choose may be worse than a default. Judge %d",
                tune,
                2 * FEW_TO_TUNE,
            )
        return cls(corpus, rows, ids, [corpus.queries[query_id] for query_id in ids], halves)
