"""Losses over whole queries: each passage goes through the student once, whatever the number of its triplets.

Pairwise losses (`PairwiseLoss`) are means over triplets, listwise ones (`ListwiseLoss`) means over queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.losses import ADRMSELoss, LambdaLoss, ListNetLoss, PListMLELoss
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.rnn import pad_sequence

from rag_core.base.records import SoftLabels, Triplet
from rag_core.distillation.losses import kl_divergence, margin_mse, mse
from rag_core.distillation.minibatches import cut_minibatches, cut_queries
from reranker_distillation.loss_settings import LossSettings


def group_triplets(groups: Sequence[Sequence[Triplet]], margin_scale: float) -> Dataset:
    """Return one row per query: its distinct passages, and each triplet as two indices into them and a margin.

    Args:
        margin_scale: every teacher margin is multiplied by this.
    """
    rows = []
    for group in groups:
        index: dict[str, int] = {}
        for triplet in group:
            index.setdefault(triplet.positive, len(index))
            index.setdefault(triplet.negative, len(index))
        rows.append(
            {
                "query": group[0].query,
                "passages": list(index),
                "positive": [index[triplet.positive] for triplet in group],
                "negative": [index[triplet.negative] for triplet in group],
                "margin": [triplet.score * margin_scale for triplet in group],
            }
        )
    return Dataset.from_list(rows)


def list_candidates(groups: Sequence[SoftLabels], scale: float) -> Dataset:
    """Return one row per query: its passages, and the teacher's score of each times `scale`."""
    return Dataset.from_list(
        [
            {"query": group.query, "passages": group.passages, "scores": [score * scale for score in group.scores]}
            for group in groups
        ]
    )


@dataclass
class GroupedCollator(CrossEncoderDataCollator):  # type: ignore[misc]  # untyped base
    """Tokenise the (query, passage) pairs of a batch of queries once, and cut them into mini-batches.

    The batch holds: `minibatches`, a list of model inputs; `order` (pairs,), for each of their rows its place in the
    order of the file; `positive` and `negative` (triplets,), indices in that order; `label` (triplets,), the teacher's
    margins.

    With `in_parts` it holds batches of a few queries each, see `cut_queries`.
    """

    mini_batch_size: int = 32
    in_parts: bool = False

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        if self.in_parts:
            return cut_queries(features, self.mini_batch_size, self._collate)
        return self._collate(features)

    def _collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        positive: list[int] = []
        negative: list[int] = []
        margin: list[float] = []
        start = 0
        for row in features:
            positive += [start + i for i in row["positive"]]
            negative += [start + i for i in row["negative"]]
            margin += row["margin"]
            start += len(row["passages"])
        return {
            **self._tokenise(features),
            "positive": torch.tensor(positive),
            "negative": torch.tensor(negative),
            "label": torch.tensor(margin),
        }

    def _tokenise(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        pairs = [(row["query"], passage) for row in features for passage in row["passages"]]
        minibatches, order = cut_minibatches(self.preprocess_fn(pairs), self.mini_batch_size)
        return {"minibatches": minibatches, "order": torch.tensor(order)}


@dataclass
class ListwiseCollator(GroupedCollator):
    """The same for whole lists: `sizes` (queries,) counts each query's candidates, `label` (pairs,) holds scores."""

    def _collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            **self._tokenise(features),
            "sizes": torch.tensor([len(row["passages"]) for row in features]),
            "label": torch.tensor([score for row in features for score in row["scores"]]),
        }


class _GroupedLoss(nn.Module):
    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def scores(self, minibatches: list[dict[str, Tensor]], order: Tensor) -> Tensor:
        """Return the student's raw scores in the order of the file; shape (pairs,)."""
        sorted_scores = torch.cat([self.model(features)["scores"].view(-1) for features in minibatches]).float()
        return torch.empty_like(sorted_scores).index_copy(0, order, sorted_scores)


class PairwiseLoss(_GroupedLoss):
    """A mean over triplets, of d = s_positive - s_negative, with s the student's raw scores.

    Args:
        mean_margin: if given, a triplet has the weight margin / mean_margin, so that what the teacher is sure of counts
            more. It is the mean over the whole file: weights do not depend on the batches.
    """

    def __init__(self, model: CrossEncoder, mean_margin: float | None = None) -> None:
        super().__init__(model)
        self._mean_margin = mean_margin

    def forward(self, inputs: list[Any], labels: Tensor, prompt: str | None = None, task: str | None = None) -> Tensor:
        """Return the loss, a scalar, of a batch made by `GroupedCollator`."""
        minibatches, order, positive, negative = inputs
        scores = self.scores(minibatches, order)
        terms = self.terms(scores[positive] - scores[negative], labels)
        return (terms if self._mean_margin is None else terms * labels / self._mean_margin).mean()

    def terms(self, differences: Tensor, margins: Tensor) -> Tensor:
        """Return the loss of each triplet; all of shape (triplets,)."""
        raise NotImplementedError


class GroupedMarginMSE(PairwiseLoss):
    """(d - margin)^2. Hofstätter et al. 2020, arXiv:2010.02666.

    Equal, in value and gradient, to sentence-transformers' `MarginMSELoss` over the same triplets. For all
    n(n-1)/2 pairs of a query the sum is n * sum((d - mean d)^2) with d = s - t, so a student that is off by a
    constant per query loses nothing.
    """

    def terms(self, differences: Tensor, margins: Tensor) -> Tensor:
        return (differences - margins) ** 2


