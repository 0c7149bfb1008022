"""Open a backend by its name."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from milvus_optimization.backends.milvus_errors import TOKEN
from milvus_optimization.backends.protocol import Backend
from milvus_optimization.records import BackendName
from rag_core.base.errors import EngineError, UsageError
from rag_core.base.outside_text import quoted

_NEEDS = {"faiss": ("faiss",), "lite": ("pymilvus", "milvus_lite", "faiss"), "server": ("pymilvus",)}
_DATABASE = "milvus_lite.db"


def open_backend(
    name: BackendName, *, uri: str | None = None, folder: Path | None = None, timeout: float = 30.0
) -> Backend:
    """Open a backend; the caller closes it.

    Args:
        uri: of the server.
        folder: where milvus-lite keeps its database.
        timeout: seconds that a request to the server may take.

    Raises:
        UsageError: `uri` or `folder` is missing or of no use.
        EngineError: a package is missing, or the backend cannot be opened.
    """
    check_packages(name)
    if name == "faiss":
        from milvus_optimization.backends.faiss_backend import FaissBackend

        return FaissBackend()
    from milvus_optimization.backends.lite_store import check_version
    from milvus_optimization.backends.milvus_backend import MilvusBackend

    if name == "server":
        return MilvusBackend(name, place=check_uri(uri), token=os.environ.get(TOKEN, ""), timeout=timeout)
    if folder is None:
        raise UsageError("--backend lite needs a folder", "Pass one")
    check_version()
    path = (folder / _DATABASE).absolute()
    return MilvusBackend(name, place=str(path), path=path, timeout=timeout)


def check_packages(name: BackendName) -> None:
    """Check that what a backend needs is installed.

    Raises:
        EngineError: it is not.
    """
    missing = [package for package in _NEEDS[name] if find_spec(package) is None]
    if missing:
        raise EngineError(f"--backend {name} needs {missing[0]}", 'Run: pip install "rag-optimization[milvus]"')


def check_uri(uri: str | None) -> str:
    """Return the address of a server.

    Raises:
        UsageError: it is none, or tells a password.
    """
    if uri is None:
        raise UsageError("--backend server needs --uri", "Pass --uri http://HOST:19530")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https", "tcp", "unix"):
        raise UsageError(f"--uri is {quoted(uri)!r}", "Pass http://HOST:19530, or choose --backend lite")
    if parts.username or parts.password:
        raise UsageError("--uri has a user or password in it", f"Set {TOKEN}=user:password, and leave it out of --uri")
    return uri
