"""Read and write JSONL records (`.jsonl` or `.jsonl.gz`): errors name file and line, writes are atomic."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AliasChoices, TypeAdapter, ValidationError

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.base.records import MADE_BY, Document, Query, RankingSample, Record, ScoredPair, SoftLabels, Triplet
from rag_core.files.atomic import atomic_write
from rag_core.files.bad_rows import FIX_ROW, BadRows, NoBadRows
from rag_core.files.formats import check_json_lines, check_stored, check_text, is_table
from rag_core.files.inputs import DAMAGED_GZIP, TOO_LONG, lines_of, open_input, reading
from rag_core.files.table_rows import read_table

if TYPE_CHECKING:
    from hashlib import _Hash

    from _typeshed import DataclassInstance

R = TypeVar("R")
D = TypeVar("D", Document, Query)
G = TypeVar("G", ScoredPair, Triplet, SoftLabels)

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
_BUFFER = 2**18  # bytes that are read, and hashed, at once
_BREAK_LINES = "Check that each row has its own line, or pass --skip_bad_rows to leave such rows out"
_NOT_UTF8 = "Convert the file (iconv -f latin1 -t utf-8), or pass --skip_bad_rows to leave such rows out"


def _adapter(record_type: type[Any]) -> TypeAdapter[Any]:
    if record_type not in _ADAPTERS:
        _ADAPTERS[record_type] = TypeAdapter(record_type)
    return _ADAPTERS[record_type]


def read_records(
    path: Path,
    record_type: type[R],
    *,
    bad_rows: BadRows | None = None,
    digest: _Hash | None = None,
    tables: bool = False,
) -> Iterator[R]:
    """Yield the records of a file in order; a sample without `query_id` gets its line number as one.

    Args:
        bad_rows: where given, it decides what becomes of a bad row; without, the first one is an error.
        digest: where given, it has the hash of the whole file when the last record was read.
        tables: a CSV, TSV or Parquet file is read as well; it has no digest.

    Raises:
        DataError: the file is missing, unreadable, without any record, or a row is bad and not left out.
    """
    rows = numbered_records(path, record_type, bad_rows, digest=digest, tables=tables)
    return (record for _, record in rows)


def read_by_id(path: Path, record_type: type[D], *, bad_rows: BadRows | None = None) -> dict[str, D]:
    """Read the documents or queries of a file by their `_id`, in file order.

    Raises:
        DataError: as `read_records`, also for a query without `_id`, and where two rows carry the same `_id`.
    """
    found: dict[str, D] = {}
    for number, record in numbered_records(path, record_type, bad_rows, needs_id=True):
        assert record.id is not None  # numbered_records sees to it
        if record.id in found:
            what = f"_id {quoted(repr(record.id))} stands in more than one row"
            raise DataError(what, "Keep one of them", path=path, line=number)
        found[record.id] = record
    return found


def numbered_records(
    path: Path,
    record_type: type[R],
    bad_rows: BadRows | None,
    *,
    digest: _Hash | None = None,
    needs_id: bool = False,
    tables: bool = False,
) -> Iterator[tuple[int, R]]:
    """Yield (line number, record) of what `read_records` reads; with `needs_id`, a query without `_id` is bad."""
    bad_rows = NoBadRows() if bad_rows is None else bad_rows
    rows, before = 0, len(bad_rows)
    lines = (
        read_table(path, bad_rows)
        if tables and is_table(path)
        else read_lines(path, digest, bad_rows=bad_rows, record=record_type.__name__)
    )
    for number, line in lines:
        try:
            record = _parse(line, record_type, path, number)
            if needs_id and isinstance(record, Query) and record.id is None:
                raise DataError(_missing(record_type, "_id"), FIX_ROW, path=path, line=number)
        except DataError as error:
            bad_rows.add(error)
            continue
        if isinstance(record, RankingSample) and record.query_id is None:
            object.__setattr__(record, "query_id", str(number))  # a copy would check every passage again
        rows += 1
        yield number, record
    if rows == 0:
        mine = bad_rows.errors[before:]
        bad = f" (all of its {len(mine)} rows are bad; the first: {mine[0]})" if mine else ""
        raise DataError(
            f"holds no {record_type.__name__} records{bad}",
            f"Check the path, or run the stage again that makes such files ({_made_by(record_type)})",
            path=path,
        )


def read_samples(path: Path, *, bad_rows: BadRows | None = None, tables: bool = False) -> list[RankingSample]:
    """Read all samples of a file; each `query_id` must be its own. For `tables`, see `read_records`.

    Raises:
        DataError: as `read_records`, and where two rows carry the same `query_id`.
    """
    return [sample for _, sample in iterate_samples(path, bad_rows=bad_rows, tables=tables)]


def iterate_samples(
    path: Path, *, bad_rows: BadRows | None = None, digest: _Hash | None = None, tables: bool = False
) -> Iterator[tuple[int, RankingSample]]:
    """Yield (line number, sample) of all that `read_samples` reads; in memory, only each `query_id` stays."""
    seen: set[str] = set()
    for number, sample in numbered_records(path, RankingSample, bad_rows, digest=digest, tables=tables):
        assert sample.query_id is not None  # read_records fills it in
        if sample.query_id in seen:
            raise DataError(
                f"query_id {quoted(repr(sample.query_id))} stands in more than one row",
                "Give each row its own query_id, or leave the key out (the line number is taken)",
                path=path,
                line=number,
            )
        seen.add(sample.query_id)
        yield number, sample


def read_groups(path: Path, record_type: type[G], *, bad_rows: BadRows | None = None) -> list[list[G]]:
    """Read a file's records query by query (by `query_id`, wherever its rows stand), in order of appearance.

    Raises:
        DataError: as `read_records`, and where one `query_id` stands for two query texts, or for the same
            passage twice in ScoredPair records.
    """
    groups: dict[str, list[G]] = {}
    seen: set[tuple[str, str]] = set()
    for number, record in numbered_records(path, record_type, bad_rows):
        group = groups.setdefault(record.query_id, [])
        if group and group[0].query != record.query:
            raise DataError(
                f"query_id {quoted(repr(record.query_id))} stands for two queries "
                f"({quoted(repr(group[0].query), 40)}, {quoted(repr(record.query), 40)})",
                "Files that number their queries alike cannot be joined: run the stage for each by itself",
                path=path,
                line=number,
            )
        if isinstance(record, ScoredPair):
            if (record.query_id, record.passage) in seen:
                passage = quoted(repr(record.passage), 40)
                what = f"query_id {quoted(repr(record.query_id))} has the passage {passage} twice"
                raise DataError(what, "Keep one score of each pair", path=path, line=number)
            seen.add((record.query_id, record.passage))
        group.append(record)
    return list(groups.values())


class _Hashed(io.RawIOBase):
    """A file whose bytes go into a digest as they are read."""

    def __init__(self, file: io.FileIO, digest: _Hash) -> None:
        self._file = file
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:count])
        return count


def read_lines(
    path: Path,
    digest: _Hash | None = None,
    *,
    bad_rows: BadRows | None = None,
    record: str | None = None,
    kind: str = ".jsonl or .jsonl.gz file",
) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the lines that are not blank.

    Args:
        bad_rows, digest: as in `read_records`; a line is bad where it is not UTF-8, or longer than `inputs.LONGEST`.
        record: the name of what each line is to hold in JSON, where it is to hold any.
        kind: of file, for the error where `path` is a folder.

    Raises:
        DataError: the file is missing or of another format, or a line is bad and not left out.
    """
    bad_rows = NoBadRows() if bad_rows is None else bad_rows
    number = 0
    try:
        with open_input(path, kind) as raw, reading(path):
            stored = io.BufferedReader(_Hashed(raw, digest) if digest else raw, _BUFFER)
            check_stored(path, stored.peek(_BUFFER))
            lines = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
            head = lines.peek(_BUFFER)
            if record is not None:
                check_json_lines(path, head, record)
            check_text(path, head)
            for number, line in enumerate(lines_of(lines), start=1):
                try:
                    text = _decoded(line, path, number)
                except DataError as error:
                    bad_rows.add(error)
                    continue
                if text.strip():
                    yield number, text
    except DAMAGED_GZIP as error:
        raise DataError(
            f"the gzip file is damaged or cut off after line {number} ({error})",
            "Copy or make the file again",
            path=path,
        ) from error


