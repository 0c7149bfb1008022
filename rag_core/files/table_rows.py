"""Rows of CSV, TSV and Parquet files, each as the JSON that a record is read from.

A cell that holds a list of texts may be a list (Parquet), a list written as text (JSON, Python's or NumPy's form), or
one text. What looks like a list and is none makes the row a bad one: nobody can tell which passages are meant.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import gzip
import io
import json
import re
import tokenize
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_core.base.errors import DataError
from rag_core.base.outside_text import first_line, quoted
from rag_core.files.bad_rows import FIX_ROW, BadRows
from rag_core.files.formats import check_stored, check_text
from rag_core.files.inputs import DAMAGED_GZIP, LONGEST, TOO_LONG, open_input, reading

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_TEXTS = ("positive", "negative", "candidates")
_IDS = ("query_id", "_id")
_COLUMNS = {"query", "text", "title", *_TEXTS, *_IDS}

_BETWEEN = {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT}
_HEAD = 2**16  # bytes
_FEW_ROWS, _MANY_ROWS = 2, 1000  # of Parquet that are decoded at once
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8

Row = tuple[int, Sequence[str], Sequence[Any]]  # number, names of the columns, cells


def read_table(path: Path, bad_rows: BadRows) -> Iterator[tuple[int, str]]:
    """Yield (number, JSON object) of the rows: a CSV or TSV row's number is its first line, a Parquet row's its place.

    Only columns that a record may have are kept. The other columns of a row are not looked at.

    Raises:
        DataError: the file cannot be read, or a row is bad and not left out.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    for number, names, cells in rows:
        try:
            text = json.dumps(_fields(names, cells), default=_as_json)
        except ValueError as error:
            bad_rows.add(DataError(str(error), FIX_ROW, path=path, line=number))
            continue
        yield number, text


def texts_of(column: str, cell: str) -> list[Any]:
    """Return the texts of a cell that is text: those of the list that it spells, or else the one that it is.

    Raises:
        ValueError: it looks like a list and is none.
    """
    inside = cell.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        return [cell] if inside else []
    try:
        found = json.loads(inside)
    except (ValueError, RecursionError):
        found = _python_texts(inside)
    if not isinstance(found, list):
        raise ValueError(f"'{column}' looks like a list and is none ({quoted(repr(inside), 40)})")
    return found


def _python_texts(cell: str) -> list[str] | None:
    """Return the texts between brackets in Python's form, or NumPy's, which has no commas; `None` if it is neither.

    Not `ast.literal_eval` of the whole: it joins texts without a comma between them.
    """
    try:
        texts, brackets = [], 0
        for token in tokenize.generate_tokens(io.StringIO(cell).readline):
            if token.type == tokenize.STRING:
                texts.append(ast.literal_eval(token.string))
            elif token.type not in _BETWEEN:
                brackets += token.string == "["
                if token.string not in "[,]" or brackets > 1:
                    return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return texts if all(isinstance(text, str) for text in texts) else None


def _fields(names: Sequence[str], cells: Sequence[Any]) -> dict[str, Any]:
    """Return the cells of a row as the fields of a record.

    Raises:
        ValueError: a cell is bad, or there are more or fewer than columns.
    """
    if len(names) != len(cells):
        raise ValueError(f"has {len(cells)} cells, not one for each of {quoted(', '.join(names))}")
    found = {name: cell for name, cell in zip(names, cells, strict=True) if name in _COLUMNS}
    for name, cell in found.items():
        if isinstance(cell, str) and _UNDECODED.search(cell):
            raise ValueError(f"'{name}' is not UTF-8")
        if isinstance(cell, str) and name in _TEXTS:
            found[name] = texts_of(name, cell)
        elif isinstance(cell, int) and name in _IDS and not isinstance(cell, bool):
            found[name] = str(cell)
    # A table has every column in every row: an empty cell is a list that is not given, or has no texts.
    if found.get("candidates"):
        found |= {name: found[name] or None for name in ("positive", "negative") if name in found}
    else:
        found |= {name: found[name] or [] for name in ("positive", "negative") if name in found}
        found |= {name: None for name in ("candidates",) if found.get("positive") or found.get("negative")}
    return {name: cell for name, cell in found.items() if cell is not None and (cell != "" or name not in _IDS)}


def _as_json(cell: object) -> str:
    if not isinstance(cell, bytes):
        raise ValueError(f"has {quoted(repr(cell))}, a {type(cell).__name__}, where a text is needed")
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"has bytes that are not UTF-8 ({error.reason})") from error


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)  # its own is 131,072
    number = 1
    held = 0  # characters of the row that is being read, which may have many lines

    def lines() -> Iterator[str]:
        nonlocal held
        while line := text.readline(LONGEST + 1):
            held += len(line)
            if held > LONGEST:
                raise DataError(f"is {TOO_LONG}", "Check the quotes from this row on", path=path, line=number)
            yield line

    try:
        with io.BufferedReader(open_input(path)) as stored, reading(path):
            check_stored(path, stored.peek(_HEAD))
            raw: Any = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
            check_text(path, raw.peek(_HEAD), lines=False)
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            head = "".join(islice(lines(), 1))
            separator = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else max(",;\t", key=head.count)
            rows = csv.reader(chain([head], lines()), strict=True, delimiter=separator)
            names = [name.strip() for name in next(rows, [])]
            number, held = rows.line_num + 1, 0
            for cells in rows:
                if cells:  # a blank line has none
                    yield number, names, cells
                number, held = rows.line_num + 1, 0
    except csv.Error as error:
        raise DataError(
            f"is not CSV ({error})", "Correct the quotes from this row on", path=path, line=number
        ) from error
    except DAMAGED_GZIP as error:
        raise DataError(
            f"the gzip file is damaged or cut off ({error})", "Copy or make the file again", path=path
        ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    with _parquet(path) as file:
        columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
        rows = chain.from_iterable(
            batch.to_pylist()
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(_rows_at_once(file, group, path), row_groups=[group], columns=columns)
        )
        for number, row in enumerate(rows, start=1):
            yield number, list(row), list(row.values())


def check_parquet(path: Path) -> None:
    """Check that the rows of a Parquet file are not too long, on average, before anything is decoded.

    Raises:
        DataError: they are, or the file cannot be read.
    """
    with _parquet(path) as file:
        for group in range(file.num_row_groups):
            _rows_at_once(file, group, path)


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[ParquetFile]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with open_input(path) as stored:
        try:
            yield ParquetFile(stored)
        except (ArrowException, OSError, ValueError) as error:
            what = f"cannot be read as Parquet ({first_line(error, 100)})"
            raise DataError(what, "Copy or make the file again", path=path) from error


def _rows_at_once(file: ParquetFile, number: int, path: Path) -> int:
    """Return how many rows of a group to decode at once: few where cells may be long.

    Raises:
        DataError: they are too long.
    """
    group = file.metadata.row_group(number)
    parts = [group.column(place) for place in range(group.num_columns)]
    largest = max((max(part.total_uncompressed_size, part.num_values) for part in parts), default=1)
    if largest > LONGEST * group.num_rows:
        raise DataError(f"has a row that is {TOO_LONG}", "Check that each row has its own texts", path=path)
    return min(max(LONGEST // max(largest, 1), _FEW_ROWS), _MANY_ROWS)
