"""Relevance judgements, graded or not: BEIR's table (`.tsv`) and TREC's four columns (any other name)."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.base.records import Qrels
from rag_core.files.atomic import atomic_write
from rag_core.files.bad_rows import FIX_ROW, BadRows, NoBadRows
from rag_core.files.jsonl import read_lines

_BEIR = ("query-id", "corpus-id", "score")  # between tabs, below a row with these names
_TREC = ("query", "0", "document", "relevance")  # between white space
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")  # a grade; ir-measures has no room for longer ones
_IDS = {_BEIR: re.compile(r"(?=.*\S)[^\t\r\n]+"), _TREC: re.compile(r"\S+")}


def read_qrels(
    path: Path,
    *,
    queries: Container[str] | None = None,
    documents: Container[str] | None = None,
    bad_rows: BadRows | None = None,
) -> dict[str, dict[str, int]]:
    """Return query id -> document id -> relevance, in file order; of two judgements of a pair, the higher.

    The first row, not the name, tells the format: BEIR's names, or tabs between other than four columns.

    Args:
        queries, documents: the known ids, where given; a row that names another is bad.
        bad_rows: where given, it decides what becomes of a bad row.

    Raises:
        DataError: the file is unreadable, a row is bad and not left out, or no document is judged above 0.
    """
    bad_rows = NoBadRows() if bad_rows is None else bad_rows
    qrels: dict[str, dict[str, int]] = {}
    columns = None
    for number, line in read_lines(path, bad_rows=bad_rows, kind="qrels file"):
        if columns is None:
            headed = line.startswith(f"{_BEIR[0]}\t")
            columns = _BEIR if headed or line.count("\t") not in (0, 3) else _TREC
            if headed:
                continue
        try:
            query, document, relevance = _judgement(line.rstrip("\r\n"), columns)
            for key, known, where in ((query, queries, "queries"), (document, documents, "the corpus")):
                if known is not None and key not in known:
                    raise ValueError(f"{quoted(repr(key))} is not in {where}")
                if not key.strip():
                    raise ValueError("an id is empty")
        except ValueError as error:
            bad_rows.add(DataError(str(error), FIX_ROW, path=path, line=number))
            continue
        judged = qrels.setdefault(query, {})
        judged[document] = max(relevance, judged.get(document, relevance))
    if not any(relevance > 0 for judged in qrels.values() for relevance in judged.values()):
        raise DataError("judges no document above 0", "Check the scores, or remove the file", path=path)
    return qrels


def _judgement(line: str, columns: tuple[str, ...]) -> tuple[str, str, int]:
    fields = line.split("\t") if columns is _BEIR else line.split()
    if len(fields) != len(columns):
        kind = "tab-separated fields" if columns is _BEIR else "columns"
        raise ValueError(f"has {len(fields)} {kind}, not {', '.join(columns)}")
    query, *_, document, relevance = fields
    if not _GRADE.fullmatch(relevance.strip()):
        raise ValueError(f"the {columns[-1]} {quoted(repr(relevance))} is not a whole number")
    return query, document, int(relevance)


def write_qrels(path: Path, qrels: Qrels) -> int:
    """Write judgements, atomically, one per line; return their number. The name tells the format, also before `.gz`.

    Raises:
        DataError: an id is empty, or has a tab or line break (in TREC's columns: any white space).
    """
    columns = _BEIR if path.name.removesuffix(".gz").endswith(".tsv") else _TREC
    rows = 0
    with atomic_write(path) as file:
        if columns is _BEIR:
            file.write("\t".join(_BEIR).encode() + b"\n")
        for query, judged in qrels.items():
            for document, relevance in judged.items():
                for key in (query, document):
                    if not _IDS[columns].fullmatch(key):
                        what = f"cannot hold the id {quoted(repr(key))}"
                        raise DataError(what, "Give ids without white space", path=path)
                fields = (query, document, relevance) if columns is _BEIR else (query, 0, document, relevance)
                file.write(("\t" if columns is _BEIR else " ").join(map(str, fields)).encode() + b"\n")
                rows += 1
    return rows
