import numpy as np
import pytest

from rag_core.retrieval.fusion import fuse, reciprocal_ranks, standardise, take_turns


def test_rankings_take_turns_and_a_position_comes_once():
    assert take_turns([[3, 1, 2], [1, 4]], 9) == [3, 1, 4, 2]
    assert take_turns([[3, 1, 2], [1, 4]], 2) == [3, 1]
    assert take_turns([[], [5]], 3) == [5]


def test_reciprocal_ranks_share_ties():
    assert reciprocal_ranks([0.1, 0.9, 0.5, 0.5]) == pytest.approx([1 / 64, 1 / 61, 1 / 62.5, 1 / 62.5])


def test_standardised_scores():
    scores = standardise([1.0, 2.0, 6.0])
    assert (scores.mean(), scores.std()) == pytest.approx((0, 1))
    assert np.argsort(scores).tolist() == [0, 1, 2]
    assert standardise([2.0, 2.0]).tolist() == [0, 0]


def test_fused_rankings_add_their_shares_ties_by_place():
    places, scores = fuse([np.array([[7, 8]]), np.array([[8, 9]])], 4)
    assert places.tolist() == [[8, 7, 9, -1]]
    assert scores[0, :3] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