class GroupedRankNet(PairwiseLoss):
    """log(1 + exp(-d)): the teacher says which is better, not by how much.

    Burges et al. 2005, "Learning to Rank using Gradient Descent", on a teacher's order as in Sun et al. 2023,
    "Is ChatGPT Good at Search?", arXiv:2304.09542. sentence-transformers' `RankNetLoss` is it in bits, over all pairs.
    """

    def terms(self, differences: Tensor, margins: Tensor) -> Tensor:
        return softplus(-differences)


class ListwiseLoss(_GroupedLoss):
    """A mean over queries, of the student's raw scores s and the teacher's t of a query's n candidates.

    - `margin_mse+mse`: the mean of ((s_i - s_j) - (t_i - t_j))^2 over all pairs (arXiv:2010.02666), plus `mse_weight`
      times the mean of (s_i - t_i)^2, which fixes the level of the scores; margins leave it open.
    - `kl`: KL(softmax(t / teacher_temperature) || softmax(s / student_temperature)). Hinton et al. 2015,
      arXiv:1503.02531.
    - `listnet`: the cross-entropy of softmax(s) under softmax(t / teacher_temperature): `kl` at a student temperature
      of 1, but for a constant. Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach".
    - `plistmle`: -sum over ranks r of w_r log(exp s_(r) / sum of exp s_(k) over k >= r), with s_(r) the score of the
      teacher's r-th and w_r in proportion to 2^(n - r) - 1. Lan et al. 2014, "Position-Aware ListMLE".
    - `adr_mse`: the mean of (r_i - a_i)^2 / log2(r_i + 1), with r_i the teacher's rank and a_i the student's made
      smooth, 1 + sum over j != i of sigmoid(s_j - s_i). Schlatt et al. 2024, "Rank-DistiLLM", arXiv:2405.07920.
    - `lambda`: NDCG-Loss2++, the mean over pairs with t_i > t_j of -w_ij log2 sigmoid(s_i - s_j), where w_ij is made of
      how much NDCG the two would gain and lose by changing places. The teacher's scores, brought to 0 (worst) to 1
      (best) in each query, are the relevance. Wang et al. 2018, "The LambdaLoss Framework for Ranking Metric
      Optimization".

    The last four are sentence-transformers' own, applied query by query: over a batch, some of them would take another
    mean. A constant added to all scores of a query changes only `margin_mse+mse`.
    """

    def __init__(self, model: CrossEncoder, settings: LossSettings) -> None:
        super().__init__(model)
        self._settings = settings

    def forward(self, inputs: list[Any], labels: Tensor, prompt: str | None = None, task: str | None = None) -> Tensor:
        """Return the loss, a scalar, of a batch made by `ListwiseCollator`."""
        minibatches, order, sizes = inputs
        return listwise_loss(self.scores(minibatches, order), labels, sizes, self._settings)


def listwise_loss(student: Tensor, teacher: Tensor, sizes: Tensor, settings: LossSettings) -> Tensor:
    """Return the loss that `ListwiseLoss` describes.

    Args:
        student, teacher: scores, query after query; shape (pairs,).
        sizes: how many of them belong to each query, at least 2; shape (queries,).
    """
    if settings.loss in ("kl", "listnet"):
        teacher = teacher / settings.teacher_temperature
    students, teachers = (list(torch.split(scores, sizes.tolist())) for scores in (student, teacher))
    if settings.loss in ("margin_mse+mse", "kl"):
        padded = pad_sequence(students, batch_first=True), pad_sequence(teachers, batch_first=True)
        mask = torch.arange(padded[0].shape[1], device=sizes.device) < sizes.unsqueeze(1)
        if settings.loss == "kl":
            return kl_divergence(padded[0] / settings.student_temperature, padded[1], mask)
        return margin_mse(*padded, mask) + settings.mse_weight * mse(*padded, mask)
    terms = [_of_one_query(*scores, settings) for scores in zip(students, teachers, strict=True)]
    return torch.stack(terms).mean()


def _of_one_query(student: Tensor, teacher: Tensor, settings: LossSettings) -> Tensor:
    scored = _Scored(student)
    everything = {"mini_batch_size": -1}
    if settings.loss == "listnet":
        loss = ListNetLoss(scored, **everything)
    elif settings.loss == "plistmle":
        loss = PListMLELoss(scored, respect_input_order=False, **everything)
    elif settings.loss == "adr_mse":
        loss = ADRMSELoss(scored, **everything)
    elif settings.loss == "lambda":
        lowest, highest = teacher.min(), teacher.max()
        teacher = (teacher - lowest) / (highest - lowest).clamp_min(torch.finfo(teacher.dtype).tiny)
        loss = LambdaLoss(scored, **everything)
    else:
        raise ValueError(f"{settings.loss} is not computed query by query")
    value: Tensor = loss([[""], [[""] * len(student)]], [teacher])
    return value


class _Scored:
    """Stand for a cross-encoder in a loss of sentence-transformers: the scores are there already."""

    num_labels = 1

    def __init__(self, scores: Tensor) -> None:
        self._scores = scores
        self.device = scores.device

    def preprocess(self, pairs: list[Any], **options: Any) -> dict[str, Tensor]:
        return {}

    def __call__(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self._scores}
