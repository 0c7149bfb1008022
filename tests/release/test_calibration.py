"""Probabilities, on scores whose truth is known."""

import numpy as np
import pytest

from rag_core.base.errors import DataError
from rag_core.release.calibration import (
    Bin,
    expected_calibration_error,
    fit,
    is_held_out,
    reliability,
    sigmoid,
    uncalibrated,
)


def miscalibrated(count, seed=0):
    """Scores four times too sure of themselves and too high, and labels drawn by the probabilities they stand for."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.5, count)
    labels = (generator.random(count) < sigmoid(logits)).astype(float)
    return 4 * logits + 3, labels


def test_the_error_by_hand():
    probabilities, targets = np.array([0.01, 0.03, 0.99, 1.0]), np.array([0, 1, 1, 1])
    assert reliability(probabilities, targets) == [
        Bin(pairs=2, probability=pytest.approx(0.02), target=0.5),
        Bin(pairs=2, probability=pytest.approx(0.995), target=1.0),
    ]
    assert expected_calibration_error(probabilities, targets) == pytest.approx((0.48 + 0.005) / 2)


def test_the_error_falls_on_scores_not_fitted_on_and_is_that_of_chance_where_nothing_is_wrong():
    scaling = fit(*miscalibrated(20_000), "platt")
    assert (scaling.slope, scaling.intercept) == (pytest.approx(0.25, rel=0.04), pytest.approx(-0.75, abs=0.06))
    scores, labels = miscalibrated(20_000, seed=1)
    assert expected_calibration_error(uncalibrated(scores, "logit"), labels) > 0.1
    assert expected_calibration_error(scaling(scores), labels) < 0.02
    right = (scores - 3) / 4
    assert expected_calibration_error(uncalibrated(right, "logit"), labels) < 0.02  # what is right before stays so


def test_the_fit_is_that_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    scores, labels = miscalibrated(5000)
    found = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], labels)
    scaling = fit(scores, labels, "platt")
    assert (scaling.slope, scaling.intercept) == (
        pytest.approx(found.coef_.item(), rel=1e-2),  # Platt's targets are not quite 0 and 1
        pytest.approx(found.intercept_.item(), rel=1e-2),
    )


def test_soft_targets_are_met_exactly_and_a_temperature_has_no_offset():
    scores = np.linspace(-5, 5, 101)
    scaling = fit(scores, sigmoid(0.3 * scores - 1), "platt")
    assert (scaling.slope, scaling.intercept) == (pytest.approx(0.3, rel=1e-4), pytest.approx(-1, rel=1e-4))
    temperature = fit(scores, sigmoid(0.3 * scores), "temperature")
    assert (temperature.slope, temperature.intercept) == (pytest.approx(0.3, rel=1e-4), 0)


def test_labels_that_scores_divide_without_error_ask_for_no_infinite_slope():
    scaling = fit(np.arange(10.0), (np.arange(10) > 4).astype(float), "platt")
    assert 0 < scaling.slope < 10
    with pytest.raises(DataError, match="higher scores do not stand for higher probabilities"):
        fit(-np.arange(10.0), (np.arange(10) > 4).astype(float), "platt")
    with pytest.raises(DataError, match="the scores of the pairs to fit on are all the same"):
        fit(np.ones(4), np.array([0.0, 1, 0, 1]), "platt")


def test_the_same_query_is_always_in_the_same_half():
    halves = [is_held_out(f"query {number}") for number in range(1000)]
    assert 400 < sum(halves) < 600
    assert halves == [is_held_out(f"query {number}") for number in range(1000)]
