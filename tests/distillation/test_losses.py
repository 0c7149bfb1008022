"""The listwise losses against independent implementations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from rag_core.distillation.losses import kl_divergence, margin_mse

STUDENT = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, 9.0]], requires_grad=True)
TEACHER = torch.tensor([[1.0, 0.0, 0.5], [2.0, -1.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])  # the second query has two candidates
ROWS = [(STUDENT[0].tolist(), TEACHER[0].tolist()), (STUDENT[1, :2].tolist(), TEACHER[1, :2].tolist())]


def test_kl_divergence_is_that_of_scipy_whatever_stands_outside_the_mask():
    expected = np.mean([entropy(softmax(teacher), softmax(student)) for student, teacher in ROWS])
    loss = kl_divergence(STUDENT, TEACHER, MASK)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, STUDENT)
    assert torch.isfinite(gradient).all()
    assert gradient[1, 2] == 0


def test_margin_mse_is_the_mean_over_all_pairs():
    expected = np.mean(
        [
            np.mean([((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i, j in itertools.combinations(range(len(s)), 2)])
            for s, t in ROWS
        ]
    )
    assert margin_mse(STUDENT, TEACHER, MASK).item() == pytest.approx(expected, rel=1e-6)
