"""A model over samples: what has to be computed, in chunks that are kept, and the `ScoredPair` rows that come out.

Samples stream through: of all the texts, those of one window are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.protocols import ChunkPairScorer, Floats, Pair, PairScorer
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.scoring.chunks import Chunks, Work, keep_values
from rag_core.scoring.vectors import TextVectors, embed_samples

_BLOCK_FLOATS = 2**22  # of vectors that are in memory at once while cosines are taken
_BLOCK_PAIRS = 2**13  # whose scores are read at once


class Scores(Protocol):
    """Scores of pairs, read from disk when they are asked for."""

    @property
    def block_pairs(self) -> int:
        """How many pairs to ask for at once."""
        ...

    def of(self, pairs: Sequence[Pair]) -> Floats:
        """Return the scores of pairs; shape (pairs,).

        Raises:
            KeyError: one has no score.
        """
        ...


@dataclass(frozen=True)
class PairScores:
    """Scores by a model that reads query and passage together."""

    store: ChunkStore
    scope: str

    @property
    def block_pairs(self) -> int:
        return _BLOCK_PAIRS

    def of(self, pairs: Sequence[Pair]) -> Floats:
        return self.store.read([row_key(self.scope, *pair) for pair in pairs])


@dataclass(frozen=True)
class Cosines:
    """Scores by an embedder."""

    vectors: TextVectors

    @property
    def block_pairs(self) -> int:
        return max(1, _BLOCK_FLOATS // self.vectors.dimensions)

    def of(self, pairs: Sequence[Pair]) -> Floats:
        row_of = {query: row for row, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
        left = self.vectors.of([("query", query) for query in row_of])
        right = self.vectors.of([("passage", passage) for _, passage in pairs])
        cosines: Floats = np.einsum("ij,ij->i", left[[row_of[query] for query, _ in pairs]], right)
        return cosines


def compute_scores(samples: Iterable[RankingSample], work: Work, *, pairs: int | None = None) -> Scores:
    """Compute what is missing of the samples' scores, and keep it.

    A pair that stands in several samples is scored once, a text of a role is embedded once. Pairs of a query stay
    neighbours, so that an engine with a prefix cache reads the query once.

    Args:
        samples: gone through once, by an embedder twice.
        pairs: how many candidates they have, for the progress bar.

    Raises:
        EngineError: a score is not finite, or as the engine raises.
    """
    if not isinstance(work.model, PairScorer):
        return Cosines(embed_samples(samples, work, pairs=pairs))
    store = ChunkStore(work.folders, "pair")
    rows = ((sample.query, passage) for sample in samples for passage, _ in sample.passages())
    chunks = Chunks(rows, lambda pair: row_key(work.scope, *pair), store, work.chunk_rows, by_length=False)
    model = work.model
    if isinstance(model, ChunkPairScorer):
        values = model.score_chunks(chunks)
    else:
        values = ((number, model.score(chunk)) for number, chunk in enumerate(chunks))
    keep_values(chunks, values, "pair", pairs)
    return PairScores(store, work.scope)


def scored_samples(
    samples: Iterable[RankingSample], scores: Scores
) -> Iterator[tuple[RankingSample, list[ScoredPair]]]:
    """Yield every sample with its distinct candidates and their scores, in the order of the samples.

    Raises:
        KeyError: a pair has no score.
    """
    for block in _sample_blocks(samples, scores.block_pairs):
        candidates = [list(sample.passages()) for sample in block]
        pairs = [(sample.query, text) for sample, texts in zip(block, candidates, strict=True) for text, _ in texts]
        found = iter(scores.of(pairs))
        for sample, texts in zip(block, candidates, strict=True):
            yield (
                sample,
                [
                    ScoredPair(
                        query_id=sample.query_id or "",
                        query=sample.query,
                        passage=passage,
                        score=float(str(next(found))),  # the shortest decimal that is this float32
                        label=label,
                    )
                    for passage, label in texts
                ],
            )


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
