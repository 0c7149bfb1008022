"""The file of a milvus-lite database: opened once per process, closed for good, and read past Milvus' own word."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from milvus_optimization.records import Setting
from rag_core.base.errors import EngineError
from rag_core.base.outside_text import reason

OLDEST = (3, 2, 2)  # the traps that are worked around here were measured in this version

_open: set[Path] = set()  # by this process: a second backend would take the scratch of the first for left behind
_MANAGER_LOG = "milvus_lite.server_manager"


def check_version() -> str:
    """Return the version of milvus-lite.

    Raises:
        EngineError: it is too old.
    """
    found = version("milvus-lite")
    if tuple(int(part) for part in found.split(".")[:3] if part.isdigit()) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise EngineError(
            f"milvus-lite is {found}, older than {wanted}", f'Run: pip install -U "milvus-lite>={wanted}"'
        )
    return found


def start(path: Path) -> str:
    """Start the database in this process, and return its address.

    Raises:
        EngineError: another process has it open, or it cannot be opened; milvus-lite itself only logs why.
    """
    from milvus_lite.exceptions import DataDirLockedError
    from milvus_lite.server_manager import server_manager_instance

    if path in _open:
        raise EngineError("this process has this milvus-lite database open", "Close the other backend", path=path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _caught() as errors:
        address = server_manager_instance.start_and_get_uri(str(path))
    if address:
        _open.add(path)
        return str(address)
    cause = errors[0] if errors else EngineError("for a reason that it does not tell", "Look at its log")
    if isinstance(cause, DataDirLockedError):
        raise EngineError(
            "another process has this milvus-lite database open", "Wait for it, or choose another folder", path=path
        ) from cause
    if isinstance(cause, OSError):
        raise cause  # no space, no permission: said as of any other file
    raise EngineError(f"cannot be opened by milvus-lite ({reason(cause)})", "Choose another folder", path=path)


def stop(path: Path) -> None:
    """Close the database and let go of its lock."""
    from milvus_lite.server_manager import server_manager_instance

    if path in _open:
        _open.remove(path)
        server_manager_instance.release_server(str(path))


class _Catcher(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


@contextlib.contextmanager
def _caught() -> Iterator[list[BaseException]]:
    """Collect the exceptions that milvus-lite logs when it starts."""
    log, catcher = logging.getLogger(_MANAGER_LOG), _Catcher()
    before = log.level, log.propagate
    log.addHandler(catcher)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield catcher.errors
    finally:
        log.removeHandler(catcher)
        log.setLevel(before[0])
        log.propagate = before[1]


def index_files(path: Path, collection: str) -> list[Path]:
    """Return the files of a collection's vector indexes, one per segment."""
    return sorted((path / "collections" / collection).glob("partitions/*/indexes/*.idx"))


def read_index(file: Path) -> Setting:
    """Return the build parameters that stand in an index file, whatever the database says of it.

    Raises:
        RuntimeError: it is no index of faiss.
    """
    import faiss

    from milvus_optimization.backends.faiss_indexes import read_parameters

    index: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
    return read_parameters(index)
