"""Which point between before and after is chosen."""

from types import SimpleNamespace

import numpy as np
import pytest

from rag_core.distillation import weight_merging
from rag_core.distillation.weight_merging import BETWEEN, BEYOND, FIRST


def curve(mean, spread=0.0, queries=8):
    """Values whose mean at alpha is `mean(alpha)`, and whose differences between two alphas vary by `spread`."""
    sign = np.resize([1, -1], queries)
    return np.array([mean(alpha) + spread * alpha * sign for alpha in BETWEEN])


def decide(inside, outside):
    return weight_merging.decide(BETWEEN, inside, outside)


def arch(top):
    return curve(lambda alpha: alpha * (top - alpha))  # above its start until `top`


def test_the_best_point_at_which_nothing_falls():
    rising = curve(lambda alpha: alpha)
    assert decide([rising], [])[0] == 1
    alpha, reason = decide([rising], [arch(0.65)])
    assert alpha == 0.5
    assert reason == (
        "nearest to 1 within a standard error of the best on the in-domain dev files, "
        "of 3 of 5 at which no out-of-domain dev file falls by more than a standard error"
    )
    assert decide([rising], [arch(0.65), curve(lambda alpha: -alpha)])[0] == 0


def test_what_the_dev_file_cannot_tell_from_the_best_is_decided_for_the_trained_weights():
    assert decide([curve(lambda alpha: -abs(alpha - 0.25))], [])[0] == 0.25
    # The shortfall at 1, of 0.75, is within 0.75 * 3 / sqrt(8).
    assert decide([curve(lambda alpha: -abs(alpha - 0.25), spread=3.0)], [])[0] == 1
    several = [curve(lambda alpha: -abs(alpha - 0.25), spread=3.0, queries=8)]
    assert decide([*several, curve(lambda alpha: -abs(alpha - 0.25), 0.0, 92)], [])[0] == 0.25


def test_a_fall_that_a_dev_file_cannot_tell_from_none_is_no_fall():
    rising = curve(lambda alpha: alpha)

    def falling(spread):
        return curve(lambda alpha: -0.1 * alpha, spread)

    assert decide([rising], [falling(spread=0.3)])[0] == 1  # 0.3 / sqrt(8) is 0.106
    assert decide([rising], [falling(spread=0.2)])[0] == 0
    assert decide([rising], [falling(spread=0.3), falling(spread=0.2)])[0] == 0


def test_without_an_in_domain_file_half_or_less():
    assert decide([], [curve(lambda alpha: 0.0)])[0] == 0.5
    assert decide([], [arch(0.4)])[0] == 0.25


def test_beyond_the_trained_one_as_far_as_nothing_falls():
    alphas = BETWEEN + BEYOND
    rising, falling_from_two = np.array(alphas), np.array([2.2 - alpha if alpha > 2 else 0.0 for alpha in alphas])
    assert weight_merging.decide(alphas, [np.tile(rising, (8, 1)).T], [np.tile(falling_from_two, (8, 1)).T])[0] == 2
    flat_from_two = np.minimum(rising, 2)
    assert weight_merging.decide(alphas, [np.tile(flat_from_two, (8, 1)).T], [])[0] == 2


class Dev:
    """A file whose values follow a curve; counts how often it is measured."""

    name, queries, measures = "dev.jsonl", 8, ("MAP",)

    def __init__(self, line, mean, searches=False):
        self._line, self._mean, self.asked, self.guards_its_domain = line, mean, [], searches

    def count(self, model):
        return 8

    def measured(self, model, batch_size, advance):
        self.asked.append(self._line.alpha)
        advance(8)
        return {"MAP": np.full(8, self._mean(self._line.alpha))}


@pytest.mark.parametrize(
    ("inside", "outside", "measured"),
    [
        (lambda alpha: alpha, lambda alpha: 0.0, [*FIRST, *BEYOND]),
        (lambda alpha: -abs(alpha - 1.5), lambda alpha: 0.0, [*FIRST, 1.5, 2.0]),
        (lambda alpha: alpha, lambda alpha: 0.9 - alpha if alpha else 0.0, [*FIRST, 0.75]),
        (lambda alpha: alpha, lambda alpha: 0.3 - alpha if alpha else 0.0, [*FIRST, 0.25]),
        (lambda alpha: alpha, None, [*FIRST]),
        (lambda alpha: 0.0, lambda alpha: 0.0, [*FIRST]),
        (None, lambda alpha: 0.0, [0.0, 0.5]),
        (None, lambda alpha: -alpha, [0.0, 0.5, 0.25]),
    ],
    ids=[
        "rising",
        "until the top",
        "until the guard says no",
        "until the guard says no early",
        "without a guard",
        "flat",
        "without an in-domain file",
        "and the guard says no",
    ],
)
def test_how_far_it_is_measured(inside, outside, measured, monkeypatch):
    line = SimpleNamespace()
    monkeypatch.setattr(
        weight_merging, "interpolate", lambda model, before, after, alpha: setattr(line, "alpha", alpha)
    )
    curves = {"in-domain": inside, "out-of-domain": outside}
    devs = [(domain, Dev(line, mean)) for domain, mean in curves.items() if mean]
    merge = weight_merging.choose_alpha(None, {}, {}, devs, 8)
    assert merge.alphas == sorted(measured)
    assert merge.alpha in measured
    for (domain, dev), curve in zip(devs, merge.files, strict=True):
        assert dev.asked == measured
        assert curve.values == [pytest.approx(curves[domain](alpha)) for alpha in merge.alphas]


def test_a_search_that_falls_in_its_own_domain_is_no_less_a_guard(monkeypatch):
    line = SimpleNamespace()
    monkeypatch.setattr(
        weight_merging, "interpolate", lambda model, before, after, alpha: setattr(line, "alpha", alpha)
    )
    lists, search = Dev(line, lambda alpha: alpha), Dev(line, lambda alpha: -alpha / 10, searches=True)
    assert weight_merging.choose_alpha(None, {}, {}, [("in-domain", lists)], 8).alpha == 1
    merge = weight_merging.choose_alpha(None, {}, {}, [("in-domain", lists), ("in-domain", search)], 8)
    assert merge.alpha == 0
    assert "of 1 of 4 at which no out-of-domain or searched dev file falls" in merge.reason
