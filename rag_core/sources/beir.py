"""A local folder in the layout of BEIR: `corpus.jsonl`, `queries.jsonl` (or `.gz`), `qrels/<split>.tsv`.

Positives are the documents judged above 0; negatives are the BM25 top of the whole corpus without them,
unjudged for the most part, as is usual for mined candidates.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rag_core.base.errors import DataError
from rag_core.base.records import Document, RankingSample, Text, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_lines, read_records
from rag_core.retrieval.bm25 import nearest_passages
from rag_core.sources.splits import Splits

_CONFIG = ConfigDict(strict=True, extra="ignore")
_FIX_ROW = "Correct the row, or pass --skip_bad_rows to leave such rows out"


@dataclass(frozen=True, config=_CONFIG)
class Query:
    """A line of the queries."""

    key: Annotated[Text, Field(alias="_id")]
    text: Text


R = TypeVar("R", Document, Query)


class BeirFolder:
    """One split a qrels file; the corpus is shared."""

    instruction = None

    def __init__(self, folder: Path, num_candidates: int) -> None:
        self._corpus, self._queries = _find(folder, "corpus"), _find(folder, "queries")
        self._qrels = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
        self._num_candidates = num_candidates
        self.flags = {"num_candidates": num_candidates}
        if not self._qrels:
            raise DataError("holds no qrels/<split>.tsv", "Pass a folder in the BEIR layout", path=folder)
        self.splits = list(self._qrels)
        self.inputs = [self._corpus, self._queries, *self._qrels.values()]

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read the folder and mine the negatives.

        Raises:
            DataError: a row is bad, an id stands twice, or a judgement names what is not there.
        """
        corpus = _by_key(self._corpus, Document, bad_rows)
        queries = _by_key(self._queries, Query, bad_rows)
        passages = {key: passage_text(document.title, document.text) for key, document in corpus.items()}
        judged = {}
        for split, path in self._qrels.items():
            qrels = _read_qrels(path, queries, passages, bad_rows)
            relevant = {key: [text for text, score in found.items() if score > 0] for key, found in qrels.items()}
            judged[split] = {key: texts for key, texts in relevant.items() if texts}
            dropped["queries_without_positives"] += len(relevant) - len(judged[split])
            if not judged[split]:
                raise DataError("judges no document above 0", "Check the scores, or remove the file", path=path)
        texts = list(dict.fromkeys(passages.values()))
        asked = {queries[key].text: None for split in judged.values() for key in split}
        most = max(len(positive) for split in judged.values() for positive in split.values())
        # One more for a passage that is the query itself: cleaning takes it out.
        nearest = nearest_passages(list(asked), texts, self._num_candidates + most + 1)
        ranking = dict(zip(asked, nearest, strict=True))
        return {
            split: [
                _sample(key, queries[key].text, positive, [texts[i] for i in ranking[queries[key].text]], self)
                for key, positive in found.items()
            ]
            for split, found in judged.items()
        }

    def negatives_beside(self, positives: int) -> int:
        """Return how many negatives make `num_candidates` in all; at least one, or there is nothing to rank."""
        return max(self._num_candidates - positives, 1)


def _sample(key: str, query: str, positive: list[str], ranked: list[str], folder: BeirFolder) -> RankingSample:
    known = {*positive, query}
    negative = [text for text in ranked if text not in known]
    return RankingSample(
        query_id=key, query=query, positive=positive, negative=negative[: folder.negatives_beside(len(positive))]
    )


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.exists():
            return path
    raise DataError(f"holds no {name}.jsonl or {name}.jsonl.gz", "Pass a folder in the BEIR layout", path=folder)


def _by_key(path: Path, record_type: type[R], bad_rows: BadRows) -> dict[str, R]:
    found: dict[str, R] = {}
    for record in read_records(path, record_type, bad_rows=bad_rows):
        if record.key in found:
            raise DataError(f"_id {record.key!r} stands in more than one row", "Keep one of them", path=path)
        found[record.key] = record
    return found


def _read_qrels(
    path: Path, queries: dict[str, Query], passages: dict[str, str], bad_rows: BadRows
) -> dict[str, dict[str, int]]:
    """Return query id -> passage -> score, in file order."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        if number == 1 and line.startswith("query-id\t"):
            continue
        try:
            query, document, score = _judgement(line.rstrip("\r\n"), path, number)
            for key, known, where in ((query, queries, "queries"), (document, passages, "the corpus")):
                if key not in known:
                    raise DataError(f"{key!r} is not in {where}", _FIX_ROW, path=path, line=number)
        except DataError as error:
            bad_rows.add(error)
            continue
        scores = qrels.setdefault(query, {})
        scores[passages[document]] = max(score, scores.get(passages[document], score))
    return qrels


def _judgement(line: str, path: Path, number: int) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) != 3:
        raise DataError(
            f"has {len(fields)} tab-separated fields, not query-id, corpus-id, score", _FIX_ROW, path=path, line=number
        )
    try:
        return fields[0], fields[1], int(fields[2])
    except ValueError as error:
        raise DataError(f"the score {fields[2]!r} is not a whole number", _FIX_ROW, path=path, line=number) from error
