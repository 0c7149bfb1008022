"""What every engine offers: a `PairScorer` judges pairs, a `TextEncoder` embeds texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pair = tuple[str, str]
Floats = npt.NDArray[np.float32]
Role = Literal["query", "passage"]
ScoreUnit = Literal["log-odds", "logit", "cosine"]


@runtime_checkable
class PairScorer(Protocol):
    """A model that reads query and passage together.

    Attributes:
        score_unit: "log-odds" = log p(yes) - log p(no); "logit" = raw output of a cross-encoder.
        truncated: pairs scored so far whose passage was cut to the maximal length; `None` where nobody counts.
    """

    score_unit: ScoreUnit
    truncated: int | None

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,), in the order given.

        Raises:
            EngineError: a score is missing or not finite, or a query leaves no room for its passage.
        """
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A model that reads each text alone; the score of a pair is the cosine of two vectors.

    Attributes:
        dimensions: length of a vector.
        score_unit: "cosine".
        truncated: texts embedded so far that were cut to the maximal length; `None` where nobody counts.
    """

    score_unit: ScoreUnit
    truncated: int | None
    dimensions: int

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts; shape (texts, dimensions), each row of L2 norm 1, in the order given."""
        ...


@runtime_checkable
class ChunkPairScorer(PairScorer, Protocol):
    """A pair scorer that has several chunks in work at once, or makes one ready while another is computed."""

    def score_chunks(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, Floats]]:
        """Score chunks of pairs; yield (number of the chunk, scores), in the order in which they are finished.

        Raises:
            EngineError: as `score`.
        """
        ...


@runtime_checkable
class ChunkTextEncoder(TextEncoder, Protocol):
    """A text encoder that has several chunks in work at once, or makes one ready while another is computed."""

    def encode_chunks(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, Floats]]:
        """Embed chunks of texts; yield (number of the chunk, vectors), in the order in which they are finished."""
        ...
