"""Losses over the candidates of whole queries, for both pipelines.

Scores are (queries, candidates) tensors. Queries have different numbers of candidates: a mask of the same shape says
which entries are there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over queries of KL(teacher || student), each a softmax over the query's candidates, in nats.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. Their factor, the temperature
    squared, balances it against a loss on hard labels; there is none here.
    """
    lowest = torch.finfo(student.dtype).min
    log_student = student.masked_fill(~mask, lowest).log_softmax(dim=1)
    log_teacher = teacher.masked_fill(~mask, lowest).log_softmax(dim=1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()


def margin_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean, over queries, of the mean over all pairs of candidates of (student margin - teacher margin)^2.

    Hofstätter et al. 2020, arXiv:2010.02666. Computed as 2 / (n - 1) times the sum of (d - mean d)^2 with
    d = student - teacher: the same value, from n candidates instead of n (n - 1) / 2 pairs.
    """
    count = mask.sum(dim=1)
    difference = (student - teacher).masked_fill(~mask, 0.0)
    mean = difference.sum(dim=1, keepdim=True) / count.unsqueeze(1)
    squared = ((difference - mean) ** 2).masked_fill(~mask, 0.0)
    return (2 * squared.sum(dim=1) / (count - 1)).mean()


def mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean, over queries, of the mean over candidates of (student - teacher)^2."""
    squared = ((student - teacher) ** 2).masked_fill(~mask, 0.0)
    return (squared.sum(dim=1) / mask.sum(dim=1)).mean()
