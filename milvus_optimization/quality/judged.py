"""The queries of a corpus that somebody judged, which are all that is ranked and measured, in their two halves."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, Self

from milvus_optimization.quality.halves import FEW_TO_TUNE
from milvus_optimization.quality.measures import Halves
from rag_core.base.errors import DataError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs
from rag_core.corpora.corpus import DOCUMENTS, QRELS, QUERIES, Corpus, judge_of
from rag_core.metrics.differences import FEWEST_TO_COMPARE, ByQuery
from rag_core.metrics.ranking import Places, measure_places

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class JudgedArgs(BadRowsArgs):
    """Flags of a stage that measures by judgements."""

    vectors: Path = flag("folder that embed_corpus made", decides=False)
    qrels: Path | None = flag("judgements to use instead of the folder's, such as a teacher's", None, decides=False)
    tune_fraction: float = flag(
        "share of the judged queries to choose by; figures are of the others", 0.5, least=0, most=1
    )

    @property
    def judgements(self) -> Path:
        """The file that judges."""
        return self.qrels or self.vectors / QRELS

    @property
    def texts(self) -> list[Path]:
        """The files that are read besides vectors: documents, queries, and the judgements where there are any."""
        judged = [self.judgements] if self.qrels or self.judgements.exists() else []
        return [self.vectors / DOCUMENTS, self.vectors / QUERIES, *judged]


@dataclasses.dataclass(frozen=True)
class Judged:
    """The queries that have a relevant document, in the order of the corpus.

    Attributes:
        rows: their places among the queries of the corpus; `ids` in that order.
    """

    corpus: Corpus
    rows: list[int]
    ids: list[str]
    halves: Halves

    @classmethod
    def of(cls, corpus: Corpus, path: Path, tune_fraction: float) -> Self:
        """Find them, and warn where there are few to choose by.

        Args:
            path: of the qrels, for errors.

        Raises:
            DataError: there are no qrels, or too few of them on either half.
        """
        if not corpus.qrels:
            raise DataError(
                "has no qrels, and quality is measured by them",
                "Pass --qrels FILE: labels (query-id, corpus-id and score between tabs), or a teacher's judgement, "
                "which pool_candidates, generate_logits and judge_pool make",
                path=path.parent,
            )
        judged = {
            row: key for row, key in enumerate(corpus.queries) if max(corpus.qrels.get(key, {}).values(), default=0) > 0
        }
        halves = Halves.of(judged.values(), tune_fraction)
        tune, report = len(halves.tune), len(halves.report)
        if not tune or report < FEWEST_TO_COMPARE:
            raise DataError(
                f"judges {tune} queries to choose by and {report} to report on, and at least 1 and "
                f"{FEWEST_TO_COMPARE} are needed",
                "Judge more queries, or pass another --tune_fraction",
                path=path,
            )
        if tune < FEW_TO_TUNE:
            few = "%d judged queries to choose by are few: what they choose may be worse than a default. Judge %d"
            logger.warning(f"WARNING: {few}", tune, 2 * FEW_TO_TUNE)
        return cls(corpus, list(judged), list(judged.values()), halves)

    def facts(self, judgements: Path) -> dict[str, Any]:
        """Return what a manifest says of them."""
        halves = {"tune_queries": len(self.halves.tune), "report_queries": len(self.halves.report)}
        return {"judged_by": judge_of(judgements), **halves}

    @property
    def texts(self) -> list[str]:
        """The queries."""
        return [self.corpus.queries[query_id] for query_id in self.ids]

    def ndcg(self, places: Places) -> ByQuery:
        """Return query id -> nDCG@10 of rankings, best first, one per judged query; see `measure_places`."""
        documents = list(self.corpus.documents)
        return measure_places(self.corpus.qrels, self.ids, documents, places[:, :10], ("NDCG@10",))["NDCG@10"]
