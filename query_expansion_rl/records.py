"""The records that pass between the stages of this pipeline, one JSON object per line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

from rag_core.base.records import LARGEST_SCORE, SMALLEST_MARGIN, Id, Score, Text

_CONFIG = ConfigDict(strict=True, extra="ignore")

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

_LARGEST = 2**31 - 1
_Count = Annotated[int, Field(ge=0, le=_LARGEST)]


@dataclass(frozen=True, config=_CONFIG)
class Topic:
    """A query, and which passages answer it where that is known.

    Attributes:
        relevant: passage id -> grade; `None` where nobody judged. It measures, and only `--reward qrels` learns by it.
    """

    query_id: Id
    query: Text
    split: Split
    relevant: dict[str, Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]] | None = None


@dataclass(frozen=True, config=_CONFIG)
class Judgement:
    """How much a teacher wants a passage in a query's ranking: label-free relevance.

    Attributes:
        gain: above 0; a passage without a judgement has 0.
        teacher: "hybrid", or the name of a model.
    """

    query_id: Id
    passage_id: Id
    gain: Annotated[FiniteFloat, Field(ge=SMALLEST_MARGIN, le=LARGEST_SCORE)]
    teacher: str


@dataclass(frozen=True, config=_CONFIG)
class Ranking:
    """What one way to search found for a query, best first; `passages`, each once, and `scores` have the same length.

    Attributes:
        method: of the row in the table, as "bm25", "rm3", "hybrid".
    """

    query_id: Id
    method: str
    passages: list[str]
    scores: list[Score]

    def __post_init__(self) -> None:
        if len(self.passages) != len(self.scores):
            raise ValueError(f"has {len(self.passages)} passages but {len(self.scores)} scores")
        if len(set(self.passages)) < len(self.passages):
            raise ValueError("names a passage twice")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Expansion:
    """A text that is searched for beside a query.

    Attributes:
        method: what wrote it, as "keywords", "document" or "dpo".
        sample: its number among those of the query, from 0.
        text: cleaned; empty where the answer was none.
        tokens: that the model wrote for it, the end included.
        cut: whether it was ended by --max_new_tokens.
    """

    query_id: Id
    method: str
    sample: _Count
    text: str
    tokens: _Count
    cut: bool = False


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Rewarded(Expansion):
    """An expansion and what it is worth.

    Attributes:
        reward: from -1 to 1.
        parts: what it is made of, by name: "gain", "rank_shaping", "length", "copy", "format".
        base: nDCG@10 of the query alone, by the same judge.
    """

    reward: FiniteFloat = Field(ge=-1, le=1)
    parts: dict[str, FiniteFloat]
    base: FiniteFloat


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Demonstration:
    """An expansion to imitate: what `--method rft` learns from."""

    query_id: Id
    prompt: Text
    completion: Text
    reward: FiniteFloat


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Preference:
    """Two expansions of a query, of which one is worth more: what `--method dpo` learns from.

    Attributes:
        margin: reward of `chosen` minus that of `rejected`; below 0 in the control, whose pairs are drawn at random.
    """

    query_id: Id
    prompt: Text
    chosen: Text
    rejected: Text
    margin: FiniteFloat


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ServedQuery:
    """A query as it is to be searched for: what `expand` hands to a search engine.

    Attributes:
        query: as it came; it is always part of what is searched for.
        expansion: empty where the model had none, or the gate let none through.
        searches: the texts to search for; where there are two, their rankings are fused by reciprocal rank.
    """

    query_id: Id
    query: Text
    expansion: str
    searches: list[Text]
