"""What a recommendation asks of a Milvus collection: its fields, its indexes, and how it is searched."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, get_args

from milvus_optimization.backends.space import check_setting, wide_enough
from milvus_optimization.records import Fusion, Normalisation, Recommendation, Setting
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.corpora.corpus import Corpus
from rag_core.retrieval.analyser import Analyser, Stemmer, StopWords

ID, TEXT, WORDS, DENSE, SPARSE = "id", "text", "words", "dense", "sparse"
"""The fields: `words` is what BM25 counts, `sparse` what Milvus makes of it."""

SCRATCH = "mo_"
_LEAST_ID = 512  # bytes; documents that come later may have longer ids than those there are
LONGEST = 65_535  # bytes of a VARCHAR


@dataclasses.dataclass(frozen=True)
class CollectionPlan:
    """How a collection is made and searched.

    Attributes:
        id_bytes: room for an id.
        index_type, index_parameters: of the vectors.
        search_parameters: as they were measured, for as few results as then.
        deep_parameters: the same, wide enough for `depth` results.
        fusion, normalisation, parameter: as in `RetrievalTrial`.
        depth: results of each search that is fused.
        k1, b, analyser: of BM25.
    """

    dimensions: int
    id_bytes: int
    index_type: str
    index_parameters: Setting
    search_parameters: Setting
    deep_parameters: Setting
    fusion: Fusion
    normalisation: Normalisation
    parameter: float
    depth: int
    k1: float
    b: float
    analyser: Analyser

    @property
    def uses_vectors(self) -> bool:
        """Whether vectors are searched."""
        return self.fusion != "bm25"

    @property
    def uses_words(self) -> bool:
        """Whether words are."""
        return self.fusion != "dense"

    def check(self, rows: int) -> None:
        """Check the parameters before Milvus sees them: milvus-lite takes any value, and -3 for M asks for 21 GB.

        Raises:
            UsageError: one is out of bounds.
        """
        check_setting(
            self.index_type,
            self.index_parameters,
            self.deep_parameters,
            rows=rows,
            dimensions=self.dimensions,
            k=self.depth,
        )

    @property
    def is_fused(self) -> bool:
        """Whether Milvus makes one ranking of two."""
        return self.uses_vectors and self.uses_words


def make_plan(recommendation: Recommendation, corpus: Corpus, results: int) -> CollectionPlan:
    """Return what a recommendation asks for.

    Args:
        results: how many documents a query is to get.

    Raises:
        DataError: the recommendation names settings that nobody knows, or that are not Milvus'.
    """
    index, retrieval = recommendation.index, recommendation.first_stage
    if retrieval.fusion == "weighted" and retrieval.normalisation not in ("arctan", "none"):
        what = f"Milvus has no weighted fusion of scores normalised by {quoted(repr(retrieval.normalisation))}"
        raise DataError(what, "Run recommend again")
    depth = min(max(retrieval.depth, results), len(corpus.documents))
    return CollectionPlan(
        dimensions=index.dimensions,
        id_bytes=_longest_id(corpus),
        index_type=index.index,
        index_parameters=index.build,
        search_parameters=index.search,
        deep_parameters=wide_enough(index.search, depth),
        fusion=retrieval.fusion,
        normalisation=retrieval.normalisation,
        parameter=retrieval.parameter or 0.0,
        depth=depth,
        k1=float(retrieval.bm25.get("k1", 0)),
        b=float(retrieval.bm25.get("b", 0)),
        analyser=_analyser(retrieval.bm25),
    )


def scratch_name(collection: str) -> str:
    """Return the name under which a collection is built before it takes its own."""
    return f"{SCRATCH}{hashlib.sha256(collection.encode()).hexdigest()[:12]}"


def words_of(plan: CollectionPlan, texts: list[str]) -> list[str]:
    """Return what BM25 is to count of each text, between spaces: the words that its settings were measured with.

    Milvus' analyser `standard` finds them again. Its own stemmers are another matter: milvus-lite has none, and
    takes one that is asked for without a word.
    """
    return [" ".join(terms) for terms in plan.analyser.terms(texts)]


def check_lengths(texts: dict[str, str]) -> None:
    """Check that texts fit a field.

    Raises:
        DataError: one does not.
    """
    for key, text in texts.items():
        if len(text) * 4 > LONGEST and (size := len(text.encode())) > LONGEST:
            raise DataError(
                f"the text of document {quoted(repr(key), 60)} has {size:,} bytes, and a field holds {LONGEST:,}",
                "Split the document",
            )


def _longest_id(corpus: Corpus) -> int:
    return max(_LEAST_ID, *(len(key.encode()) for key in corpus.documents))


def _analyser(bm25: Setting) -> Analyser:
    stemmer, stop_words = bm25.get("stemmer"), bm25.get("stop_words")
    for name, value, known in (
        ("stemmer", stemmer, get_args(Stemmer)),
        ("stop words", stop_words, get_args(StopWords)),
    ):
        if value is not None and value not in known:
            raise DataError(
                f"the recommendation names {name} that are not known: {quoted(repr(value))}", "Run recommend again"
            )
    settings: dict[str, Any] = {"bm25_stemmer": stemmer, "bm25_stop_words": stop_words}
    return Analyser(**settings)
