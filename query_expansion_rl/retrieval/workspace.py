"""The folder that `rank_baselines` makes and every later stage starts from.

| file | holds |
|---|---|
| `documents.jsonl`, `queries.jsonl`, `qrels.tsv`, `<model>/*.npy` | the corpus and vectors, see `rag_core.corpora` |
| `topics.jsonl` | `Topic` records, in the order of the queries |
| `rankings.jsonl` | `Ranking` records: what each way that needs no training found, way by way |
| `judgements.jsonl` | `Judgement` records: the label-free gains, best first |
| `baselines.json` | a `Summary`: the retriever and its settings, what was tuned, the table |
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from query_expansion_rl.records import Judgement, Ranking, Split, Topic
from query_expansion_rl.retrieval.searching import Encode, FusedSearcher, Searcher, VectorSearcher, WordSearcher
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.corpora.corpus import DOCUMENTS, Corpus, read_corpus, read_vectors
from rag_core.files.inputs import read_whole
from rag_core.files.jsonl import numbered_records
from rag_core.files.manifest import UNKNOWN, check_inputs, read_manifest
from rag_core.retrieval.analyser import Analyser, Stemmer, StopWords

_AGAIN = "Run rank_baselines again"

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
    k1: Annotated[FiniteFloat, Field(ge=0)]
    b: Annotated[FiniteFloat, Field(ge=0, le=1)]
    bm25_stemmer: Stemmer | None = None
    bm25_stop_words: StopWords | None = None
    vectors: str | None = None
    dense_model: str | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Summary:
    """What `rank_baselines` settled and found; `baselines.json`.

    Attributes:
        teacher: who gave the judgements: "hybrid", or the name of a model.
        judge_top: how many passages of a query have a gain, at most.
        tuned: way -> its parameters, chosen on the train queries.
        tuned_by: what tells which parameters are best.
        measured_by: what `best` is chosen by, and the table is measured by.
        best: the best training-free way that needs no LLM.
        best_on: the queries that it was chosen on: "dev", or "train and dev" where those are few.
        headroom: of the test queries, how much the oracle over the ways is above the retriever, nDCG@10.
        figures: way -> metric -> mean over the test queries.
        table: rows as printed, the head first, without the times, which are in the manifest of the rankings.
        advice: what to use, in a sentence.
    """

    retriever: RetrieverSettings
    teacher: str
    judge_top: Annotated[int, Field(ge=1, le=100)]
    tuned: dict[str, dict[str, float]]
    tuned_by: Literal["qrels", "judge"]
    measured_by: Literal["qrels", "judge"]
    best: str
    best_on: str
    headroom: FiniteFloat | None
    figures: dict[str, dict[str, FiniteFloat]]
    table: list[list[str]]
    advice: str


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
        return labels_of(topics)

    def gains(self) -> dict[str, dict[str, float]]:
        """Return query id -> passage id -> the teacher's gain.

        Raises:
            DataError: a row is bad, stands twice, or is of a query or passage that is not in the workspace.
        """
        found: dict[str, dict[str, float]] = {topic.query_id: {} for topic in self.topics}
        path = self.folder / JUDGEMENTS
        for line, one in numbered_records(path, Judgement, None):
            if fault := self.unknown(one.query_id, [one.passage_id]):
                raise DataError(fault, _AGAIN, path=path, line=line)
            if one.passage_id in found[one.query_id]:
                what = f"query_id {quoted(repr(one.query_id))} has {quoted(repr(one.passage_id))} twice"
                raise DataError(what, "Keep one of them", path=path, line=line)
            found[one.query_id][one.passage_id] = one.gain
        return found

    def rankings(self) -> dict[str, dict[str, Ranking]]:
        """Return method -> query id -> its ranking.

        Raises:
            DataError: as `gains`.
        """
        found: dict[str, dict[str, Ranking]] = {}
        path = self.folder / RANKINGS
        for line, one in numbered_records(path, Ranking, None):
            if fault := self.unknown(one.query_id, one.passages):
                raise DataError(fault, _AGAIN, path=path, line=line)
            rows = found.setdefault(one.method, {})
            if one.query_id in rows:
                what = f"query_id {quoted(repr(one.query_id))} has two rankings by {quoted(repr(one.method))}"
                raise DataError(what, "Keep one of them", path=path, line=line)
            rows[one.query_id] = one
        return found

    def unknown(self, query_id: str, passages: Sequence[str]) -> str | None:
        """Say which of the ids of a row is not in the workspace; `None` where all are."""
        if query_id not in self._query_ids:
            return f"query_id {quoted(repr(query_id))} is not in {TOPICS}"
        unknown = next((key for key in passages if key not in self.corpus.documents), None)
        return None if unknown is None else f"the passage {quoted(repr(unknown))} is not in {DOCUMENTS}"

    @functools.cached_property
    def _query_ids(self) -> frozenset[str]:
        return frozenset(topic.query_id for topic in self.topics)

    def milliseconds(self) -> dict[str, float]:
        """Return way -> CPU time of a query, without embedding it."""
        return (read_manifest(self.folder / RANKINGS) or UNKNOWN).numbers("milliseconds")

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
        return word_searcher(self.corpus, self.settings)

    def vector_searcher(self, encode: Encode | None = None) -> VectorSearcher:
        """Return exact dense search over the corpus; the vectors of the queries themselves are known.

        Raises:
            DataError: there are no vectors.
        """
        if self.settings.vectors is None:
            raise DataError("has no vectors", "Run rank_baselines with --dense_model", path=self.folder)
        return vector_searcher(self.folder, self.corpus, self.settings.vectors, encode)


def word_searcher(corpus: Corpus, settings: RetrieverSettings) -> WordSearcher:
    """Return BM25 over a corpus."""
    analyser = Analyser(settings.bm25_stemmer, settings.bm25_stop_words)
    return WordSearcher(corpus.texts(), analyser, k1=settings.k1, b=settings.b)


def vector_searcher(folder: Path, corpus: Corpus, model: str, encode: Encode | None = None) -> VectorSearcher:
    """Return exact search over the vectors of a model in the folder of a corpus.

    Args:
        encode: embeds texts other than the queries of the corpus.
    """
    vectors = read_vectors(folder, model, corpus)
    known = dict(zip(corpus.queries.values(), np.asarray(vectors.queries), strict=True))
    return VectorSearcher(vectors.documents, encode or _no_encoder, known)


def _no_encoder(texts: Sequence[str]) -> Any:
    raise DataError("an expansion is to be embedded, and no model is named", "Pass --dense_model")


def labels_of(topics: Iterable[Topic]) -> dict[str, Mapping[str, int]]:
    """Return the judgements of people, of the topics that have a relevant passage."""
    return {topic.query_id: topic.relevant for topic in topics if topic.relevant and max(topic.relevant.values()) > 0}


def read_workspace(folder: Path) -> Workspace:
    """Read a workspace.

    Raises:
        DataError: a file is missing or damaged.
        StaleError: a file has changed since it was made.
    """
    check_inputs([folder / name for name in (TOPICS, SUMMARY)])
    corpus = read_corpus(folder)
    return Workspace(folder, corpus, read_topics(folder / TOPICS), _read_summary(folder / SUMMARY))


def read_topics(path: Path) -> list[Topic]:
    """Read the topics of a workspace.

    Raises:
        DataError: a row is bad, or an id stands twice.
    """
    found: dict[str, Topic] = {}
    for line, topic in numbered_records(path, Topic, None):
        if topic.query_id in found:
            what = f"query_id {quoted(repr(topic.query_id))} stands in more than one row"
            raise DataError(what, "Keep one of them", path=path, line=line)
        found[topic.query_id] = topic
    return list(found.values())


def _read_summary(path: Path) -> Summary:
    try:
        return TypeAdapter(Summary).validate_json(read_whole(path, _AGAIN))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = quoted(": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]])))
        raise DataError(f"is no summary of rank_baselines ({fault})", _AGAIN, path=path) from error
