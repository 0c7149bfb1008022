"""A model over samples: what has to be computed, in chunks that are kept, and the `ScoredPair` rows that come out.

Samples stream through: of all the texts, those of one window are in memory at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from rag_core.chunk_store import ChunkStore, row_key
from rag_core.engines.canary import check_finite
from rag_core.engines.protocols import (
    ChunkPairScorer,
    ChunkTextEncoder,
    Floats,
    Pair,
    PairScorer,
    Role,
    TextEncoder,
)
from rag_core.records import RankingSample, ScoredPair

Row = TypeVar("Row", Pair, str)
Item = TypeVar("Item")

_SECONDS_BETWEEN_NOTES = 60  # where there is no terminal for a bar, as in a batch job's log
_BLOCK_FLOATS = 2**22  # of vectors that are in memory at once while cosines are taken
_BLOCK_PAIRS = 2**13  # whose scores are read at once
_WINDOW_ROWS = 2**15  # that are looked up, and texts sorted by length, at once

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A model at work.

    Attributes:
        scope: what determines a score beside the texts: model, precision, prompt. Part of every row's key.
        folders: where computed rows are found; new ones go to the first.
        chunk_rows: pairs (or texts, for a `TextEncoder`) that are computed and kept together.
    """

    model: PairScorer | TextEncoder
    scope: str
    folders: Sequence[Path]
    chunk_rows: int


