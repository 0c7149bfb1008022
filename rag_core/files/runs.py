"""Runs: the ranked documents of queries, as TREC run files (`query Q0 document rank score tag` between white space)."""

from __future__ import annotations

import math
import re
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.base.records import Run
from rag_core.files.atomic import atomic_write
from rag_core.files.bad_rows import FIX_ROW, BadRows, NoBadRows
from rag_core.files.jsonl import read_lines

_COLUMNS = ("query", "Q0", "document", "rank", "score", "tag")
_WORD = re.compile(r"\S+")


def read_run(path: Path, *, bad_rows: BadRows | None = None) -> dict[str, dict[str, float]]:
    """Return query id -> document id -> score, in file order; as in trec_eval, the rank column has no say.

    Args:
        bad_rows: where given, it decides what becomes of a bad row.

    Raises:
        DataError: the file is unreadable, holds no document, or a row is bad and not left out.
    """
    bad_rows = NoBadRows() if bad_rows is None else bad_rows
    run: dict[str, dict[str, float]] = {}
    for number, line in read_lines(path, bad_rows=bad_rows, kind="run file"):
        try:
            query, document, score = _entry(line)
            if document in run.get(query, ()):
                raise ValueError(f"query {quoted(repr(query))} has the document {quoted(repr(document))} twice")
        except ValueError as error:
            bad_rows.add(DataError(str(error), FIX_ROW, path=path, line=number))
            continue
        run.setdefault(query, {})[document] = score
    if not run:
        raise DataError("holds no ranked documents", "Check the path, or make the run again", path=path)
    return run


def _entry(line: str) -> tuple[str, str, float]:
    fields = line.split()
    if len(fields) != len(_COLUMNS):
        raise ValueError(f"has {len(fields)} columns, not {', '.join(_COLUMNS)}")
    query, _, document, _, score, _ = fields
    try:
        number = float(score)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the score {quoted(repr(score))} is not a finite number")
    return query, document, number


def write_run(path: Path, run: Run, tag: str) -> int:
    """Write a run, query by query and best document first, atomically; return the number of rows.

    Ranks start at 1; equal scores keep the run's own order. A score has the fewest decimals that give it back in its
    own precision. A query that found nothing has no row.

    Args:
        tag: names the run, in the last column.

    Raises:
        DataError: an id or the tag is empty or has white space, or a score is no finite number.
    """
    rows = 0
    with atomic_write(path) as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda entry: entry[1], reverse=True)
            for rank, (document, score) in enumerate(ranked, start=1):
                for word in (query, document, tag):
                    if not _WORD.fullmatch(word):
                        what = f"cannot hold {quoted(repr(word))}"
                        raise DataError(what, "Give ids and a tag without white space", path=path)
                if not math.isfinite(score):
                    what = f"the score of document {quoted(repr(document))} for query {quoted(repr(query))} is {score}"
                    raise DataError(what, "Check the model that gave it", path=path)
                file.write(f"{query} Q0 {document} {rank} {score!s} {tag}\n".encode())
                rows += 1
    return rows
