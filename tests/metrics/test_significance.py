import numpy as np
import pytest
from scipy import stats

from rag_core.metrics import significance
from rag_core.metrics.significance import Wins, count_wins, gap_closed, mean_interval, paired_change


def test_a_clear_gain_and_its_interval():
    generator = np.random.default_rng(0)
    old = generator.random(500)
    new = old + 0.05 + 0.1 * generator.standard_normal(500)
    change = paired_change(old, new, seed=1)
    half_width = 1.96 * (new - old).std(ddof=1) / np.sqrt(500)
    assert change.difference == pytest.approx((new - old).mean())
    assert change.relative == pytest.approx((new - old).mean() / old.mean())
    assert change.high - change.low == pytest.approx(2 * half_width, rel=0.1)
    assert change.low > 0
    assert change.p_value < 0.001
    assert change == paired_change(old, new, seed=1)


def test_the_p_value_is_that_of_a_paired_test():
    generator = np.random.default_rng(0)
    old = generator.random(300)
    new = old + 0.004 + 0.1 * generator.standard_normal(300)
    assert paired_change(old, new, seed=0).p_value == pytest.approx(stats.ttest_rel(old, new).pvalue, abs=0.02)


def test_no_change_at_all():
    same = np.array([0.5, 1.0, 0.25])
    change = paired_change(same, same, seed=0)
    assert (change.difference, change.low, change.high, change.p_value) == (0, 0, 0, 1)


def test_unmeasured_queries_are_left_out_in_pairs():
    change = paired_change(np.array([0.1, np.nan, 0.3, 0.5]), np.array([0.2, 0.9, 0.4, np.nan]), seed=0)
    assert change.difference == pytest.approx(0.1)
    with pytest.raises(ValueError, match="needs 2 queries, got 1"):
        paired_change(np.array([0.1, np.nan]), np.array([0.2, 0.9]), seed=0)


def test_the_share_of_the_gap_by_hand():
    before, teacher = np.zeros(50), np.ones(50)
    gap = gap_closed(before, np.full(50, 0.75), teacher, 1)
    assert (gap.share, gap.low, gap.high) == (0.75, 0.75, 0.75)
    assert gap_closed(before, before, before, 1) is None
    assert gap_closed(teacher, before, before, 1) is None
    after = np.where(np.arange(50) < 25, 1.0, np.nan)  # what cannot be measured is left out of all three
    assert gap_closed(before, after, teacher, 1).share == 1
    uncertain = gap_closed(before, before, np.where(np.arange(50) % 2, 1.1, -1.0), 1)
    assert uncertain.low is uncertain.high is None


def test_intervals_of_two_queries_by_hand():
    # Of the four equally likely resamples one has only the first query, one only the second: 0 and 1 are the bounds.
    zero_or_one = np.array([0.0, 1.0])
    assert mean_interval(zero_or_one, 1) == (0, 1)
    gap = gap_closed(np.zeros(2), zero_or_one, np.full(2, 2.0), 1)
    assert (gap.share, gap.low, gap.high) == (0.25, 0, 0.5)


def test_the_batches_of_resamples_have_no_say_in_the_intervals(monkeypatch):
    before, after, teacher = np.random.default_rng(0).random((3, 40)) + np.array([[0], [0.1], [0.5]])

    def intervals():
        return mean_interval(after, 1), gap_closed(before, after, teacher, 1), paired_change(before, after, 1)

    at_once = intervals()
    monkeypatch.setattr(significance, "_BATCH_VALUES", 1000)
    assert intervals() == at_once


def test_the_interval_of_the_share_resamples_all_three_together():
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=400)  # shared by the three: a paired interval does not see it
    gap = gap_closed(difficulty, difficulty + 0.5 + 0.01 * generator.normal(size=400), difficulty + 1.0, 1)
    assert gap.low == pytest.approx(0.5, abs=0.01)
    assert gap.high == pytest.approx(0.5, abs=0.01)
    lead = generator.random(400)  # of each query half is closed, so half of any of them
    half = gap_closed(difficulty, difficulty + lead / 2, difficulty + lead, 1)
    assert (half.low, half.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_wins_and_mean_intervals():
    assert count_wins(np.array([0, 1, 1, np.nan]), np.array([1, 0, 1, 1])) == Wins(1, 1, 1)
    low, high = mean_interval(np.array([0.0, 1.0] * 50 + [np.nan]), 1)
    assert (low, high) == (pytest.approx(0.4, abs=0.02), pytest.approx(0.6, abs=0.02))
