"""Recall with ties, by hand."""

import numpy as np
import pytest

from milvus_optimization.quality.recall import Neighbours, true_scores

# Three documents on an axis, of which two are one text, and one across it.
DOCUMENTS = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8], [0, 1]], dtype=np.float32)
QUERY = np.array([[1, 0]], dtype=np.float32)


def exact(*places):
    return Neighbours.of(true_scores(QUERY, DOCUMENTS, np.array([places])))


def recall(neighbours, *places):
    return neighbours.recall(true_scores(QUERY, DOCUMENTS, np.array([places])))


def test_the_twin_of_a_neighbour_is_as_good():
    assert recall(exact(0, 1), 0, 2) == 1


def test_what_is_not_found_and_what_is_worse_does_not_count():
    assert recall(exact(0, 1), 0, -1) == 0.5
    assert recall(exact(0, 1), 3, 0) == 0.5


def test_a_document_found_twice_counts_once():
    assert recall(exact(0, 1), 0, 0) == 0.5


def test_where_there_are_fewer_than_asked_for_all_of_them_are_all():
    assert recall(exact(3, -1), 3, -1) == 1
    assert recall(exact(3, -1), -1, -1) == 0


def test_where_there_is_nothing_there_is_no_recall():
    assert np.isnan(recall(exact(-1, -1), 0, 1))


def test_the_first_is_kept_where_its_score_is():
    twins = true_scores(np.array([[0.6, 0.8]], dtype=np.float32), DOCUMENTS, np.array([[1, 2]]))
    other_twin_first = true_scores(np.array([[0.6, 0.8]], dtype=np.float32), DOCUMENTS, np.array([[2, 0]]))
    assert Neighbours.of(twins).first_kept(other_twin_first) == 1
    assert exact(0, 1).first_kept(true_scores(QUERY, DOCUMENTS, np.array([[1, 0]]))) == 0


@pytest.mark.parametrize("below, found", [(0.9e-5, 1.0), (3e-5, 0.0)])
def test_a_tie_is_within_a_hundred_thousandth(below, found):
    scores = np.array([[0.5]], dtype=np.float32)
    assert Neighbours.of(scores).recall(scores - np.float32(below)) == found
