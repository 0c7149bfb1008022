"""What a backend does: build an index over the vectors, search it, and say what it really built."""

from __future__ import annotations

import dataclasses
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from milvus_optimization.records import BackendName, Setting
from rag_core.base.errors import EngineError

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64]


class UnsupportedIndexError(Exception):
    """The backend has no such index; the trial says so and the sweep goes on."""


class BackendGoneError(EngineError):
    """The backend does not answer any more: the sweep stops, and goes on when it is started again."""


@dataclasses.dataclass(frozen=True)
class Built:
    """An index as it stands.

    Attributes:
        seen: its parameters as the backend tells them, to be compared with those that were asked for.
        cpu_seconds: of the build in this process; None on a server.
        index_bytes: size of the index; None where the backend does not tell.
    """

    seen: Setting
    cpu_seconds: float | None
    index_bytes: int | None


class Backend(Protocol):
    """A place that holds the vectors of one corpus, and one index over them at a time.

    Attributes:
        tells_cpu_time: whether a search runs in this process, so that its CPU time is its cost. Take that of the
            process: milvus-lite searches in another thread.
        tells_wall_time: whether the wall time of a search means anything (a server's does, milvus-lite's does not).
    """

    name: BackendName
    version: str
    tells_cpu_time: bool
    tells_wall_time: bool

    def insert(self, vectors: Floats, numbers: Numbers | None = None) -> None:
        """Take the vectors; a document's id is its row. All rows are there, and counted, when this returns.

        Args:
            numbers: one per document, by which a search can be limited: drawn at random, or a field of the corpus.

        Raises:
            DataError: a vector is not finite or not of length 1.
            EngineError: the backend fails.
        """

    def build(self, index: str, parameters: Setting) -> Built:
        """Build an index in the place of the one before.

        Raises:
            UnsupportedIndexError: there is no such index here.
            UsageError: the parameters are out of bounds; nothing was tried.
            BackendGoneError: the backend does not answer.
            EngineError: the build fails.
        """

    def search(
        self, queries: Floats, k: int, parameters: Setting, *, below: int | None = None
    ) -> tuple[Places, Floats]:
        """Return the rows and scores (cosines) of the `k` nearest documents of each query; shape (queries, k) each.

        Where fewer are found, the rest has row -1 and score -inf.

        Args:
            below: only documents with a smaller number are looked for.

        Raises:
            UsageError: the parameters are out of bounds; nothing was tried.
            BackendGoneError: the backend does not answer.
            EngineError: the search fails.
        """

    def connect(self) -> Self:
        """Return another connection to the index that stands, for a thread of its own; to close it drops nothing.

        Raises:
            BackendGoneError, EngineError: the backend does not take one more.
        """

    def close(self) -> None:
        """Drop what was made here, and only that. Closing twice, or when the backend is gone, is no error."""
