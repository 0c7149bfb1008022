"""Which candidates are kept, and how soft the targets are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from rag_core.base.records import ScoredPair, SoftLabels
from rag_core.distillation.soft_labels import make_soft_labels, relative_entropy, score_spread


def pairs(*scores, label=None):
    return [ScoredPair("1", "q", f"p{i}", score, label) for i, score in enumerate(scores)]


def soft_labels(*scores):
    return SoftLabels("1", "q", [f"p{i}" for i in range(len(scores))], list(scores))


def test_all_candidates_best_first_and_ties_in_file_order():
    made = make_soft_labels(pairs(0.1, 0.5, -2.0, 0.5), None)
    assert made == SoftLabels("1", "q", ["p1", "p3", "p0", "p2"], [0.5, 0.5, 0.1, -2.0])


def test_of_many_candidates_the_best_and_a_spread_of_the_rest_are_kept():
    made = make_soft_labels(pairs(*[-float(i) for i in range(12)]), 5)
    assert made.scores == [0, -1, -2, -3, -11]
    assert make_soft_labels(pairs(*[-float(i) for i in range(12)]), 6).scores == [0, -1, -2, -3, -7, -11]
    assert make_soft_labels(pairs(3.0, 2.0, 1.0), 2).scores == [3, 1]


@given(count=st.integers(2, 60), kept=st.integers(2, 60))
def test_the_best_and_the_worst_are_always_kept_and_none_twice(count, kept):
    made = make_soft_labels(pairs(*[-float(i) for i in range(count)]), kept)
    assert len(made.passages) == len(set(made.passages)) == min(count, kept)
    assert made.scores == sorted(made.scores, reverse=True)
    assert made.scores[0] == 0
    assert made.scores[-1] == 1 - count


def test_labels_have_no_influence():
    assert make_soft_labels(pairs(1.0, 2.0, label=1), None) == make_soft_labels(pairs(1.0, 2.0, label=0), None)


def test_spread_is_the_median_over_queries():
    assert score_spread([soft_labels(1.0, 3.0), soft_labels(0.0, 0.0), soft_labels(0.0, 20.0)]) == 1.0


def test_relative_entropy_by_hand():
    assert relative_entropy([soft_labels(1.0, 1.0, 1.0)], 1.0) == pytest.approx(1)
    assert relative_entropy([soft_labels(100.0, 0.0)], 1.0) == pytest.approx(0, abs=1e-9)
    expected = entropy([0.75, 0.25]) / np.log(2)
    assert relative_entropy([soft_labels(np.log(3) * 2, 0.0)], 2.0) == pytest.approx(expected)
