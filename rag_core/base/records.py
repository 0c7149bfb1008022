"""The records that pass between stages: the only place where a field of the JSONL files is spelled.

Each is one JSON object per line. Keys that a record does not know are ignored, so files that carry more
(the MTEB reranking sets, one's own logs) work unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    import numpy as np


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be 0 or 1, not true or false")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
Texts = Annotated[list[Text], Field(fail_fast=True)]  # the first that is bad is told, of what may be millions
Id = Annotated[Text, BeforeValidator(_as_text)]  # a number is as good an id as its digits
Label = Literal[0, 1] | None

# Margins and squares of such scores are within the range of a float32. No model gives others.
LARGEST_SCORE, SMALLEST_MARGIN = 1e15, 1e-30
Score = Annotated[FiniteFloat, Field(ge=-LARGEST_SCORE, le=LARGEST_SCORE)]

# By name: code writes Query(id=...). A file's rows spell it `_id` (`files.jsonl` sees to that).
_CONFIG = ConfigDict(strict=True, extra="ignore", validate_by_name=True)


def passage_text(title: str | None, text: str | None) -> str:
    """Join title and text to one passage: `title. text`, with no second mark after a title that ends in one."""
    title, text = (title or "").strip(), (text or "").strip()
    if not (title and text):
        return title or text
    return f"{title} {text}" if title.endswith((".", "?", "!")) else f"{title}. {text}"


@dataclass(frozen=True, config=_CONFIG)
class Passage:
    """A line of a corpus whose passages need no id."""

    text: str
    title: str | None = None

    def __post_init__(self) -> None:
        if not passage_text(self.title, self.text):
            raise ValueError("has neither a title nor a text")


@dataclass(frozen=True, config=_CONFIG)
class Document(Passage):
    """A line of a corpus, as BEIR has it."""

    id: Annotated[Id, Field(alias="_id")] = Field(kw_only=True)


@dataclass(frozen=True, config=_CONFIG)
class Query:
    """A query by itself, with the key `query` or `text`: a line of BEIR's queries, or of a log without ids."""

    text: Annotated[Text, Field(validation_alias=AliasChoices("query", "text"))]
    id: Annotated[Id | None, Field(alias="_id")] = None


Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> relevance: the higher the better; 0 and below is not relevant."""

Run = Mapping[str, Mapping[str, "float | np.float32"]]
"""Query id -> document id -> score: what a retriever found, the higher the better."""


@dataclass(frozen=True, config=_CONFIG)
class RankingSample:
    """A query and its candidates: labelled (`positive` and `negative`) or not (`candidates`).

    `query_id` is the line number of the file where none is given. Two samples with the same query text
    stay two samples.
    """

    query: Text
    positive: Texts | None = None
    negative: Texts | None = None
    candidates: Texts | None = None
    query_id: Text | None = None

    def __post_init__(self) -> None:
        if self.candidates is not None and (self.positive is not None or self.negative is not None):
            raise ValueError("has both 'candidates' and 'positive'/'negative'; labelled or not, it cannot be both")
        if self.candidates is None and (self.positive is None or self.negative is None):
            raise ValueError("needs 'positive' and 'negative', or 'candidates'")
        if not (self.positive or self.negative or self.candidates):
            raise ValueError("has no candidates")

    def passages(self) -> Iterator[tuple[str, Label]]:
        """Yield each distinct passage once with its label, in file order; listed as both, it is a positive."""
        labelled: dict[str, Label] = {}
        for label, texts in ((1, self.positive), (0, self.negative), (None, self.candidates)):
            for text in texts or ():
                labelled.setdefault(text, label)  # type: ignore[arg-type]
        yield from labelled.items()


@dataclass(frozen=True, config=_CONFIG)
class ScoredPair:
    """A teacher's score of one candidate: log-odds (LLM rerankers), logit (cross-encoders) or cosine (embedders).

    The first row of a query whose candidates were prescreened lists those that the teacher has not scored: nobody knows
    whether they are relevant.
    """

    query_id: Text
    query: Text
    passage: Text
    score: Score
    label: Annotated[Label, BeforeValidator(_no_truth_value)] = None
    unscored: Texts | None = None


@dataclass(frozen=True, config=_CONFIG)
class Triplet:
    """Two candidates of a query; `score` is how much higher the teacher scores `positive` (its margin, > 0)."""

    query_id: Text
    query: Text
    positive: Text
    negative: Text
    score: Annotated[FiniteFloat, Field(le=2 * LARGEST_SCORE)]

    def __post_init__(self) -> None:
        if self.score < SMALLEST_MARGIN:
            raise ValueError(f"has a margin ('score') that is not above {'0' if self.score <= 0 else SMALLEST_MARGIN}")


@dataclass(frozen=True, config=_CONFIG)
class SoftLabels:
    """The scored candidates of a query with the teacher's scores; `passages` and `scores` have the same length.

    Candidates that the teacher has not scored (`unscored`) are never negatives.
    """

    query_id: Text
    query: Text
    passages: Texts
    scores: Annotated[list[Score], Field(fail_fast=True)]
    unscored: Texts | None = None

    def __post_init__(self) -> None:
        if len(self.passages) != len(self.scores):
            raise ValueError(f"has {len(self.passages)} passages but {len(self.scores)} scores")


Record = Passage | Query | RankingSample | ScoredPair | Triplet | SoftLabels

MADE_BY: dict[type[Record], str] = {
    ScoredPair: "generate_logits",
    Triplet: "create_triplets",
    SoftLabels: "generate_scores",
    RankingSample: "rag_core.prepare",
}
