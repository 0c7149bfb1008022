"""A connection to the Milvus that serves: a file is milvus-lite, an address is a server."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from milvus_optimization.backends import lite_store
from milvus_optimization.backends.loading import check_packages
from milvus_optimization.backends.loading import check_uri as check_address
from milvus_optimization.backends.milvus_errors import TOKEN, in_a_sentence
from milvus_optimization.backends.protocol import UnsupportedIndexError
from rag_core.base.errors import EngineError, UsageError
from rag_core.base.outside_text import quoted

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_TIMEOUT = 600.0  # seconds of a request; building an index is one


def lite_path(uri: str) -> Path | None:
    """Return the path of a milvus-lite database; `None` where an address is that of a server."""
    return None if "://" in uri else Path(uri).absolute()


def check_uri(uri: str) -> None:
    """Check an address, and that what it needs is installed.

    Raises:
        UsageError: it is neither a path nor the address of a server, or has a password in it.
        EngineError: a package is missing, or milvus-lite is too old.
    """
    path = lite_path(uri)
    check_packages("server" if path is None else "lite")
    if path is None:
        check_address(uri)
    elif path.suffix != ".db":
        raise UsageError(
            f"--uri {quoted(uri)} does not end in .db", "Pass a file such as milvus.db, or http://HOST:19530"
        )
    else:
        lite_store.check_version()


@contextlib.contextmanager
def connected(uri: str) -> Iterator[MilvusClient]:
    """Open Milvus, and close it.

    Raises:
        EngineError: it cannot be reached, or another process has the file open.
    """
    from pymilvus import MilvusClient

    for library in ("pymilvus", "milvus_lite", "grpc"):  # both log a traceback of what is said in a sentence here
        logging.getLogger(library).setLevel(logging.CRITICAL)
    path = lite_path(uri)
    address = uri if path is None else lite_store.start(path)
    client = None
    try:
        with said(uri):
            client = MilvusClient(address, token=os.environ.get(TOKEN, ""), timeout=_TIMEOUT, dedicated=True)
        yield client
    finally:
        if client is not None:
            client.close()
        if path is not None:
            lite_store.stop(path)


@contextlib.contextmanager
def said(uri: str) -> Iterator[None]:
    """Turn what Milvus raises into one sentence.

    Raises:
        EngineError: Milvus raised something.
    """
    try:
        with in_a_sentence(quoted(uri), "refuses what is asked"):
            yield
    except UnsupportedIndexError as error:
        raise EngineError(
            f"{quoted(uri)}: {error}", "Sweep the indexes of this Milvus, then recommend again"
        ) from error
