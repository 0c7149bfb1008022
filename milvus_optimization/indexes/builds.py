"""Indexes that stand: each build setting is built once, and no two trials of it in a row build it again."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.protocol import Backend, Built
from milvus_optimization.backends.space import BuildSetting
from milvus_optimization.indexes.trial import filter_numbers

Floats = npt.NDArray[np.float32]


def build_name(setting: BuildSetting) -> str:
    """Return what tells one build from another."""
    return json.dumps([setting.index, setting.build], sort_keys=True)


class Builds:
    """A context manager that opens backends when they are needed, one for each index that stands, and closes them."""

    def __init__(self, open_one: Callable[[], Backend], documents: Floats, *, most: int, seed: int) -> None:
        """Prepare it.

        Args:
            open_one: opens a backend without vectors.
            most: how many indexes may stand at once; a further one takes the place of the one that was not asked for
                the longest.
            seed: of the numbers by which searches are filtered.
        """
        self._open_one = open_one
        self._documents = documents
        self._most = most
        self._seed = seed
        self._standing: OrderedDict[str, tuple[Backend, Built]] = OrderedDict()
        self._spare: list[Backend] = []

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all backends."""
        for backend in [*(backend for backend, _ in self._standing.values()), *self._spare]:
            backend.close()

    def get(self, setting: BuildSetting) -> tuple[Backend, Built]:
        """Return a backend in which an index stands, and what it says of it.

        Raises:
            UnsupportedIndexError: there is no such index here.
            DataError, EngineError: the backend fails.
        """
        name = build_name(setting)
        if name not in self._standing:
            backend = self._backend()
            self._spare.append(backend)  # until an index stands in it
            built = backend.build(setting.index, setting.build)
            self._spare.remove(backend)
            self._standing[name] = backend, built
        self._standing.move_to_end(name)
        return self._standing[name]

    def _backend(self) -> Backend:
        if self._spare:
            return self._spare.pop()
        if len(self._standing) >= self._most:
            return self._standing.popitem(last=False)[1][0]
        backend = self._open_one()
        try:
            backend.insert(self._documents, filter_numbers(len(self._documents), self._seed))
        except BaseException:
            backend.close()
            raise
        return backend
