import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.records import ScoredPair
from reranker_distillation.triplets import make_triplets


def pairs(scores):
    return [ScoredPair("1", "q", f"p{i}", score) for i, score in enumerate(scores)]


def triplets(scores, top_k=8, num_negatives=4, sampling="next", min_margin=0.0):
    return [
        (triplet.positive, triplet.negative, triplet.score)
        for triplet in make_triplets(
            pairs(scores),
            top_k=top_k,
            num_negatives=num_negatives,
            sampling=sampling,
            min_margin=min_margin,
            generator=random.Random(0),
        )
    ]


def test_the_next_ones_in_the_ranking():
    assert triplets([1.0, 4.0, 2.0, 0.0], top_k=2, num_negatives=2) == [
        ("p1", "p2", 2.0),
        ("p1", "p0", 3.0),
        ("p2", "p0", 1.0),
        ("p2", "p3", 2.0),
    ]


def test_equal_scores_make_no_triplet_and_small_margins_can_be_left_out():
    assert triplets([1.0, 1.0]) == []
    assert triplets([1.0, 0.5, 0.0], min_margin=0.5) == [("p0", "p2", 1.0)]


@pytest.mark.parametrize("sampling", ["next", "random", "stratified"])
@given(
    scores=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12),
    top_k=st.integers(1, 9),
    num_negatives=st.integers(1, 9),
)
def test_negatives_stand_below_and_are_distinct(scores, top_k, num_negatives, sampling):
    made = triplets(scores, top_k, num_negatives, sampling)
    assert len({(better, worse) for better, worse, _ in made}) == len(made)
    assert all(scores[int(better[1:])] - scores[int(worse[1:])] == margin > 0 for better, worse, margin in made)


@given(st.lists(st.floats(-9, 9).map(lambda score: round(score, 9)), min_size=2, max_size=9, unique=True))
def test_all_pairs(scores):
    made = triplets(scores, num_negatives=None, top_k=1)
    assert len(made) == len(scores) * (len(scores) - 1) // 2


@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 9))
def test_stratified_negatives_are_one_of_each_part_of_the_ranking_below(count, top_k, num_negatives):
    made = triplets([-float(i) for i in range(count)], top_k, num_negatives, sampling="stratified")
    for rank in range(min(top_k, count - 1)):
        below = count - 1 - rank
        parts = min(num_negatives, below)
        places = [int(worse[1:]) - rank - 1 for better, worse, _ in made if better == f"p{rank}"]
        assert len(places) == parts
        for part, place in enumerate(places):
            assert below * part // parts <= place < below * (part + 1) // parts


def test_only_stratified_shows_every_positive_an_easy_negative():
    def easiest(sampling):
        made = triplets([-float(i) for i in range(30)], sampling=sampling)
        return [max(margin for better, _, margin in made if better == f"p{i}") for i in range(8)]

    assert easiest("next") == [4.0] * 8
    assert all(margin >= 0.74 * (29 - i) for i, margin in enumerate(easiest("stratified")))


@pytest.mark.parametrize("sampling", ["next", "random", "stratified"])
def test_number_of_triplets_of_the_public_recipe(sampling):
    assert len(triplets([float(i) for i in range(20)], sampling=sampling)) == 32
