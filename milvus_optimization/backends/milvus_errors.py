"""What pymilvus and gRPC raise, as a sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from milvus_optimization.backends.protocol import BackendGoneError, UnsupportedIndexError
from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted

TOKEN = "RAG_MILVUS_TOKEN"  # environment variable

_GONE = re.compile(
    r"CONNECT_FAILED|UNAVAILABLE|DEADLINE_EXCEEDED|Fail connecting|No channel|closed channel|Retry timeout"
)
_REFUSED = re.compile(
    r"invalid index type|index type .*(not support|invalid|unknown)|not supported? index", re.IGNORECASE
)
_FULL = re.compile(r"Errno 28|No space left|disk quota", re.IGNORECASE)
_DENIED = re.compile(r"UNAUTHENTICATED|auth check fail|PERMISSION_DENIED|permission deny", re.IGNORECASE)


@contextlib.contextmanager
def in_a_sentence(place: str, what: str) -> Iterator[None]:
    """Turn what pymilvus and gRPC raise into an error of ours.

    Args:
        place: what the user calls the Milvus: its address, or its path.
        what: it cannot do, as in "cannot build HNSW".

    Raises:
        UnsupportedIndexError: Milvus has no such index.
        BackendGoneError: it does not answer.
        EngineError: anything else.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise _told(place, what, error) from error
    except ValueError as error:
        if "channel" not in str(error):
            raise
        raise _told(place, what, error) from error  # gRPC's word for a connection that was closed


def _told(place: str, what: str, error: Exception) -> Exception:
    said, message = str(error), quoted(getattr(error, "message", str(error)), 200)
    if _REFUSED.search(said):
        return UnsupportedIndexError(message)
    if _FULL.search(said):
        return EngineError(f"{place}: no space is left", "Make room, then run the same command again")
    if _DENIED.search(said):
        return EngineError(f"{place}: refuses the token", f"Set {TOKEN} to user:password or a token")
    if _GONE.search(said):
        return BackendGoneError(f"{place}: does not answer", "Start it, then run the same command again")
    return EngineError(f"{place}: {what} ({message})", "See its log")
