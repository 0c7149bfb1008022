"""What a first search finds, searched with: RM3 for words, and the same thought for vectors.

RM3 is the relevance model of Lavrenko and Croft 2001 ("Relevance-Based Language Models") mixed with the query, as
Abdul-Jaleel et al. 2004 ("UMass at TREC 2004: Novelty and HARD") have it, in the form of Anserini's `Rm3Reranker`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from query_expansion_rl.retrieval.searching import ExpandedQuery, Floats, Found, WordSearcher
from rag_core.metrics.ranking import Places

_SHORTEST, _LONGEST = 2, 20  # letters of a term; other scripts than Latin have words of one
_LARGE, _COMMON = 10_000, 0.1  # in a corpus larger than this, what more than a tenth of the passages have says nothing

Bag = dict[str, float]


@dataclass(frozen=True)
class Rm3:
    """Settings of RM3; the defaults are Anserini's.

    Attributes:
        documents: of the first ranking that are taken for relevant.
        terms: that are added, at most.
        weight: of the query; the added terms have the rest.
    """

    documents: int = 10
    terms: int = 10
    weight: float = 0.5

    def as_numbers(self) -> dict[str, float]:
        """Return them by name."""
        return {name: float(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class DenseFeedback:
    """Settings of feedback for vectors: the query's vector counts `weight`, the mean of the first `documents` the rest.

    The vectors' form of Rocchio; Li et al. 2021, "Pseudo Relevance Feedback with Deep Language Models and Dense
    Retrievers", arXiv:2108.11044.
    """

    documents: int = 3
    weight: float = 0.8

    def as_numbers(self) -> dict[str, float]:
        """Return them by name."""
        return {name: float(value) for name, value in asdict(self).items()}


class RelevanceModels:
    """Relevance models over the passages of a searcher."""

    def __init__(self, searcher: WordSearcher) -> None:
        self._searcher = searcher
        self._shares: dict[int, Bag] = {}
        passages = searcher.terms
        self._left_out: set[str] = set()
        if len(passages) > _LARGE:
            having = Counter(term for terms in passages for term in set(terms))
            self._left_out = {term for term, count in having.items() if count > _COMMON * len(passages)}

    def model(self, places: Sequence[int], scores: Sequence[float]) -> Bag:
        """Return term -> weight, the heaviest first, ties by the letters; the weights sum to 1.

        The weight of a term is the sum over passages of its share of the passage's terms times the passage's score.

        Args:
            places: of the passages that are taken for relevant.
            scores: of them, of any positive scale; where none is above 0, all count the same.
        """
        positive = [max(float(score), 0.0) for score in scores]
        if not any(positive):
            positive = [1.0] * len(positive)
        weights: Bag = {}
        for place, score in zip(places, positive, strict=True):
            for term, share in self._shares_of(int(place)).items():
                weights[term] = weights.get(term, 0.0) + share * score
        return _normalised(dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))))

    def bag(self, query: str, places: Sequence[int], scores: Sequence[float], settings: Rm3) -> Bag:
        """Return what is searched for: the query's terms and the heaviest of the relevance model, mixed.

        Args:
            places: of a first ranking, best first, without -1.
        """
        model = self.model(places[: settings.documents], scores[: settings.documents])
        return mixed(self.query_model(query), first_terms(model, settings.terms), settings.weight)

    def query_model(self, query: str) -> Bag:
        """Return term -> share of the query's terms."""
        return _normalised(self._searcher.weights(ExpandedQuery(query, weight=1)))

    def _shares_of(self, place: int) -> Bag:
        if place not in self._shares:
            counts = Counter(filter(self._counts, self._searcher.terms[place]))
            self._shares[place] = _normalised(counts)
        return self._shares[place]

    def _counts(self, term: str) -> bool:
        short = len(term) < _SHORTEST and term.isascii()
        return not short and len(term) <= _LONGEST and term not in self._left_out


def first_terms(model: Mapping[str, float], count: int) -> Bag:
    """Return the first terms of a model, whose weights sum to 1 again."""
    return _normalised(dict(list(model.items())[:count]))


def mixed(query: Mapping[str, float], model: Mapping[str, float], weight: float) -> Bag:
    """Return `weight` of the query and the rest of the model, term by term; the query alone where there is no model."""
    if not model:
        return dict(query)
    found = {term: weight * share for term, share in query.items()}
    for term, share in model.items():
        found[term] = found.get(term, 0.0) + (1 - weight) * share
    return found


def found_of(found: Found, row: int) -> tuple[list[int], list[float]]:
    """Return the places and scores that a query has found, without the empty rest."""
    places, scores = found
    there = places[row] >= 0
    return places[row][there].tolist(), scores[row][there].tolist()


def rm3_bags(models: RelevanceModels, queries: Sequence[str], feedback: Found, settings: Rm3) -> list[Bag]:
    """Return the bags of queries whose feedback passages are from any ranking."""
    return [models.bag(query, *found_of(feedback, row), settings) for row, query in enumerate(queries)]


def dense_feedback(queries: Floats, documents: Floats, places: Places, settings: DenseFeedback) -> Floats:
    """Return the vectors that are searched with; shape (queries, dimensions), each of length 1.

    Args:
        queries: shape (queries, dimensions).
        places: of a first ranking, best first, -1 where nothing was found; shape (queries, results).
    """
    rows = []
    for vector, ranking in zip(queries, places, strict=True):
        first = [place for place in ranking[: settings.documents] if place >= 0]
        mean = np.asarray(documents[first]).mean(axis=0) if first else vector
        moved: npt.NDArray[np.float32] = settings.weight * vector + (1 - settings.weight) * mean
        rows.append(moved / np.linalg.norm(moved))
    return np.array(rows, dtype=np.float32).reshape(queries.shape)


def _normalised(weights: Mapping[str, float]) -> Bag:
    total = sum(weights.values())
    return {term: weight / total for term, weight in weights.items()} if total else {}
