"""How deep to rerank: a case in which deeper is worse, and what is warned about."""

from dataclasses import replace

import pytest

from rag_core.evaluation.depth import DepthResult, depth_warnings, measure_depths
from tests.evaluation.cases import DEEPER_IS_WORSE, long_evaluation


def test_deeper_and_worse_is_warned_about():
    depths = measure_depths(long_evaluation(DEEPER_IS_WORSE), 1)
    rows = depths["after"]
    assert [row.depth for row in rows] == [10, 30, 40]
    assert [row.MAP for row in rows] == pytest.approx([1, 1 / 21, 1 / 31])
    assert rows[2].best_shallower == 10
    assert rows[2].change == pytest.approx((1 / 31 - 1,) * 3)
    found = depth_warnings("test.jsonl", depths)
    assert [text.split(" (")[0] for text in found] == [
        "WARNING: on test.jsonl after ranks worse where it reranks 30 candidates instead of 10",
        "WARNING: on test.jsonl after ranks worse where it reranks 40 candidates instead of 10",
    ]
    assert [row.MAP for row in depths["before"]] == [1, 1, 1]  # and of this one nothing is said


def test_a_change_within_its_interval_is_no_warning():
    row = DepthResult(30, MAP=0.5, interval=(0.4, 0.6), best_shallower=10, change=(-0.01, -0.03, 0.01))
    assert depth_warnings("x", {"after": [row]}) == []
    assert depth_warnings("x", {"after": [replace(row, change=(-0.01, -0.03, -0.001))]})


def test_below_the_depth_the_first_order_stays():
    found = measure_depths(long_evaluation([0.0, *[float(place) for place in range(39)]]), 1)["after"]
    # The positive, fourth by BM25, comes last of those that are reranked.
    assert [row.MAP for row in found] == pytest.approx([1 / 10, 1 / 30, 1 / 40])
