"""The ways to rank that are measured: the defaults always, then what the flags span."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

from milvus_optimization.records import Fusion, Normalisation, Setting
from milvus_optimization.retrieval.choice import DEFAULT_B, DEFAULT_DEPTH, DEFAULT_K, DEFAULT_K1, DEFAULT_WEIGHT
from milvus_optimization.retrieval.fusion import RankingPair
from milvus_optimization.retrieval.rankings import Places, Ranking
from rag_core.retrieval.analyser import VERSION, Analyser

NORMALISATIONS: tuple[Normalisation, ...] = ("arctan", "none", "minmax")


@dataclasses.dataclass(frozen=True, order=True)
class WordSettings:
    """Of BM25; the defaults are Milvus'."""

    k1: float = DEFAULT_K1
    b: float = DEFAULT_B

    def as_setting(self, analyser: Analyser) -> Setting:
        """Return them as a trial has them, with what the words were found by."""
        found: Setting = {"k1": self.k1, "b": self.b, "analyser": VERSION}
        words = {"stemmer": analyser.bm25_stemmer, "stop_words": analyser.bm25_stop_words}
        return found | {key: name for key, name in words.items() if name}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to rank by dense search, BM25, or both; fields as in `RetrievalTrial`.

    Attributes:
        words: of BM25; None where it has no part.
    """

    fusion: Fusion
    normalisation: Normalisation = "none"
    parameter: float | None = None
    depth: int = 0
    words: WordSettings | None = None

    def rank(self, dense: Ranking, pairs: dict[WordSettings, RankingPair], count: int) -> Places:
        """Return the places of the best `count` documents of each query."""
        if self.words is None:
            return dense.places[:, :count]
        pair = pairs[self.words]
        if self.fusion == "bm25":
            return pair.words.places[:, :count]
        assert self.parameter is not None
        if self.fusion == "rrf":
            return pair.by_ranks(self.parameter, self.depth, count)
        return pair.by_scores(self.parameter, self.normalisation, self.depth, count)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values of the flags."""

    fusion: Sequence[str]
    rrf_k: Sequence[float]
    weights: Sequence[float]
    raw_weights: Sequence[float]
    depth: Sequence[int]
    normalisation: Sequence[Normalisation]
    bm25_k1: Sequence[float]
    bm25_b: Sequence[float]

    @property
    def deepest(self) -> int:
        """How many documents are asked of each ranking."""
        return max(*self.depth, DEFAULT_DEPTH)

    def words(self) -> list[WordSettings]:
        """Return the settings of BM25, Milvus' own first."""
        asked = [WordSettings(k1, b) for k1 in self.bm25_k1 for b in self.bm25_b]
        return list(dict.fromkeys([WordSettings(), *asked]))

    def fused(self, words: WordSettings) -> list[Way]:
        """Return the fusions with the BM25 that was chosen."""
        ways: list[Way] = []
        if "rrf" in self.fusion:
            ways += [Way("rrf", "rank", k, depth, words) for k in self.rrf_k for depth in self.depth]
        if "weighted" in self.fusion:
            ways += [
                Way("weighted", normalisation, weight, depth, words)
                for normalisation in self.normalisation
                for weight in (self.raw_weights if normalisation == "none" else self.weights)
                for depth in self.depth
            ]
        return ways


def alone(words: Iterable[WordSettings]) -> list[Way]:
    """Return dense search, and BM25 with each of its settings."""
    return [Way("dense"), *(Way("bm25", words=setting) for setting in words)]


def default_fusions() -> list[Way]:
    """Return the fusions that somebody would set without tuning."""
    words = WordSettings()
    return [
        Way("rrf", "rank", DEFAULT_K, DEFAULT_DEPTH, words),
        *(Way("weighted", name, DEFAULT_WEIGHT, DEFAULT_DEPTH, words) for name in ("arctan", "minmax")),
    ]


def trial_id(model: str, way: Way, bm25: Setting, reranker: str | None, reranker_depth: int) -> str:
    """Return the hash of what is asked for."""
    asked = [model, way.fusion, way.normalisation, way.parameter, way.depth, bm25, reranker, reranker_depth]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