def _decoded(line: bytes | None, path: Path, number: int) -> str:
    if line is None:
        raise DataError(f"is {TOO_LONG}", _BREAK_LINES, path=path, line=number)
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 ({error.reason})", _NOT_UTF8, path=path, line=number) from error


def _parse(line: str, record_type: type[R], path: Path, number: int) -> R:
    try:
        record: R = _adapter(record_type).validate_json(line, by_alias=True, by_name=False)
        return record
    except ValidationError as error:
        first = error.errors()[0]
    for other in MADE_BY:
        if other is not record_type and first["type"] != "json_invalid" and _is_record(line, other):
            raise DataError(
                f"is a {other.__name__} (made by {MADE_BY[other]}), where a {record_type.__name__} is needed",
                f"Pass a file made by {_made_by(record_type)}",
                path=path,
                line=number,
            )
    field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "json_invalid":
        what = f"is not JSON ({message.removeprefix('Invalid JSON: ').partition(' at line')[0]})"
    elif first["type"] == "dataclass_type":
        what = "is not a JSON object"
    elif first["type"] == "missing":
        what = _missing(record_type, field)
    elif field:
        what = f"'{field}' {message}"
    else:
        what = f"the {record_type.__name__} {message}"
    raise DataError(what, FIX_ROW, path=path, line=number)


def _missing(record_type: type[object], field: str) -> str:
    keys: list[Any] = [field]
    for known in record_type.__pydantic_fields__.values():  # type: ignore[attr-defined]
        if isinstance(known.validation_alias, AliasChoices) and field in known.validation_alias.choices:
            keys = known.validation_alias.choices
    return f"a {record_type.__name__} needs {' or '.join(map(repr, keys))}, which is missing"


def _is_record(line: str, record_type: type[Record]) -> bool:
    try:
        _adapter(record_type).validate_json(line)
    except ValidationError:
        return False
    return True


def _made_by(record_type: type[object]) -> str:
    return next((stage for known, stage in MADE_BY.items() if known is record_type), "your own export")


def write_records(path: Path, records: Iterable[DataclassInstance]) -> int:
    """Write records atomically, one per line; return their number. What is `None` is left out, but for a label.

    Args:
        records: pydantic dataclasses, of `base.records` or a pipeline's own.
    """
    rows = 0
    with atomic_write(path) as file:
        for record in records:
            labels = isinstance(record, ScoredPair)
            absent = {"unscored"} if isinstance(record, ScoredPair) and record.unscored is None else None
            row = _adapter(type(record)).dump_json(record, by_alias=True, exclude_none=not labels, exclude=absent)
            file.write(row + b"\n")
            rows += 1
    return rows


def output_path(path: Path, suffix: str, directory: Path | None) -> Path:
    """Return `<stem of path><suffix>.jsonl`, beside `path` or in `directory`."""
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return (directory or path.parent) / f"{stem}{suffix}.jsonl"
