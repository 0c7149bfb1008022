"""A model over samples: the plan, the chunks, and the `ScoredPair` rows that come out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from rag_core.chunk_store import ChunkStore, row_key
from rag_core.engines.canary import check_finite
from rag_core.engines.protocols import Floats, Pair, PairScorer, Role, TextEncoder
from rag_core.records import RankingSample, ScoredPair

Row = TypeVar("Row", Pair, str)

_SECONDS_BETWEEN_NOTES = 60  # where there is no terminal for a bar, as in a batch job's log

logger = logging.getLogger(__name__)


def score_samples(
    samples: Sequence[RankingSample], model: PairScorer | TextEncoder, store: ChunkStore, *, chunk_rows: int
) -> Iterator[ScoredPair]:
    """Yield every distinct candidate of every sample with its score, in the order of the samples.

    A pair that stands in several samples is scored once. Pairs of a query stay neighbours, so that an engine
    with a prefix cache reads the query once.

    Args:
        chunk_rows: pairs (or texts, for a `TextEncoder`) that are computed and kept together.

    Raises:
        EngineError: a score is not finite, or as the engine raises.
    """
    if isinstance(model, PairScorer):
        scores = _score_pairs(samples, model, store, chunk_rows)
    else:
        scores = _score_texts(samples, model, store, chunk_rows)
    for sample in samples:
        for passage, label in sample.passages():
            yield ScoredPair(
                query_id=sample.query_id or "",
                query=sample.query,
                passage=passage,
                score=float(str(next(scores))),  # the shortest decimal that is this float32
                label=label,
            )


def spread_pairs(samples: Sequence[RankingSample], count: int) -> list[Pair]:
    """Return up to `count` distinct pairs from all over the samples: first and last candidate of each chosen one."""
    chosen: dict[Pair, None] = {}
    for index in np.linspace(0, len(samples) - 1, num=min(len(samples), (count + 1) // 2)).astype(int):
        passages = [passage for passage, _ in samples[index].passages()]
        chosen |= {(samples[index].query, passage): None for passage in (passages[0], passages[-1])}
    return list(chosen)[:count]


def _score_pairs(
    samples: Sequence[RankingSample], model: PairScorer, store: ChunkStore, chunk_rows: int
) -> Iterator[np.float32]:
    pairs = list(dict.fromkeys((sample.query, passage) for sample in samples for passage, _ in sample.passages()))
    chunks = _compute(pairs, model.score, store, chunk_rows, name="pair")
    score_of = dict(zip(pairs, np.concatenate(list(chunks)), strict=True))
    for sample in samples:
        for passage, _ in sample.passages():
            yield score_of[sample.query, passage]


def _score_texts(
    samples: Sequence[RankingSample], model: TextEncoder, store: ChunkStore, chunk_rows: int
) -> Iterator[np.float32]:
    """Embed each text of a role once, longest first, into a memory-mapped matrix; then take the cosines."""
    queries = {sample.query for sample in samples}
    passages = {passage for sample in samples for passage, _ in sample.passages()}
    query_rows, query_vectors = _embed(queries, "query", model, store, chunk_rows)
    passage_rows, passage_vectors = _embed(passages, "passage", model, store, chunk_rows)
    for sample in samples:
        rows = [passage_rows[passage] for passage, _ in sample.passages()]
        yield from passage_vectors[rows] @ query_vectors[query_rows[sample.query]]


def _embed(
    texts: set[str], role: Role, model: TextEncoder, store: ChunkStore, chunk_rows: int
) -> tuple[dict[str, int], Floats]:
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    path = store.directory / f"{role}.f32"
    with path.open("wb") as file:  # a mapped file on a full disk would end the process without a word
        os.posix_fallocate(file.fileno(), 0, len(ordered) * model.dimensions * 4)
    vectors = np.memmap(path, dtype=np.float32, mode="r+", shape=(len(ordered), model.dimensions))
    start = 0
    for chunk in _compute(ordered, lambda rows: model.encode(rows, role), store, chunk_rows, name=role):
        vectors[start : start + len(chunk)] = chunk
        start += len(chunk)
    return {text: row for row, text in enumerate(ordered)}, vectors


def _compute(
    rows: Sequence[Row], compute: Callable[[Sequence[Row]], Floats], store: ChunkStore, chunk_rows: int, *, name: str
) -> Iterator[Floats]:
    """Yield the values of the rows, chunk by chunk; compute and keep the chunks that are not in the store yet."""
    from tqdm import tqdm

    chunks = {
        f"{name}-{start // chunk_rows:06d}": rows[start : start + chunk_rows]
        for start in range(0, len(rows), chunk_rows)
    }
    kept = sum(len(chunk) for chunk_name, chunk in chunks.items() if store.has(chunk_name))
    done = kept
    started = told = time.monotonic()
    # What an earlier run kept counts as done, not into the rate.
    with tqdm(total=len(rows), initial=kept, unit=name, desc=f"score {name}s", disable=None) as bar:
        for chunk_name, chunk in chunks.items():
            keys = [row_key(row) if isinstance(row, str) else row_key(*row) for row in chunk]
            values = store.read(chunk_name, keys)
            if values is None:
                values = compute(chunk)
                check_finite(values)
                store.write(chunk_name, keys, values)
                bar.update(len(chunk))
                done += len(chunk)
                if bar.disable and time.monotonic() - told > _SECONDS_BETWEEN_NOTES:
                    told = time.monotonic()
                    rate = (done - kept) / (told - started)
                    left = (len(rows) - done) / rate
                    logger.info("%d of %d %ss, %.0f/s, %.0f minutes left", done, len(rows), name, rate, left / 60)
            yield values
