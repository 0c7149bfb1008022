"""A model over samples: what has to be computed, in chunks that are kept, and the `ScoredPair` rows that come out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from rag_core.chunk_store import ChunkStore, row_key
from rag_core.engines.canary import check_finite
from rag_core.engines.protocols import Floats, Pair, PairScorer, Role, TextEncoder
from rag_core.records import Label, RankingSample, ScoredPair

Row = TypeVar("Row")

_SECONDS_BETWEEN_NOTES = 60  # where there is no terminal for a bar, as in a batch job's log
_BLOCK_FLOATS = 2**22  # of vectors that are in memory at once while cosines are taken

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
                vectors[mine] = store.read([text_key(texts[i][1], role, self.scope) for i in mine])
        return vectors


def score_samples(samples: Sequence[RankingSample], work: Work) -> Iterator[ScoredPair]:
    """Yield every distinct candidate of every sample with its score, in the order of the samples.

    A pair that stands in several samples is scored once, a text of a role is embedded once. Pairs of a query stay
    neighbours, so that an engine with a prefix cache reads the query once.

    Raises:
        EngineError: a score is not finite, or as the engine raises.
    """
    scores = _pair_scores(samples, work) if isinstance(work.model, PairScorer) else _cosines(samples, work)
    for (sample, passage, label), score in zip(_candidates(samples), scores, strict=True):
        yield ScoredPair(
            query_id=sample.query_id or "",
            query=sample.query,
            passage=passage,
            score=float(str(score)),  # the shortest decimal that is this float32
            label=label,
        )


def embed_samples(samples: Iterable[RankingSample], work: Work) -> None:
    """Embed all queries and passages of some samples, so that scoring them finds their vectors there.

    Of several files at once: a text that stands in two is embedded once, and long texts share their batches.
    """
    queries: set[str] = set()
    passages: set[str] = set()
    for sample in samples:
        queries.add(sample.query)
        passages.update(passage for passage, _ in sample.passages())
    embed_texts(queries, "query", work)
    embed_texts(passages, "passage", work)


def embed_texts(texts: set[str], role: Role, work: Work) -> ChunkStore:
    """Embed texts of a role, longest first; return the store of their vectors, see `text_key`."""
    store = ChunkStore(work.folders, role)
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    keys = [text_key(text, role, work.scope) for text in ordered]

    def encode(rows: Sequence[str]) -> Floats:
        assert isinstance(work.model, TextEncoder)
        return work.model.encode(rows, role)

    _compute(ordered, keys, encode, store, work.chunk_rows, name=f"{role}s")
    return store


def text_key(text: str, role: Role, scope: str) -> str:
    """Return the key of a text's vector."""
    return row_key(scope, role, text)


def spread_pairs(samples: Sequence[RankingSample], count: int) -> list[Pair]:
    """Return up to `count` distinct pairs from all over the samples: first and last candidate of each chosen one."""
    chosen: dict[Pair, None] = {}
    for index in np.linspace(0, len(samples) - 1, num=min(len(samples), (count + 1) // 2)).astype(int):
        passages = [passage for passage, _ in samples[index].passages()]
        chosen |= {(samples[index].query, passage): None for passage in (passages[0], passages[-1])}
    return list(chosen)[:count]


def _candidates(samples: Iterable[RankingSample]) -> Iterator[tuple[RankingSample, str, Label]]:
    for sample in samples:
        for passage, label in sample.passages():
            yield sample, passage, label


def _pair_scores(samples: Sequence[RankingSample], work: Work) -> Iterator[np.float32]:
    assert isinstance(work.model, PairScorer)
    store = ChunkStore(work.folders, "pair")
    pairs = list(dict.fromkeys((sample.query, passage) for sample, passage, _ in _candidates(samples)))
    keys = [row_key(work.scope, *pair) for pair in pairs]
    _compute(pairs, keys, work.model.score, store, work.chunk_rows, name="pairs")
    score_of = dict(zip(pairs, store.read(keys), strict=True))
    return (score_of[sample.query, passage] for sample, passage, _ in _candidates(samples))


def _cosines(samples: Sequence[RankingSample], work: Work) -> Iterator[np.float32]:
    """Take the cosines of a block of pairs at a time: vectors of all texts need not fit into memory."""
    assert isinstance(work.model, TextEncoder)
    queries = embed_texts({sample.query for sample in samples}, "query", work)
    passages = embed_texts({passage for _, passage, _ in _candidates(samples)}, "passage", work)
    block_rows = max(1, _BLOCK_FLOATS // work.model.dimensions)
    for block in _blocks(_candidates(samples), block_rows):
        rows = np.cumsum([0, *(now[0] is not before[0] for before, now in pairwise(block))])
        distinct = [block[i][0].query for i in np.flatnonzero(np.diff(rows, prepend=-1))]
        left = queries.read([text_key(query, "query", work.scope) for query in distinct])[rows]
        right = passages.read([text_key(passage, "passage", work.scope) for _, passage, _ in block])
        yield from np.einsum("ij,ij->i", left, right)


def _blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    for first in rows:
        yield [*chain([first], islice(rows, size - 1))]


def _compute(
    rows: Sequence[Row],
    keys: Sequence[str],
    compute: Callable[[Sequence[Row]], Floats],
    store: ChunkStore,
    chunk_rows: int,
    *,
    name: str,
) -> None:
    """Compute and keep the values of the rows that are not in the store yet, chunk by chunk."""
    from tqdm import tqdm

    missing = store.missing(keys)
    done = kept = len(rows) - len(missing)
    started = told = time.monotonic()
    # What was found counts as done, not into the rate.
    with tqdm(total=len(rows), initial=kept, unit=name.removesuffix("s"), desc=f"score {name}", disable=None) as bar:
        for start in range(0, len(missing), chunk_rows):
            chunk = missing[start : start + chunk_rows]
            values = compute([rows[i] for i in chunk])
            check_finite(values)
            store.write([keys[i] for i in chunk], values)
            bar.update(len(chunk))
            done += len(chunk)
            if bar.disable and time.monotonic() - told > _SECONDS_BETWEEN_NOTES:
                told = time.monotonic()
                rate = (done - kept) / (told - started)
                left = (len(rows) - done) / rate
                logger.info("%d of %d %s, %.0f/s, %.0f minutes left", done, len(rows), name, rate, left / 60)
