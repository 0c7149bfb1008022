"""A backend whose recall and time are known: it drops neighbours and moves a clock by hand."""

import numpy as np

from milvus_optimization.backends.protocol import Built, UnsupportedIndexError
from milvus_optimization.backends.space import BuildSetting
from rag_core.base.errors import EngineError

MICROSECOND = 2**-20  # near enough, and sums of it are exact


class Clock:
    """Stands for `time` in the module that times searches: seconds pass where a search says so."""

    def __init__(self):
        self.seconds = 0.0

    def process_time(self):
        return self.seconds

    perf_counter = process_time


class FakeBackend:
    """Index "GRAPH" finds a share of the neighbours that rises with `ef`, and takes `ef` microseconds.

    Attributes:
        lost: how many of the ten results of a query are wrong ones at a width.
        faults: what goes wrong, by what is done: "build GRAPH" or "search 40" -> errors of the next calls, by turns.
        done: all that was done.
    """

    name = "faiss"
    version = "fake 1"
    tells_cpu_time = True
    tells_wall_time = False

    def __init__(self, clock, done, faults=None, lost=None):
        self.clock, self.done, self.faults = clock, done, faults if faults is not None else {}
        self.lost = lost or (lambda index, build, search: max(0, 8 - search.get("ef", 1000) // 10))
        self.index = None

    def insert(self, vectors, numbers=None):
        self.numbers = numbers
        self.vectors = np.asarray(vectors)
        self.done.append(f"insert {len(vectors)}")

    def build(self, index, parameters):
        self.done.append(f"build {index} {parameters.get('M', '')}".strip())
        self._fail(f"build {index}")
        if index == "NONE":
            raise UnsupportedIndexError("there is no NONE here")
        self.index, self.parameters = index, parameters
        seen = {"M": 16} if index == "DEAF" else parameters
        return Built(seen, 1.5, 4000)

    def search(self, queries, k, parameters, *, below=None):
        if below is None:
            self.done.append(f"search {self.index} {parameters.get('ef', '')}".strip())
        self._fail(f"search {parameters.get('ef')}")
        self.clock.seconds += len(queries) * parameters.get("ef", 1000) * MICROSECOND
        scores = queries @ self.vectors.T
        if below is not None:
            scores[:, self.numbers >= below] = -np.inf
        places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, places, 1)
        places[scores == -np.inf] = -1
        lost = 0 if self.index == "FLAT" else self.lost(self.index, self.parameters, parameters)
        if lost:  # from the end of the list; whole neighbourhoods in "PRUNED"
            where = slice(None, lost) if self.index == "PRUNED" else slice(k - lost, None)
            places[:, where], scores[:, where] = -1, -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)

    def close(self):
        self.done.append("close")

    def _fail(self, doing):
        if self.faults.get(doing):
            error = self.faults[doing].pop(0)
            if error:
                raise EngineError(error, "Start it")


def graph(*widths, index="GRAPH", **build):
    return BuildSetting(index, build or {"M": 8}, tuple({"ef": width} for width in widths))


FLAT = BuildSetting("FLAT", {}, ({},))
