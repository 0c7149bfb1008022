"""Opening what a stage reads: regular files only, by lines of bounded length, or as one JSON value of bounded size."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted

LONGEST = 2**26
"""Bytes of the longest line, or of a file that is read whole: a packed file may hold a thousand times its size."""

DAMAGED_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a gzip file ends in that is damaged or cut off."""

TOO_LONG = f"longer than {LONGEST // 2**20} MB"

_BLOCK = 2**18  # bytes of a line too long that are read at once
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


def open_input(path: Path, kind: str = "file") -> io.FileIO:
    """Open a file for reading. What is no regular file is refused: inputs are read several times, and hashed.

    Args:
        kind: of file, for the error where `path` is a folder.

    Raises:
        DataError: there is no such file, or it cannot be opened.
    """
    try:
        # Of a pipe that nobody writes to, opening would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        what = "is a link to what is not there" if path.is_symlink() else "no such file"
        raise DataError(what, "Check the path", path=path) from error
    except (OSError, ValueError) as error:  # the latter for a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be opened ({reason})", "Check the path", path=quoted(str(path), 200)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(path, mode, kind)
    return io.FileIO(descriptor)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says while a file is read into a `DataError`."""
    try:
        yield
    except gzip.BadGzipFile:  # not the system's
        raise
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", "Check the file", path=path) from error


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file.

    Raises:
        DataError: as `open_input`.
    """
    with open_input(path) as file, reading(path):
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_regular(path: Path, mode: int, kind: str) -> DataError:
    if stat.S_ISDIR(mode):
        return DataError("is a directory", f"Name a {kind} in it", path=path)
    return DataError(
        f"is {kind_of(mode)}, not a regular file",
        "Write it into a file first: inputs are read more than once",
        path=path,
    )


def kind_of(mode: int) -> str:
    """Return what something is that is neither a file nor a folder, e.g. "a pipe"."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def lines_of(file: _Lines) -> Iterator[bytes | None]:
    """Yield the lines of an open file; `None` for one that is longer than `LONGEST`, which is not held."""
    while line := file.readline(LONGEST + 1):
        if len(line) <= LONGEST or line.endswith(b"\n"):
            yield line
            continue
        del line
        yield None
        while (more := file.readline(_BLOCK)) and not more.endswith(b"\n"):
            pass


def read_whole(path: Path, remedy: str) -> bytes:
    """Return the bytes of a file.

    Args:
        remedy: for the error where there are too many.

    Raises:
        DataError: as `open_input`; it cannot be read, or is longer than `LONGEST`.
    """
    with io.BufferedReader(open_input(path)) as file, reading(path):
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise DataError(f"is {TOO_LONG}", remedy, path=path)
    return content


def read_json(path: Path, remedy: str) -> Any:
    """Return the value in a JSON file.

    Args:
        remedy: for the error where it holds none.

    Raises:
        DataError: as `read_whole`, or it is not JSON.
    """
    content = read_whole(path, remedy)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({quoted(str(error))})", remedy, path=path) from error
