"""A connection to Milvus: a file is milvus-lite, an address is a server; what goes wrong is said in one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rag_core.base.errors import EngineError, UsageError
from rag_core.base.outside_text import first_line, quoted

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "RAG_MILVUS_TOKEN"
"""The environment variable with the token of a server, `user:password` or a key."""


def is_lite(uri: str) -> bool:
    """Tell whether an address is a file, which milvus-lite opens."""
    return uri.endswith(".db")


def check_uri(uri: str) -> None:
    """Check that an address is one of either kind.

    Raises:
        UsageError: it is not.
    """
    if not is_lite(uri) and not uri.startswith(("http://", "https://", "tcp://", "unix:")):
        raise UsageError(
            f"--uri is {quoted(uri)}", "Pass a file that ends in .db, or an address such as http://localhost:19530"
        )


@contextlib.contextmanager
def connected(uri: str) -> Iterator[MilvusClient]:
    """Open Milvus, and close it.

    Raises:
        EngineError: pymilvus is missing, or Milvus cannot be reached.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise EngineError("pymilvus is not installed", 'Run: pip install "rag-optimization[milvus]"') from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of each error that it raises
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
    with said(uri):
        client = MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=30)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def said(uri: str) -> Iterator[None]:
    """Turn what Milvus raises into one sentence.

    Raises:
        EngineError: Milvus raised something.
    """
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        told = first_line(ValueError(error.message))
        if "Open local milvus failed" in told:
            told = "the file cannot be opened; another process may have it"
        remedy = "Check the path" if is_lite(uri) else f"Check the address, the server, and the token in {TOKEN}"
        raise EngineError(f"Milvus at {quoted(uri)}: {told}", f"{remedy}, then run the command again") from error
