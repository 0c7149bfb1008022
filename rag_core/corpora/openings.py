"""Where a corpus comes from: a folder in the BEIR layout, or a file of samples whose passages are the corpus."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rag_core.base.errors import DataError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.records import Document, Query
from rag_core.corpora.corpus import Corpus
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import iterate_samples, read_by_id
from rag_core.files.qrels import read_qrels
from rag_core.sources.beir import find_part, find_qrels

_ID_LENGTH = 32  # hex digits, 128 bits: no two passages share them

logger = logging.getLogger(__name__)


class CorpusInput(Protocol):
    """An input knows its files before anything is read."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that it reads."""

    def read(self, bad_rows: BadRows) -> Corpus:
        """Read all.

        Raises:
            DataError: a row is bad and not left out, an id stands twice, or there is no document or query.
        """


def open_corpus(path: Path, splits: Sequence[str] | None) -> CorpusInput:
    """Find the files of an input.

    Raises:
        UsageError: `splits` are asked for of a file, or one has no qrels.
        DataError: a folder lacks its corpus or its queries.
    """
    if path.is_dir():
        return BeirCorpus(path, splits)
    if splits:
        raise UsageError("--splits is for a folder in the BEIR layout", "Leave it out, or pass the folder")
    return SampleCorpus(path)


class JudgedFiles:
    """Documents of one or more files, and the queries that any of the qrels judges; all where there are no qrels."""

    def __init__(self, corpora: Sequence[Path], queries: Path, qrels: Sequence[Path]) -> None:
        self._corpora, self._queries, self._qrels = list(corpora), queries, list(qrels)
        self.files = [*self._corpora, self._queries, *self._qrels]

    def read(self, bad_rows: BadRows) -> Corpus:
        documents: dict[str, Document] = {}
        for path in self._corpora:
            more = read_by_id(path, Document, bad_rows=bad_rows)
            if both := documents.keys() & more.keys():
                what = f"_id {quoted(repr(min(both)))} stands in another of the corpus files, too"
                raise DataError(what, "Keep one of them", path=path)
            documents |= more
        queries = read_by_id(self._queries, Query, bad_rows=bad_rows)
        qrels: dict[str, dict[str, int]] = {}
        for path in self._qrels:
            for query_id, judged in read_qrels(path, queries=queries, documents=documents, bad_rows=bad_rows).items():
                known = qrels.setdefault(query_id, {})
                known |= {key: max(grade, known.get(key, grade)) for key, grade in judged.items()}
        kept = {key: query.text for key, query in queries.items() if key in qrels or not self._qrels}
        if len(kept) < len(queries):
            logger.info("%s: %d queries that no qrels judge are left out", self._queries, len(queries) - len(kept))
        return Corpus(documents, kept, {key: qrels[key] for key in kept if key in qrels})


class BeirCorpus(JudgedFiles):
    """A folder: the documents, and the queries that are judged in any of the splits; all where there are no qrels."""

    def __init__(self, folder: Path, splits: Sequence[str] | None) -> None:
        corpus, queries = find_part(folder, "corpus"), find_part(folder, "queries")
        known = find_qrels(folder)
        for split in splits or ():
            if split not in known:
                there = f"one of: {', '.join(known)}" if known else "none, since there are no qrels"
                raise UsageError(f"{folder} has no qrels/{quoted(split)}.tsv", f"Pass --splits with {there}")
        super().__init__([corpus], queries, [path for split, path in known.items() if split in (splits or known)])


class SampleCorpus:
    """The distinct passages of RankingSample records; positives answer their query with grade 1.

    The id of a passage is the start of its SHA-256. Negatives are mined for the most part, and nobody judged them.
    """

    def __init__(self, path: Path, *more: Path) -> None:
        """Keep the paths.

        Args:
            more: files whose passages are in the corpus, too; their queries are not asked.
        """
        self._asked = path
        self.files = [path, *more]

    def read(self, bad_rows: BadRows) -> Corpus:
        documents: dict[str, Document] = {}
        queries: dict[str, str] = {}
        qrels: dict[str, dict[str, int]] = {}
        for path in self.files:
            for _, sample in iterate_samples(path, bad_rows=bad_rows):
                key = sample.query_id or ""
                found = {text: _id_of(text) for text, _ in sample.passages()}
                for text, document_id in found.items():
                    documents.setdefault(document_id, Document(id=document_id, text=text))
                if path != self._asked:
                    continue
                queries[key] = sample.query
                if positive := {found[text]: 1 for text, label in sample.passages() if label}:
                    qrels[key] = positive
        return Corpus(documents, queries, qrels)


def query_records(corpus: Corpus) -> list[Query]:
    """Return the queries as they are written."""
    return [Query(text=text, id=key) for key, text in corpus.queries.items()]


def _id_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]
