"""Searches one after another, in an order drawn anew, each timed by itself: single queries are what users wait for."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.protocol import Backend
from milvus_optimization.records import Setting

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]

_LARGEST_CHANGE = 0.2  # of the median time from one pass to the next: more, and the machine was busy with other things
_AT_ONCE = 64  # queries of a search that nobody times


@dataclasses.dataclass(frozen=True)
class Pass:
    """Every query once.

    Attributes:
        places: shape (queries, k).
        cpu, wall: seconds; shape (queries,).
    """

    places: Places
    cpu: Seconds
    wall: Seconds


def search_each(backend: Backend, queries: Floats, k: int, parameters: Setting, order: Places) -> Pass:
    """Search for one query after another; where the backend tells no time, for several at once."""
    places = np.full((len(queries), k), -1, dtype=np.int64)
    cpu, wall = np.zeros(len(queries)), np.zeros(len(queries))
    step = 1 if backend.tells_cpu_time or backend.tells_wall_time else _AT_ONCE
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        asked = queries[rows]
        began, began_cpu = time.perf_counter(), time.process_time()
        found, _ = backend.search(asked, k, parameters)
        cpu[rows], wall[rows] = time.process_time() - began_cpu, time.perf_counter() - began
        places[rows] = found
    return Pass(places, cpu, wall)


def is_noisy(first: Seconds, second: Seconds) -> bool:
    """Tell whether the median time of two passes over the same queries differs too much."""
    slower, faster = sorted((float(np.median(first)), float(np.median(second))), reverse=True)
    return slower > (1 + _LARGEST_CHANGE) * faster


def search_together(
    backend: Backend, queries: Floats, k: int, parameters: Setting, *, below: int | None = None
) -> Places:
    """Search for several queries at once, which nobody times; return the places, shape (queries, k)."""
    found = [
        backend.search(queries[start : start + _AT_ONCE], k, parameters, below=below)[0]
        for start in range(0, len(queries), _AT_ONCE)
    ]
    return np.concatenate(found)


def queries_per_second(backend: Backend, queries: Floats, k: int, parameters: Setting, clients: int) -> float:
    """Let clients with connections of their own share queries, each asking for its next one as it has an answer."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for row in range(len(queries)):
        waiting.put(row)

    def work(client: Backend) -> None:
        while True:
            try:
                row = waiting.get_nowait()
            except queue.Empty:
                return
            client.search(queries[row : row + 1], k, parameters)

    with contextlib.ExitStack() as stack:
        connected = [stack.enter_context(contextlib.closing(backend.connect())) for _ in range(clients)]
        with ThreadPoolExecutor(clients) as threads:
            began = time.perf_counter()
            for done in [threads.submit(work, client) for client in connected]:
                done.result()
            return len(queries) / (time.perf_counter() - began)
