"""Settings of the feedbacks, chosen by nDCG@10 of the train queries: every combination of a grid is tried."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from query_expansion_rl.retrieval.feedback import (
    DenseFeedback,
    RelevanceModels,
    Rm3,
    dense_feedback,
    first_terms,
    found_of,
)
from query_expansion_rl.retrieval.searching import Floats, Found, VectorSearcher, WordSearcher
from query_expansion_rl.retrieval.ways import Ways
from rag_core.base.records import Qrels
from rag_core.metrics.ranking import Places, measure_places
from rag_core.retrieval.dense import best_places, nearest

CUT = 10  # results that nDCG looks at

RM3_GRID = [Rm3(*one) for one in itertools.product((2, 3, 5, 10), (10, 20, 40), (0.5, 0.7, 0.85, 0.9))]
DENSE_GRID = [DenseFeedback(*one) for one in itertools.product((1, 3, 5, 10), (0.5, 0.7, 0.8, 0.9))]
PICKED_FROM = [Rm3(*one) for one in itertools.product((3, 10), (10, 40), (0.5, 0.7, 0.85))]

Settings = TypeVar("Settings", Rm3, DenseFeedback)


@dataclass(frozen=True)
class Judge:
    """What settings are chosen by: judgements of people, or a teacher's.

    Attributes:
        qrels: of the queries that there are any for.
        document_ids: of the passages, in their order.
    """

    qrels: Qrels
    document_ids: Sequence[str]

    def values(self, query_ids: Sequence[str], places: Places) -> dict[str, float]:
        """Return query id -> nDCG@10 of rankings, best first, of the queries that are judged."""
        rows = [row for row, query_id in enumerate(query_ids) if query_id in self.qrels]
        judged = [query_ids[row] for row in rows]
        return measure_places(self.qrels, judged, self.document_ids, places[rows, :CUT], ("NDCG@10",))["NDCG@10"]

    def mean(self, query_ids: Sequence[str], places: Places) -> float:
        """Return the mean nDCG@10."""
        return float(np.mean(list(self.values(query_ids, places).values())))


def rm3_variants(
    searcher: WordSearcher, models: RelevanceModels, queries: Sequence[str], feedback: Found, grid: Sequence[Rm3]
) -> dict[Rm3, Places]:
    """Return the first 10 passages of each query by each setting; shape (queries, 10) each.

    A score is linear in the weights, so that each query and each relevance model is scored once for all weights.

    Args:
        feedback: the rankings that the feedback passages are from, best first.
    """
    from tqdm import tqdm

    found = {settings: np.full((len(queries), CUT), -1, dtype=np.int64) for settings in grid}
    for row, query in enumerate(tqdm(queries, desc="tune RM3", unit="query", disable=None)):
        places, scores = found_of(feedback, row)
        of_query = searcher.scores(models.query_model(query))
        for documents, group in itertools.groupby(grid, key=lambda settings: settings.documents):
            model = models.model(places[:documents], scores[:documents])
            of_model: dict[int, Floats] = {}
            for settings in group:
                if settings.terms not in of_model:
                    of_model[settings.terms] = searcher.scores(first_terms(model, settings.terms))
                both = settings.weight * of_query + (1 - settings.weight) * of_model[settings.terms]
                best = [place for place in best_places(both.astype(np.float32), CUT) if both[place] > 0]
                found[settings][row, : len(best)] = best
    return found


def dense_variants(
    searcher: VectorSearcher, queries: Floats, feedback: Found, grid: Sequence[DenseFeedback]
) -> dict[DenseFeedback, Places]:
    """Return the first 10 passages of each query by each setting; shape (queries, 10) each."""
    return {
        settings: nearest(dense_feedback(queries, searcher.documents, feedback[0], settings), searcher.documents, CUT)[
            0
        ]
        for settings in grid
    }


def best_setting(variants: Mapping[Settings, Places], query_ids: Sequence[str], judge: Judge) -> Settings:
    """Return the setting with the highest mean nDCG@10; of equal ones the first of the grid."""
    means = {settings: round(judge.mean(query_ids, places), 6) for settings, places in variants.items()}
    return max(means, key=lambda settings: means[settings])


def picked(ways: Ways, query_ids: Sequence[str], judge: Judge) -> Found:
    """Return for each query the ranking of BM25, or of the RM3 variant whose first 10 the judge likes better.

    Where a judge has nothing to say, and among equals, BM25 stays. The feedback passages are the hybrid's where there
    is one: on the train and dev queries of three sets, such picks gained .018, .027 and .072 nDCG@10 by labels, and
    picks with BM25's passages .011, .023 and .026.
    """
    feedback = ways.found.get("hybrid", ways.found["bm25"])
    variants = rm3_variants(ways.words, ways.models, ways.queries, feedback, PICKED_FROM)
    values = {settings: judge.values(query_ids, places) for settings, places in variants.items()}
    alone = judge.values(query_ids, ways.found["bm25"][0])
    places, scores = ways.found["bm25"][0].copy(), ways.found["bm25"][1].copy()
    for row, query_id in enumerate(query_ids):
        best = max(PICKED_FROM, key=lambda settings: values[settings].get(query_id, 0.0))
        if values[best].get(query_id, 0.0) > alone.get(query_id, 0.0):
            bag = ways.models.bag(ways.queries[row], *found_of(feedback, row), best)
            ((places[row],), (scores[row],)) = ways.words.search_weighted([bag], places.shape[1])
    return places, scores


def tune(ways: Ways, rows: Sequence[int], query_ids: Sequence[str], judge: Judge) -> dict[str, Rm3 | DenseFeedback]:
    """Return way -> the settings that rank best, of the ways that have any.

    Args:
        rows: of the queries to choose by, in the rankings; `query_ids` of them.
    """
    queries = [ways.queries[row] for row in rows]
    first = {name: (places[rows], scores[rows]) for name, (places, scores) in ways.found.items()}
    found: dict[str, Rm3 | DenseFeedback] = {}
    for name, feedback in (("rm3", "bm25"), ("rm3_hybrid", "hybrid")):
        if feedback in first:
            variants = rm3_variants(ways.words, ways.models, queries, first[feedback], RM3_GRID)
            found[name] = best_setting(variants, query_ids, judge)
    if ways.vectors:
        moved = dense_variants(ways.vectors, ways.query_vectors[rows], first["dense"], DENSE_GRID)
        found["dense_prf"] = best_setting(moved, query_ids, judge)
    return found
