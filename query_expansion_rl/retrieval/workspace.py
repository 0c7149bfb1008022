"""The folder that `rank_baselines` makes and every later stage starts from.

| file | holds |
|---|---|
| `documents.jsonl`, `queries.jsonl`, `qrels.tsv`, `<model>/*.npy` | the corpus and its vectors, as `rag_core.corpora` has them |
| `topics.jsonl` | `Topic` records, in the order of the queries |
| `rankings.jsonl` | `Ranking` records: what each way that needs no training found |
| `judgements.jsonl` | `Judgement` records: the label-free gains |
| `baselines.json` | a `Summary`: the retriever and its settings, what was tuned, the table |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from query_expansion_rl.records import Judgement, Ranking, Split, Topic
from query_expansion_rl.retrieval.searching import Encode, FusedSearcher, Searcher, VectorSearcher, WordSearcher
from rag_core.base.errors import DataError
from rag_core.corpora.corpus import Corpus, Vectors, read_corpus, read_vectors
from rag_core.files.inputs import read_json
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import check_inputs
from rag_core.retrieval.analyser import Analyser, Stemmer, StopWords

RetrieverName = Literal["bm25", "dense", "hybrid"]

TOPICS, RANKINGS, JUDGEMENTS, SUMMARY = "topics.jsonl", "rankings.jsonl", "judgements.jsonl", "baselines.json"
DEPTH = 100  # results of a ranking that are kept: recall@100 is the deepest figure


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class RetrieverSettings:
    """The user's retriever, and the others beside it.

    Attributes:
        retriever: the one that expansions are for.
        vectors: folder of the embedder's vectors, in the workspace; `None` without.
        dense_model: the embedder itself, which embeds expansions.
    """

    retriever: RetrieverName
    k1: FiniteFloat
    b: FiniteFloat
    bm25_stemmer: Stemmer | None = None
    bm25_stop_words: StopWords | None = None
    vectors: str | None = None
    dense_model: str | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Summary:
    """What `rank_baselines` settled and found; `baselines.json`.

    Attributes:
        teacher: who gave the judgements.
        tuned: way -> its parameters, chosen on the train queries.
        best: the best training-free way that needs no LLM, chosen on the dev queries.
        headroom: of the test queries, how much the oracle over the ways is above the retriever, nDCG@10.
        table: the rows that were printed.
    """

    retriever: RetrieverSettings
    teacher: str
    tuned: dict[str, dict[str, float]]
    best: str
    headroom: FiniteFloat | None
    table: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder, read."""

    folder: Path
    corpus: Corpus
    topics: list[Topic]
    summary: Summary

    @property
    def settings(self) -> RetrieverSettings:
        """The user's retriever."""
        return self.summary.retriever

    def of(self, split: Split) -> list[Topic]:
        """Return the topics of a split, in order."""
        return [topic for topic in self.topics if topic.split == split]

    def qrels(self, topics: Sequence[Topic]) -> dict[str, Mapping[str, int]]:
        """Return the judgements of people, of the topics that have a relevant passage."""
        return {
            topic.query_id: topic.relevant for topic in topics if topic.relevant and max(topic.relevant.values()) > 0
        }

    def gains(self) -> dict[str, dict[str, float]]:
        """Return query id -> passage id -> the teacher's gain."""
        found: dict[str, dict[str, float]] = {topic.query_id: {} for topic in self.topics}
        for one in read_records(self.folder / JUDGEMENTS, Judgement):
            found[one.query_id][one.passage_id] = one.gain
        return found

    def rankings(self) -> dict[str, dict[str, Ranking]]:
        """Return method -> query id -> its ranking."""
        found: dict[str, dict[str, Ranking]] = {}
        for one in read_records(self.folder / RANKINGS, Ranking):
            found.setdefault(one.method, {})[one.query_id] = one
        return found

    def vectors(self) -> Vectors:
        """Return the vectors of the embedder.

        Raises:
            DataError: there is none.
        """
        if self.settings.vectors is None:
            raise DataError("has no vectors", "Run rank_baselines with --dense_model", path=self.folder)
        return read_vectors(self.folder, self.settings.vectors, self.corpus)

    def searcher(self, name: RetrieverName, encode: Encode | None = None) -> Searcher:
        """Return a retriever over the corpus: that of the settings, or another.

        Args:
            encode: embeds expansions; needed for `dense` and `hybrid` as soon as there is one.
        """
        if name == "bm25":
            return self.word_searcher()
        if name == "dense":
            return self.vector_searcher(encode)
        return FusedSearcher([self.word_searcher(), self.vector_searcher(encode)])

    def word_searcher(self) -> WordSearcher:
        """Return BM25 over the corpus."""
        settings = self.settings
        analyser = Analyser(settings.bm25_stemmer, settings.bm25_stop_words)
        return WordSearcher(self.corpus.texts(), analyser, k1=settings.k1, b=settings.b)

    def vector_searcher(self, encode: Encode | None = None) -> VectorSearcher:
        """Return exact dense search over the corpus; the vectors of the queries themselves are known."""
        vectors = self.vectors()
        known = dict(zip(self.corpus.queries.values(), np.asarray(vectors.queries), strict=True))
        return VectorSearcher(vectors.documents, encode or _no_encoder, known)


def _no_encoder(texts: Sequence[str]) -> Any:
    raise DataError("an expansion is to be embedded, and no model is named", "Pass --dense_model")


def read_workspace(folder: Path) -> Workspace:
    """Read a workspace.

    Raises:
        DataError: a file is missing or damaged.
        StaleError: a file has changed since it was made.
    """
    check_inputs([folder / name for name in (TOPICS, SUMMARY)])
    corpus = read_corpus(folder)
    topics = list(read_records(folder / TOPICS, Topic))
    summary = read_json(folder / SUMMARY, "Run rank_baselines again")
    from pydantic import TypeAdapter

    return Workspace(folder, corpus, topics, TypeAdapter(Summary).validate_json(json.dumps(summary)))
