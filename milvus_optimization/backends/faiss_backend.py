"""faiss in this process, on one thread: every index type, and times that can be compared."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from milvus_optimization.backends.faiss_indexes import make_index, make_search, read_parameters
from milvus_optimization.backends.protocol import Built, Floats, Numbers, Places, UnsupportedIndexError
from milvus_optimization.backends.space import BACKEND_INDEXES, check_build, check_setting
from milvus_optimization.records import BackendName, Setting
from rag_core.base.errors import EngineError
from rag_core.base.outside_text import first_line
from rag_core.corpora.corpus import check_vectors

_WRITTEN_AT_ONCE = 2**20  # bytes


class FaissBackend:
    """An index in memory; see `protocol.Backend`."""

    name: BackendName = "faiss"
    tells_cpu_time = True
    tells_wall_time = False

    def __init__(self, seed: int = 42) -> None:
        import faiss

        self.version: str = faiss.__version__
        self._seed = seed
        self._vectors: Floats | None = None
        self._numbers: Numbers | None = None
        self._index: Any = None
        self._name = ""
        self._build: Setting = {}
        self._ready: tuple[Setting, int, int | None, Any] | None = None  # what was searched with last

    def insert(self, vectors: Floats, numbers: Numbers | None = None) -> None:
        check_vectors(vectors, Path("documents"))
        self._vectors = vectors
        self._numbers = numbers
        self._index = self._ready = None

    def build(self, index: str, parameters: Setting) -> Built:
        vectors = self._inserted()
        if index not in BACKEND_INDEXES["faiss"]:
            raise UnsupportedIndexError(f"faiss has no counterpart of {index} here")
        check_build(index, parameters, rows=len(vectors), dimensions=vectors.shape[1])
        self._index = self._ready = None  # two at a time need not fit
        start = time.process_time()
        with _one_thread(), _failing(f"cannot build {index}"):
            made = make_index(index, parameters, vectors.shape[1], self._seed)
            rows = np.ascontiguousarray(vectors)
            made.train(rows)
            made.add(rows)
        seconds = time.process_time() - start
        self._index, self._name, self._build = made, index, dict(parameters)
        return Built(read_parameters(made), seconds, _size(made))

    def search(
        self, queries: Floats, k: int, parameters: Setting, *, below: int | None = None
    ) -> tuple[Places, Floats]:
        ready = self._ready
        if ready is None or ready[:3] != (parameters, k, below):
            ready = self._ready = (dict(parameters), k, below, self._prepared(k, parameters, below))
        with _one_thread(), _failing(f"cannot search {self._name}"):
            scores, places = self._index.search(np.ascontiguousarray(queries), k, params=ready[3])
        scores[places < 0] = -np.inf
        return places, scores

    def connect(self) -> Self:
        return copy.copy(self)

    def close(self) -> None:
        self._vectors = self._numbers = self._index = self._ready = None

    def _inserted(self) -> Floats:
        if self._vectors is None:
            raise RuntimeError("nothing was inserted")
        return self._vectors

    def _prepared(self, k: int, parameters: Setting, below: int | None) -> Any:
        """Check a search setting, and return faiss' form of it."""
        import faiss

        rows, dimensions = self._inserted().shape
        if self._index is None:
            raise RuntimeError("nothing was built")
        check_setting(self._name, self._build, parameters, rows=rows, dimensions=dimensions, k=k)
        selector = None
        if below is not None:
            if self._numbers is None:
                raise RuntimeError("no numbers were inserted")
            selector = faiss.IDSelectorBitmap(np.packbits(self._numbers < below, bitorder="little"))
        return make_search(self._name, self._build, parameters, selector)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let faiss use one thread, and what it used before afterwards."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what faiss throws
        raise EngineError(f"faiss {what} ({first_line(error)})", "Choose other parameters") from error


def _size(index: Any) -> int:
    """Return the bytes of the index as a file, without holding them all."""
    import faiss

    sizes: list[int] = []
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part)), _WRITTEN_AT_ONCE))
    return sum(sizes)