@dataclass(frozen=True)
class TextVectors:
    """Vectors of texts by role, each of length 1, read from disk when they are asked for."""

    stores: Mapping[Role, ChunkStore]
    scope: str
    dimensions: int

    def of(self, texts: Sequence[tuple[Role, str]]) -> Floats:
        """Return the vectors of (role, text) pairs; shape (texts, dimensions)."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for role, store in self.stores.items():
            mine = [i for i, (of, _) in enumerate(texts) if of == role]
            if mine:
                vectors[mine] = store.read([row_key(self.scope, role, texts[i][1]) for i in mine])
        return vectors


def score_samples(
    samples: Iterable[RankingSample], work: Work, *, pairs: int | None = None
) -> Iterator[tuple[RankingSample, list[ScoredPair]]]:
    """Yield every sample with its distinct candidates and their scores, in the order of the samples.

    A pair that stands in several samples is scored once, a text of a role is embedded once. Pairs of a query stay
    neighbours, so that an engine with a prefix cache reads the query once.

    Args:
        samples: gone through several times.
        pairs: how many candidates they have, for the progress bar.

    Raises:
        EngineError: a score is not finite, or as the engine raises.
    """
    if isinstance(work.model, PairScorer):
        read, block_pairs = _pair_scores(samples, work, pairs), _BLOCK_PAIRS
    else:
        read = _cosines(samples, work, pairs)
        block_pairs = max(1, _BLOCK_FLOATS // work.model.dimensions)
    for block in _sample_blocks(samples, block_pairs):
        candidates = [list(sample.passages()) for sample in block]
        scores = iter(read([(s.query, text) for s, found in zip(block, candidates, strict=True) for text, _ in found]))
        for sample, found in zip(block, candidates, strict=True):
            yield (
                sample,
                [
                    ScoredPair(
                        query_id=sample.query_id or "",
                        query=sample.query,
                        passage=passage,
                        score=float(str(next(scores))),  # the shortest decimal that is this float32
                        label=label,
                    )
                    for passage, label in found
                ],
            )


def embed_samples(samples: Iterable[RankingSample], work: Work, *, pairs: int | None = None) -> dict[Role, ChunkStore]:
    """Embed all queries and passages of samples, which are gone through twice; return where their vectors are.

    Of several files at once: a text that stands in two is embedded once, and long texts share their batches.
    """
    queries = embed_texts((sample.query for sample in samples), "query", work)
    passages = (passage for sample in samples for passage, _ in sample.passages())
    return {"query": queries, "passage": embed_texts(passages, "passage", work, total=pairs)}


def embed_texts(texts: Iterable[str], role: Role, work: Work, *, total: int | None = None) -> ChunkStore:
    """Embed texts of a role, each once, the longest of a window first; return the store of their vectors.

    Its keys are `row_key(scope, role, text)`.
    """
    assert isinstance(work.model, TextEncoder)
    model, store = work.model, ChunkStore(work.folders, role)
    chunks = _Chunks(texts, lambda text: row_key(work.scope, role, text), store, work.chunk_rows, by_length=True)
    if isinstance(model, ChunkTextEncoder):
        values = model.encode_chunks(chunks, role)
    else:
        values = ((number, model.encode(chunk, role)) for number, chunk in enumerate(chunks))
    _compute(chunks, values, f"{role}s", total)
    return store


def spread_samples(samples: Iterable[RankingSample], count: int) -> list[RankingSample]:
    """Return up to `count` samples from all over, evenly spread."""
    kept: list[RankingSample] = []
    step = 1  # every step-th sample is kept, and every other dropped again when they become too many
    for number, sample in enumerate(samples):
        if number % step == 0:
            kept.append(sample)
            if len(kept) > 4 * count:
                kept, step = kept[::2], 2 * step
    return [kept[i] for i in np.linspace(0, len(kept) - 1, num=min(len(kept), count)).astype(int)]


def spread_pairs(samples: Iterable[RankingSample], count: int) -> list[Pair]:
    """Return up to `count` distinct pairs from all over the samples: first and last candidate of evenly chosen ones."""
    chosen: dict[Pair, None] = {}
    for sample in spread_samples(samples, (count + 1) // 2):
        passages = [passage for passage, _ in sample.passages()]
        chosen |= {(sample.query, passage): None for passage in (passages[0], passages[-1])}
    return list(chosen)[:count]


def _pair_scores(
    samples: Iterable[RankingSample], work: Work, total: int | None
) -> Callable[[Sequence[Pair]], Sequence[np.float32]]:
    """Score all pairs of the samples; return what looks scores up."""
    assert isinstance(work.model, PairScorer)
    model, store = work.model, ChunkStore(work.folders, "pair")
    pairs = ((sample.query, passage) for sample in samples for passage, _ in sample.passages())
    chunks = _Chunks(pairs, lambda pair: row_key(work.scope, *pair), store, work.chunk_rows, by_length=False)
    if isinstance(model, ChunkPairScorer):
        values = model.score_chunks(chunks)
    else:
        values = ((number, model.score(chunk)) for number, chunk in enumerate(chunks))
    _compute(chunks, values, "pairs", total)
    return lambda pairs: list(store.read([row_key(work.scope, *pair) for pair in pairs]))


def _cosines(
    samples: Iterable[RankingSample], work: Work, total: int | None
) -> Callable[[Sequence[Pair]], Sequence[np.float32]]:
    """Embed all texts of the samples; return what takes the cosines of pairs of them."""
    stores = embed_samples(samples, work, pairs=total)

    def cosines(pairs: Sequence[Pair]) -> Sequence[np.float32]:
        row_of = {query: row for row, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
        left = stores["query"].read([row_key(work.scope, "query", query) for query in row_of])
        right = stores["passage"].read([row_key(work.scope, "passage", passage) for _, passage in pairs])
        return list(np.einsum("ij,ij->i", left[[row_of[query] for query, _ in pairs]], right))

    return cosines


def _sample_blocks(samples: Iterable[RankingSample], pairs: int) -> Iterator[list[RankingSample]]:
    """Yield consecutive samples of about so many pairs."""
    block: list[RankingSample] = []
    size = 0
    for sample in samples:
        block.append(sample)
        size += len(sample.positive or ()) + len(sample.negative or ()) + len(sample.candidates or ())
        if size >= pairs:
            yield block
            block, size = [], 0
    if block:
        yield block


def _blocks(rows: Iterator[Item], size: int) -> Iterator[list[Item]]:
    for first in rows:
        yield [*chain([first], islice(rows, size - 1))]


class _Chunks(Generic[Row]):
    """The rows that the store does not have, cut into chunks as they are asked for; a query's pairs stay together.

    Attributes:
        seen: rows gone through so far.
        kept: rows whose values were put into the store.
        out: rows that are in work.
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

    def keep(self, number: int, values: Floats) -> int:
        """Put the values of a chunk into the store; return their number."""
        keys = self._in_work.pop(number)
        check_finite(values)
        self._store.write(keys, values)
        self.out -= len(keys)
        self.kept += len(keys)
        return len(keys)

    def _is_full(self, chunk: list[Row], row: Row) -> bool:
        if len(chunk) < self._chunk_rows:
            return False
        same_query = not isinstance(row, str) and row[0] == chunk[-1][0]
        return not same_query or len(chunk) >= 2 * self._chunk_rows

    def _send(self, number: int, chunk: list[Row], keys: Iterable[bytes]) -> list[Row]:
        self._in_work[number] = list(keys)
        return chunk


def _compute(chunks: _Chunks[Row], values: Iterator[tuple[int, Floats]], name: str, total: int | None) -> None:
    """Keep the values of chunks as they come, under a progress bar."""
    from tqdm import tqdm

    started = told = time.monotonic()
    with tqdm(total=total, unit=name.removesuffix("s"), desc=f"score {name}", disable=None) as bar:
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
