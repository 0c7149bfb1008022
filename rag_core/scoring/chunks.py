"""What has to be computed, cut into chunks that are kept on disk as they are finished."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Generic, Literal, TypeVar

from rag_core.engines.canary import check_finite
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder
from rag_core.files.chunk_store import ChunkStore

logger = logging.getLogger(__name__)

Row = TypeVar("Row", Pair, str)
Item = TypeVar("Item")

Unit = Literal["pair", "query", "passage"]
_PLURALS: dict[Unit, str] = {"pair": "pairs", "query": "queries", "passage": "passages"}
_SECONDS_BETWEEN_NOTES = 60  # where there is no terminal for a bar, as in a batch job's log
_WINDOW_ROWS = 2**15  # that are looked up, and texts sorted by length, at once


@dataclass(frozen=True)
class Work:
    """A model, and where the rows that it computes are kept.

    Attributes:
        scope: what determines a score beside the texts: model, precision, prompt. Part of every row's key.
        folders: where computed rows are found; new ones go to the first.
        chunk_rows: pairs (or texts, for a `TextEncoder`) that are computed and kept together.
    """

    model: PairScorer | TextEncoder
    scope: str
    folders: Sequence[Path]
    chunk_rows: int


def _blocks(rows: Iterator[Item], size: int) -> Iterator[list[Item]]:
    for first in rows:
        yield [*chain([first], islice(rows, size - 1))]


class Chunks(Generic[Row]):
    """The rows that the store does not have, cut into chunks as they are asked for; a query's pairs stay together.

    Attributes:
        seen: rows gone through so far.
        kept: rows whose values are in the store by now, of those that were missing.
        out: rows that were found missing and are not kept yet.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        key_of: Callable[[Row], bytes],
        store: ChunkStore,
        chunk_rows: int,
        *,
        by_length: bool,
    ) -> None:
        self._rows: Iterable[Row] = rows
        self._key_of: Callable[[Row], bytes] = key_of
        self._store = store
        self._chunk_rows = chunk_rows
        self._by_length = by_length
        self._in_work: dict[int, list[bytes]] = {}  # by number of the chunk
        self.seen = self.kept = self.out = 0

    def __iter__(self) -> Iterator[list[Row]]:
        pending: dict[bytes, None] = {}  # found missing, and not cut into a chunk yet
        chunk: list[Row] = []
        number = 0
        for window in _blocks(iter(self._rows), _WINDOW_ROWS):
            keys = [self._key_of(row) for row in window]
            coming = {*pending, *chain.from_iterable(self._in_work.values())}
            todo = {keys[i]: window[i] for i in self._store.missing(keys) if keys[i] not in coming}
            self.seen += len(window)
            self.out += len(todo)
            if self._by_length:
                todo = dict(sorted(todo.items(), key=lambda item: (-len(item[1]), item[1])))
            for key, row in todo.items():
                if self._is_full(chunk, row):
                    yield self._send(number, chunk, pending)
                    number, chunk, pending = number + 1, [], {}
                chunk.append(row)
                pending[key] = None
        if chunk:
            yield self._send(number, chunk, pending)

    def keep(self, number: int, values: Floats) -> None:
        """Put the values of a chunk into the store."""
        keys = self._in_work.pop(number)
        check_finite(values)
        self._store.write(keys, values)
        self.out -= len(keys)
        self.kept += len(keys)

    def _is_full(self, chunk: list[Row], row: Row) -> bool:
        if len(chunk) < self._chunk_rows:
            return False
        same_query = not isinstance(row, str) and row[0] == chunk[-1][0]
        return not same_query or len(chunk) >= 2 * self._chunk_rows

    def _send(self, number: int, chunk: list[Row], keys: Iterable[bytes]) -> list[Row]:
        self._in_work[number] = list(keys)
        return chunk


def keep_values(chunks: Chunks[Row], values: Iterator[tuple[int, Floats]], unit: Unit, total: int | None) -> None:
    """Keep the values of chunks as they come, under a progress bar."""
    from tqdm import tqdm

    started = told = time.monotonic()
    name = _PLURALS[unit]
    with tqdm(total=total, unit=unit, desc=f"score {name}", disable=None) as bar:
        for number, computed in values:
            chunks.keep(number, computed)
            done = chunks.seen - chunks.out
            bar.initial = done - chunks.kept  # what was found counts as done, not into the rate
            bar.update(done - bar.n)
            if bar.disable and time.monotonic() - told > _SECONDS_BETWEEN_NOTES:
                told = time.monotonic()
                rate = chunks.kept / (told - started)
                left = f", {(total - done) / rate / 60:.0f} minutes left" if total else ""
                logger.info("%d%s %s, %.0f/s%s", done, f" of {total}" if total else "", name, rate, left)
        bar.update(chunks.seen - bar.n)
