"""Files that are there whole or not at all, also after a crash."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rag_core.base.errors import StaleError, UsageError
from rag_core.files.inputs import kind_of

# Of Linux's renameat2: paths are relative to the working folder, and both change places.
_WORKING_FOLDER, _EXCHANGE = -100, 2


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the block ends well, and vanishes when it does not.

    The bytes are on disk (fsync) before the rename, so a crash leaves the old file or the new one, whole;
    at most a `.<name>.tmp` stays behind, which the next run takes over. A `.gz` path is compressed, without
    time stamp, so that equal content gives equal bytes.

    Raises:
        StaleError: another process is writing the same file, or something other than a file of ours stands where the
            bytes would go.
        UsageError: as `check_place`.
    """
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        locked = open_locked(temporary)
    except BlockingIOError as error:
        raise StaleError("another process is writing it", "Wait, or choose another output", path=path) from error
    with locked as raw:
        try:
            raw.truncate(0)
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                    yield file  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
            temporary.replace(path)
        except BaseException:
            if is_open_at(raw, temporary):
                temporary.unlink()
            raise
    sync_directory(path.parent)


def check_place(path: Path) -> None:
    """Check that a file or folder may take a place: `/dev/null` and the like are never replaced.

    Raises:
        UsageError: a device, a pipe or a socket stands there.
    """
    with contextlib.suppress(OSError):  # what is not there, or cannot be, is for who writes
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise UsageError(f"the output {path} is {kind_of(mode)}, which is not replaced", "Name a file of its own")


def open_locked(path: Path) -> IO[bytes]:
    """Open a file for this process alone, made where it is not there; to close it gives it back.

    Raises:
        BlockingIOError: another process has it.
        FileNotFoundError: its folder is not there.
        StaleError: something other than a file of ours stands there.
    """
    while True:
        file = os.fdopen(_open_unlinked(path), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            file.close()
            raise
        if is_open_at(file, path):
            return file
        file.close()  # another process has moved or deleted it between the two calls


def is_open_at(file: IO[bytes], path: Path) -> bool:
    """Tell whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _open_unlinked(path: Path) -> int:
    """Open a file for reading and writing, made where it is not there, but no other name of what is elsewhere."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StaleError("is a link, and what it leads to is not overwritten", "Remove it", path=path) from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    what = "has another name, too (a hard link)" if stat.S_ISREG(found.st_mode) else "is no regular file"
    raise StaleError(f"{what}, and is not overwritten", "Remove it", path=path)


def exchange(one: Path, other: Path) -> None:
    """Let two files or folders of one file system change places, in one step where the system can.

    Linux can (renameat2 with RENAME_EXCHANGE), but for some network file systems: there, a kill in between leaves
    `other` beside `one`, as `<one>.old`.
    """
    with contextlib.suppress(AttributeError):  # other systems have no such call
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_WORKING_FOLDER, os.fsencode(one), _WORKING_FOLDER, os.fsencode(other), _EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(f"{one.name}.old")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def sync_directory(directory: Path) -> None:
    """Make renames and new files in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
