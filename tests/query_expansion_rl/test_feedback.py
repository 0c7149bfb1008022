"""RM3 and feedback for vectors, beside values that were reckoned by hand."""

import numpy as np
import pytest

from query_expansion_rl.retrieval.feedback import (
    DenseFeedback,
    RelevanceModels,
    Rm3,
    dense_feedback,
    mixed,
    rm3_bags,
)
from query_expansion_rl.retrieval.searching import ExpandedQuery, WordSearcher
from query_expansion_rl.retrieval.tuning import RM3_GRID, Judge, best_setting, rm3_variants
from rag_core.retrieval.analyser import Analyser

TEXTS = [
    "heart attack aspirin aspirin",  # 0: of four terms aspirin has a half
    "heart aspirin",
    "stone kidney",
    "a b heart",  # single letters are no terms of a relevance model
]


@pytest.fixture
def searcher():
    return WordSearcher(TEXTS, Analyser())


def test_a_relevance_model_is_shares_times_scores(searcher):
    model = RelevanceModels(searcher).model([0, 1], [3.0, 1.0])
    # heart: 3/4 + 1/2, attack: 3/4, aspirin: 6/4 + 1/2; together 4
    assert model == pytest.approx({"aspirin": 0.5, "heart": 0.3125, "attack": 0.1875})
    assert list(model) == ["aspirin", "heart", "attack"]


def test_equal_weights_stand_by_their_letters(searcher):
    assert list(RelevanceModels(searcher).model([2], [1.0])) == ["kidney", "stone"]
    assert RelevanceModels(searcher).model([3], [1.0]) == {"heart": 1.0}


def test_scores_that_are_not_above_zero_count_the_same(searcher):
    models = RelevanceModels(searcher)
    assert models.model([0, 1], [-1.0, 0.0]) == models.model([0, 1], [1.0, 1.0])


def test_rm3_mixes_the_query_with_the_heaviest_terms(searcher):
    models = RelevanceModels(searcher)
    bag = models.bag("heart heart attack", [0, 1, 2], [3.0, 1.0, 9.0], Rm3(documents=2, terms=2, weight=0.7))
    # the model's first two, aspirin 0.5 and heart 0.3125, sum to 1 again: 8/13 and 5/13
    assert bag == pytest.approx({"heart": 0.7 * 2 / 3 + 0.3 * 5 / 13, "attack": 0.7 / 3, "aspirin": 0.3 * 8 / 13})


def test_without_feedback_the_query_stays(searcher):
    models = RelevanceModels(searcher)
    nothing = np.full((1, 3), -1), np.full((1, 3), -np.inf, dtype=np.float32)
    assert rm3_bags(models, ["stone"], nothing, Rm3()) == [{"stone": 1.0}]
    assert mixed({"stone": 1.0}, {}, 0.5) == {"stone": 1.0}


def test_in_a_large_corpus_terms_of_many_passages_say_nothing(monkeypatch, searcher):
    monkeypatch.setattr("query_expansion_rl.retrieval.feedback._LARGE", 3)
    monkeypatch.setattr("query_expansion_rl.retrieval.feedback._COMMON", 0.5)
    assert RelevanceModels(searcher).model([1], [1.0]) == {"aspirin": 1.0}  # heart stands in 3 of 4


def test_feedback_from_another_ranking_finds_what_shares_no_word_with_the_query(searcher):
    models = RelevanceModels(searcher)
    dense = np.array([[2, 0]]), np.array([[0.9, 0.1]], dtype=np.float32)
    places, _ = searcher.search_weighted(rm3_bags(models, ["nephrolith"], dense, Rm3(documents=1)), 2)
    assert places.tolist() == [[2, -1]]


def test_dense_feedback_moves_the_query_towards_the_mean():
    documents = np.array([[1, 0], [0, 1]], dtype=np.float32)
    queries = np.array([[1, 0], [1, 0]], dtype=np.float32)
    places = np.array([[1, 0], [-1, -1]])
    moved = dense_feedback(queries, documents, places, DenseFeedback(documents=1, weight=0.8))
    np.testing.assert_allclose(moved, [np.array([0.8, 0.2]) / np.hypot(0.8, 0.2), [1, 0]], rtol=1e-6)
    both = dense_feedback(queries[:1], documents, places[:1], DenseFeedback(documents=2, weight=0.5))
    np.testing.assert_allclose(both, [np.array([0.75, 0.25]) / np.hypot(0.75, 0.25)], rtol=1e-6)


def test_the_variants_of_the_grid_are_those_of_a_search():
    drawn = np.random.default_rng(1).zipf(1.5, size=(60, 12)) % 50
    searcher = WordSearcher([" ".join(f"w{number}" for number in row) for row in drawn], Analyser())
    models, queries = RelevanceModels(searcher), ["w1 w7 w20", "w3 w49", "unknown"]
    feedback = searcher.search([ExpandedQuery(query) for query in queries], 10)
    variants = rm3_variants(searcher, models, queries, feedback, RM3_GRID)
    assert len(variants) == len(RM3_GRID) == 48
    for settings, places in variants.items():
        expected, _ = searcher.search_weighted(rm3_bags(models, queries, feedback, settings), 10)
        assert places.tolist() == expected.tolist()


def test_of_equal_settings_the_first_is_chosen():
    judge = Judge({"q": {"d1": 1}}, ["d0", "d1"])
    good, bad = np.array([[1, 0]]), np.array([[0, 1]])
    variants = {Rm3(2, 10, 0.5): bad, Rm3(3, 10, 0.5): good, Rm3(5, 10, 0.5): good}
    assert best_setting(variants, ["q"], judge) == Rm3(3, 10, 0.5)
