"""A Milvus over pymilvus: milvus-lite in this process, or a server."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from tqdm import tqdm

from milvus_optimization.backends import lite_store, scratch
from milvus_optimization.backends.milvus_errors import in_a_sentence
from milvus_optimization.backends.protocol import Built, Floats, Numbers, Places, UnsupportedIndexError
from milvus_optimization.backends.readback import plain_setting
from milvus_optimization.backends.space import BACKEND_INDEXES, check_build, check_setting, milvus_build
from milvus_optimization.records import BackendName, Setting
from rag_core.base.errors import EngineError
from rag_core.corpora.corpus import check_vectors

_INSERTED_AT_ONCE = 8 * 2**20  # bytes of vectors; a request may have 64 MiB
_SEARCHED_AT_ONCE = 256  # queries
_POLL = 0.05  # seconds between two looks at a build
_UNBOUNDED = 7 * 24 * 3600.0  # seconds; of milvus-lite, which is this process and cannot be gone
# A build may take so many seconds, and so many per row: 20 times what HNSW 32/200 of 384 dimensions takes on one core.
_BUILD_SECONDS, _BUILD_SECONDS_PER_ROW = 120, 0.01


class MilvusBackend:
    """A scratch collection and its index; see `protocol.Backend`.

    The order is create, insert, flush, count, index, load: an index that is named when a collection is created,
    milvus-lite builds behind the caller's back, answers by brute force until then, and does not check. Build parameters
    go in the nested form: milvus-lite ignores the flat one, which is documented.
    """

    def __init__(
        self, name: Literal["lite", "server"], *, place: str, path: Path | None = None, token: str = "", timeout: float
    ) -> None:
        """Connect, and drop what runs that were killed have left.

        Args:
            place: what the user calls it: its address, or its path.
            path: of the milvus-lite database; None of a server.
            timeout: seconds that a request to a server may take.
        """
        import pymilvus  # noqa: F401  # here, since its import sets the level of its logger

        for library in ("pymilvus", "milvus_lite"):  # both log a traceback of what is said in a sentence here
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self.name: BackendName = name
        self.tells_cpu_time = path is not None
        self.tells_wall_time = path is None
        self._place, self._path = place, path
        self._timeout = timeout if path is None else _UNBOUNDED
        self._collection: str | None = None
        self._rows = self._dimensions = 0
        self._index: str | None = None
        self._build: Setting = {}
        self._ready: tuple[Setting, int] | None = None
        self._client: Any = None
        self._is_guest = False  # of a backend whose collection it is
        self._token = token
        self._address = place if path is None else lite_store.start(path)
        try:
            with self._failing("cannot be reached"):
                self._client = self._connected()
                self.version = str(self._client.get_server_version(timeout=timeout))
                self._drop_left_behind()
        except BaseException:
            self.close()
            raise

    def _drop_left_behind(self) -> None:
        for name in self._ask("list_collections"):
            if name.startswith("mo_") and scratch.is_left_behind(
                self._ask("describe_collection", name), alone=self._path is not None
            ):
                self._ask("drop_collection", name)

    def insert(self, vectors: Floats, numbers: Numbers | None = None) -> None:
        check_vectors(vectors, Path("documents"))
        with self._failing("does not take the vectors"):
            self._drop()
            self._rows, self._dimensions = vectors.shape
            self._collection = self._create()
            numbers = np.zeros(self._rows, dtype=np.int64) if numbers is None else numbers
            size = max(1, _INSERTED_AT_ONCE // (4 * self._dimensions))
            starts = range(0, self._rows, size)
            for start in tqdm(
                starts, desc=f"{self.name}: insert", unit="batch", disable=True if len(starts) < 2 else None
            ):
                rows = [
                    {scratch.ID: start + place, scratch.VECTOR: vector, scratch.NUMBER: int(number)}
                    for place, (vector, number) in enumerate(
                        zip(vectors[start : start + size], numbers[start : start + size], strict=True)
                    )
                ]
                self._ask("insert", self._collection, rows)
            self._ask("flush", self._collection)
            self._check_count(int(self._ask("get_collection_stats", self._collection)["row_count"]))

    def _create(self) -> str:
        from pymilvus import DataType, MilvusClient

        name = scratch.new_name()
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=scratch.mark())
        schema.add_field(scratch.ID, DataType.INT64, is_primary=True)
        schema.add_field(scratch.VECTOR, DataType.FLOAT_VECTOR, dim=self._dimensions)
        schema.add_field(scratch.NUMBER, DataType.INT64)
        # "Strong" would let every search wait for the server's next time tick, 200 ms, and that would be its latency.
        self._ask("create_collection", name, schema=schema, consistency_level="Bounded")
        return name

    def _check_count(self, found: int) -> None:
        if found != self._rows:
            raise EngineError(
                f"{self._place}: has {found} rows after {self._rows} were inserted", "Run the same command again"
            )

    def build(self, index: str, parameters: Setting) -> Built:
        collection = self._inserted()
        if index not in BACKEND_INDEXES[self.name]:
            raise UnsupportedIndexError(f"{self.name} has no {index}")
        if self._path and (parameters.get("sq_type", "SQ8") != "SQ8" or "refine_type" in parameters):
            raise UnsupportedIndexError(f"{self.name} keeps {index} in 8 bits, and refines nothing")
        check_build(index, parameters, rows=self._rows, dimensions=self._dimensions)
        self._index = self._ready = None
        with self._failing(f"cannot build {index}"):
            self._remove_index(collection)
            start = time.process_time()
            self._make_index(collection, index, parameters)
            seconds = time.process_time() - start
            counted = self._ask("query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
            self._check_count(int(counted[0]["count(*)"]))
            seen = self._seen(collection, index)
        self._index, self._build = index, dict(parameters)
        files = lite_store.index_files(self._path, collection) if self._path else []
        return Built(seen, seconds if self._path else None, sum(file.stat().st_size for file in files) or None)

    def _remove_index(self, collection: str) -> None:
        if self._ask("list_indexes", collection):
            self._ask("release_collection", collection)
            self._ask("drop_index", collection, scratch.VECTOR)

    def _make_index(self, collection: str, index: str, parameters: Setting) -> None:
        wanted = self._client.prepare_index_params()
        asked = {"params": milvus_build(parameters)}
        wanted.add_index(scratch.VECTOR, index_type=index, metric_type="COSINE", params=asked)
        latest = time.monotonic() + _BUILD_SECONDS + _BUILD_SECONDS_PER_ROW * self._rows
        self._ask("create_index", collection, wanted, sync=False)
        while (state := self._ask("describe_index", collection, scratch.VECTOR))["state"] != "Finished":
            if state["state"] == "Failed":
                raise EngineError(f"{self._place}: cannot build {index}", "Look at the server's log")
            self._wait(latest, f"building {index}")
        self._ask("load_collection", collection, _async=True)
        while str(getattr(self._ask("get_load_state", collection)["state"], "name", "")) != "Loaded":
            self._wait(latest, f"loading {index}")

    def _wait(self, latest: float, what: str) -> None:
        if time.monotonic() > latest:
            raise EngineError(f"{self._place}: {what} takes too long", "Look at the server's log")
        time.sleep(_POLL)

    def _seen(self, collection: str, index: str) -> Setting:
        """Return the build parameters as the index file has them, where there is one, else as Milvus tells them."""
        told = self._ask("describe_index", collection, scratch.VECTOR)
        seen = plain_setting({**told, **(told.get("params") or {})})
        if self._path and index != "FLAT":
            for file in lite_store.index_files(self._path, collection):
                seen |= lite_store.read_index(file)
        return seen

    def search(
        self, queries: Floats, k: int, parameters: Setting, *, below: int | None = None
    ) -> tuple[Places, Floats]:
        collection = self._inserted()
        if self._ready != (parameters, k):
            if self._index is None:
                raise RuntimeError("nothing was built")
            check_setting(self._index, self._build, parameters, rows=self._rows, dimensions=self._dimensions, k=k)
            self._ready = dict(parameters), k
        places = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        with self._failing(f"cannot search {self._index}"):
            for start in range(0, len(queries), _SEARCHED_AT_ONCE):
                found = self._ask(
                    "search",
                    collection,
                    data=list(queries[start : start + _SEARCHED_AT_ONCE]),
                    limit=k,
                    anns_field=scratch.VECTOR,
                    search_params={"params": dict(parameters)},
                    filter="" if below is None else f"{scratch.NUMBER} < {below}",
                    output_fields=[scratch.ID],
                )
                for place, hits in enumerate(found, start):
                    places[place, : len(hits)] = [hit[scratch.ID] for hit in hits]
                    scores[place, : len(hits)] = [hit["distance"] for hit in hits]
        return places, scores

    def connect(self) -> Self:
        other = copy.copy(self)
        other._is_guest = True
        other._client = None
        with self._failing("takes no further connection"):
            other._client = self._connected()
        return other

    def _connected(self) -> Any:
        from pymilvus import MilvusClient

        return MilvusClient(self._address, token=self._token, timeout=self._timeout, dedicated=True)

    def close(self) -> None:
        if self._is_guest:
            self._client.close()
            return
        with contextlib.suppress(EngineError):  # who is gone has nothing of ours to drop now; the next run does
            if self._client is not None:
                with self._failing("cannot be tidied"):
                    self._drop()
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._path:
            lite_store.stop(self._path)

    def _drop(self) -> None:
        if self._collection is not None:
            self._ask("drop_collection", self._collection)
            self._collection = self._index = self._ready = None

    def _inserted(self) -> str:
        if self._collection is None:
            raise RuntimeError("nothing was inserted")
        return self._collection

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        function: Callable[..., Any] = getattr(self._client, method)
        return function(*arguments, timeout=self._timeout, **options)

    def _failing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return in_a_sentence(self._place, what)
