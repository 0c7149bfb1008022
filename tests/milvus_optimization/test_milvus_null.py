"""Where nothing is better, "better" is said in 5 % at most: the choice is judged on queries that had no say in it."""

import numpy as np
import pytest

from benchmarks.milvus_null import false_alarms, learning_curve
from milvus_optimization.quality.measures import Halves
from rag_core.metrics import significance
from tests.milvus_optimization.retrieval_corpus import RRF, WEIGHTED, trial

QUERIES = 60


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """An interval of a thousand is as wide as one of ten thousand, and there are hundreds of them."""
    monkeypatch.setattr(significance, "_RESAMPLES", 999)


@pytest.fixture(scope="session")
def trials():
    """Forty ways to rank whose values of each query are drawn alike, as those of real fusions: many are 0 or 1."""
    rng = np.random.default_rng(3)
    ease = rng.uniform(size=QUERIES)
    values = np.round(np.clip(ease + rng.normal(scale=0.25, size=(40, QUERIES)), 0, 1), 6)
    kinds = [{}, RRF | {"parameter": 60, "depth": 100}, WEIGHTED | {"parameter": 0.5, "depth": 100}]
    kinds += [RRF | {"parameter": k, "depth": 10} for k in range(1, 38)]
    by_query = [{f"q{i}": float(value) for i, value in enumerate(row)} for row in values]
    return [trial(0.0, **kind, by_query=found) for kind, found in zip(kinds, by_query, strict=True)]


def test_a_held_out_half_says_better_in_one_of_twenty_at_most(trials):
    ids = list(trials[0].by_query)
    honest = false_alarms(trials, Halves(ids[::2], ids[1::2]), draws=200, seed=1)
    same = false_alarms(trials, Halves(ids, ids), draws=50, seed=1)
    assert honest.better <= 0.05 and honest.above_reference <= 0.05
    assert same.above_reference > 0.25
    assert abs(honest.gain) < 0.02 < same.gain


def test_more_queries_to_choose_by_leave_less_optimism(trials):
    points = learning_curve(trials, (5, 15, 45, 59), splits=50, seed=1)
    assert [point.queries for point in points] == [5, 15, 45]  # 59 leave one to report on
    optimism = [point.optimism for point in points]
    assert optimism[0] > optimism[1] > 0
    for point in points:
        assert point.low <= point.gain <= point.high and 0 <= point.above <= 1 and point.winners > 1
