"""Front and hypervolume by hand, and the pair that recall cannot tell apart."""

import pytest

from milvus_optimization.indexes.pareto import equal_recall_pair, hypervolume, pareto_front, recall_and_latency
from milvus_optimization.quality.halves import is_tune_query
from milvus_optimization.records import IndexTrial


def test_the_front_is_what_no_other_beats():
    points = [(0.5, 1), (0.9, 3), (0.7, 2), (0.6, 2), (0.9, 4), (0.7, 2)]
    assert pareto_front(points) == [0, 2, 1]


def test_the_hypervolume_is_the_area_of_the_steps():
    # Costs 1, 2 and 3 below a reference of 5: 4 x 0.1 + 3 x 0.1 + 2 x 0.2.
    assert hypervolume([(0.6, 1), (0.7, 2), (0.9, 3)], (0.5, 5)) == pytest.approx(1.1)


def test_what_is_not_better_than_the_reference_covers_nothing():
    assert hypervolume([(0.5, 1), (0.9, 5), (0.4, 0)], (0.5, 5)) == 0
    assert hypervolume([], (0.5, 5)) == 0


def test_a_point_that_another_beats_adds_nothing():
    assert hypervolume([(0.9, 3), (0.8, 4)], (0.5, 5)) == hypervolume([(0.9, 3)], (0.5, 5))


REPORT = [f"q{number}" for number in range(400) if not is_tune_query(f"q{number}", 0.5)]
TUNE = [f"q{number}" for number in range(400) if is_tune_query(f"q{number}", 0.5)]


def trial(index, recall, tune, report, **more):
    values = dict.fromkeys(TUNE, tune) | dict.fromkeys(REPORT, report)
    known = {
        "trial_id": f"{index} {recall}", "backend": "faiss", "backend_version": "", "model": "m", "index": index,
        "build": {}, "search": {}, "status": "ok", "rows": 9, "dimensions": 2, "k": 10, "queries": 400,
        "recall": recall, "ndcg": report, "ndcg_tune": tune, "by_query": values, "cpu_ms_p50": 1.0,
    }  # fmt: skip
    return IndexTrial(**known | more)


def test_the_pair_is_chosen_on_the_tune_half_and_told_on_the_report_half():
    trials = [
        trial("A", 0.87, 0.60, 0.55),
        trial("B", 0.88, 0.65, 0.63),
        trial("C", 0.86, 0.61, 0.99),
        trial("D", 0.95, 0.99, 0.99),  # of another recall
    ]
    pair = equal_recall_pair(trials)
    assert (pair.better.index, pair.worse.index) == ("B", "A")
    assert pair.difference.difference == pytest.approx(0.08)
    assert (pair.difference.better, pair.difference.worse) == (len(REPORT), 0)


@pytest.mark.parametrize(
    "other",
    [
        trial("A", 0.87, 0.9, 0.9),  # the same index type
        trial("B", 0.895, 0.9, 0.9),  # not as near
        trial("B", 0.87, 0.9, 0.9, status="ignored"),
        trial("B", 0.87, 0.9, 0.9, by_query=None),
    ],
)
def test_what_is_no_pair(other):
    assert equal_recall_pair([trial("A", 0.87, 0.6, 0.6), other]) is None


@pytest.mark.parametrize("recall", [0.49, 0.99])
def test_nobody_asks_about_recalls_beyond(recall):
    assert equal_recall_pair([trial("A", recall, 0.6, 0.6), trial("B", recall, 0.9, 0.9)]) is None


def test_ten_times_as_fast_is_one_step():
    points = recall_and_latency([trial("A", 0.9, 0, 0), trial("B", 0.9, 0, 0, cpu_ms_p50=0.1)])
    assert points == [(0.9, 0), (0.9, -1)]
