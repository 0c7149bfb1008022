"""Files that are no lines of text in UTF-8: told by their first bytes or their name, each with what to do about it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from rag_core.base.errors import DataError

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

_GZIP = b"\x1f\x8b"
_PARQUET = re.compile(rb"PAR1[^\s -~]")  # not a text that begins so
_PACKED = {b"BZh91AY&SY": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UNICODE = {"utf-16": "UTF-16", "utf-32": "UTF-32"}


def is_table(path: Path) -> bool:
    """Tell whether a file is a table by its name: CSV, TSV or Parquet."""
    return path.name.lower().endswith(TABLES)


def check_stored(path: Path, head: bytes) -> None:
    """Check the first bytes of a file as it is stored: what is packed is packed with gzip, and named so.

    Raises:
        DataError: it is packed in another way, or its name says otherwise.
    """
    if head.startswith(b"PK\x03\x04"):
        raise DataError("is a zip archive or a spreadsheet", "Unpack it; save a spreadsheet as CSV", path=path)
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise DataError(f"is compressed with {name}", "Unpack it, or compress it with gzip", path=path)
    packed = head.startswith(_GZIP)
    if packed and path.suffix != ".gz":
        raise DataError("is compressed with gzip, and its name does not say so", f"Name it {path.name}.gz", path=path)
    if head and path.suffix == ".gz" and not packed:
        raise DataError("is not compressed, and its name ends in .gz", f"Name it {path.stem}", path=path)


def check_text(path: Path, head: bytes, *, lines: bool = True) -> None:
    """Check the first bytes of a text: it may be UTF-8, and has lines.

    Args:
        lines: whether they have to end in LF.

    Raises:
        DataError: it is Parquet, UTF-16 or UTF-32, or its lines end in CR alone.
    """
    if _PARQUET.match(head):
        raise DataError("is Parquet, where text is needed", "Write it as text", path=path)
    _check_encoding(path, json.detect_encoding(head[:4]))
    if lines and b"\n" not in head and b"\r" in head.rstrip():
        raise DataError(
            "has lines that end in CR alone", f"Convert it: tr '\\r' '\\n' < {_to_another(path)}", path=path
        )


def _check_encoding(path: Path, found: str) -> None:
    name = _UNICODE.get(found)
    if name is not None:
        raise DataError(f"is {name}", f"Convert it: iconv -f {name} -t UTF-8 {_to_another(path)}", path=path)


def check_json_lines(path: Path, head: bytes, record: str) -> None:
    """Check the first bytes of a file that is to hold a JSON object per line.

    Args:
        record: name of the record that an object is to be.

    Raises:
        DataError: it is a table, UTF-16 or UTF-32, or one JSON array.
    """
    kinds = {".parquet": "Parquet", ".arrow": "Arrow", ".csv": "CSV", ".tsv": "TSV"}
    name = path.name.lower().removesuffix(".gz")
    kind = "Parquet" if _PARQUET.match(head) else next((kinds[end] for end in kinds if name.endswith(end)), None)
    if kind is not None:
        remedy = f"Write it as JSONL, one {record} per line"
        if record == "RankingSample" and is_table(path):
            file = shlex.quote(str(path))
            remedy = f"Convert it: python -m rag_core.prepare --source jsonl --input {file} --output_dir DIR"
        raise DataError(f"is {kind}, where JSONL is needed", remedy, path=path)
    # Without a byte order mark JSON alone tells: it begins with ASCII.
    _check_encoding(path, json.detect_encoding(head[:4]).removesuffix("-le").removesuffix("-be"))
    if head.lstrip().startswith(b"["):
        raise DataError(
            "is one JSON array, where each line is to be an object",
            f"Convert it: jq -c '.[]' {_to_another(path)}",
            path=path,
        )


def _to_another(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    stem = name.removesuffix(".jsonl").removesuffix(".json")
    return f"{shlex.quote(name)} > {shlex.quote(f'{stem}-converted.jsonl' if stem != name else f'converted-{name}')}"
