"""A model over samples: what has to be computed, in chunks that are kept, and the `ScoredPair` rows that come out.

Samples stream through: of all the texts, those of one window are in memory at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.protocols import ChunkPairScorer, Pair, PairScorer
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.scoring.chunks import Chunks, Work, compute
from rag_core.scoring.vectors import embed_samples

_BLOCK_FLOATS = 2**22  # of vectors that are in memory at once while cosines are taken
_BLOCK_PAIRS = 2**13  # whose scores are read at once

logger = logging.getLogger(__name__)


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


def _pair_scores(
    samples: Iterable[RankingSample], work: Work, total: int | None
) -> Callable[[Sequence[Pair]], Sequence[np.float32]]:
    """Score all pairs of the samples; return what looks scores up."""
    assert isinstance(work.model, PairScorer)
    model, store = work.model, ChunkStore(work.folders, "pair")
    pairs = ((sample.query, passage) for sample in samples for passage, _ in sample.passages())
    chunks = Chunks(pairs, lambda pair: row_key(work.scope, *pair), store, work.chunk_rows, by_length=False)
    if isinstance(model, ChunkPairScorer):
        values = model.score_chunks(chunks)
    else:
        values = ((number, model.score(chunk)) for number, chunk in enumerate(chunks))
    compute(chunks, values, "pairs", total)
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
