import numpy as np
import pytest
from scipy import stats

from rag_core.metrics.significance import paired_change


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
