"""Cut-offs that are carried over from one model to the next."""

import numpy as np
import pytest

from rag_core.release.calibration import sigmoid
from rag_core.release.cut_offs import default_cut_offs, largest_difference, map_cut_offs


def test_cut_offs_by_hand():
    old, new = np.array([4.0, 3, 2, 1] * 2), np.array([0.4, 0.3, 0.2, 0.1, 0.35, 0.1, 0.2, 0.3])
    held_out = np.arange(8) > 3
    labels = np.array([1.0, 0, 1, 0] * 2)
    two, nothing = map_cut_offs([3, 9], old, new, held_out, labels)
    assert (two.pass_rate, two.pass_rate_old, two.pass_rate_new) == (pytest.approx(0.25), 0.5, 0.5)
    assert two.precision == pytest.approx(0.1)
    assert (two.precision_old, two.precision_new) == (0.5, 0.5)
    assert (nothing.pass_rate_old, nothing.pass_rate_new, nothing.precision) == (0, 0, None)
    assert map_cut_offs([3], old, new, held_out, None)[0].precision_old is None
    unknown = np.append(labels, [np.nan] * 2)  # pairs without a label count for pass rates only
    more = map_cut_offs(
        [3], np.append(old, [9, 9]), np.append(new, [9, 9]), np.append(held_out, [True, False]), unknown
    )
    assert (more[0].precision_old, more[0].pass_rate_old) == (0.5, 0.6)


def test_pass_rates_hold_within_two_points_on_other_pairs():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=20_000)
    old = truth + 0.5 * generator.normal(size=20_000)
    new = np.exp(truth + 0.5 * generator.normal(size=20_000))  # another scale, and noise of its own
    held_out = np.arange(20_000) % 2 == 1
    labels = (generator.random(20_000) < sigmoid(2 * truth - 1)).astype(float)
    mapped = map_cut_offs(default_cut_offs(old[~held_out]), old, new, held_out, labels)
    assert len(mapped) == 9
    assert 0 < largest_difference(mapped) < 0.02
    assert all(abs(row.precision_new - row.precision_old) < 0.05 for row in mapped[2:])
    unchanged = [abs((new[held_out] >= row.old).mean() - row.pass_rate_old) for row in mapped]
    assert max(unchanged) > 0.2  # a cut-off that is left as it is means something else
