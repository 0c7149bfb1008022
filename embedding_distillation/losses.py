"""What a small bi-encoder learns from soft labels, with each text of a batch encoded once.

Scores are (queries, candidates) tensors. Queries have different numbers of candidates: a mask of the same shape says
which entries are there. Student scores are cosines divided by the student's temperature. Teacher scores are divided by
the teacher's, so the two may have different units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedding_distillation.loss_settings import LossSettings
from rag_core.distillation.losses import kl_divergence, margin_mse


def contrastive(student: Tensor, best: Tensor, usable: Tensor) -> Tensor:
    """Return InfoNCE: the mean over queries of -log softmax of the teacher's best candidate among usable passages.

    van den Oord et al. 2018, arXiv:1807.03748.

    Args:
        student: scaled scores of every query with every passage of the batch; shape (queries, passages).
        best: index of each query's best passage; shape (queries,).
        usable: which passages are its negatives, see `usable_negatives`; shape (queries, passages).
    """
    keep = usable.scatter(1, best.unsqueeze(1), True)
    return nn.functional.cross_entropy(student.masked_fill(~keep, torch.finfo(student.dtype).min), best)


def usable_negatives(
    teacher: Tensor,
    mask: Tensor,
    passages: Tensor,
    count: int,
    teacher_cosines: Tensor | None,
    *,
    unscored: Tensor | None = None,
) -> Tensor:
    """Tell which of the batch's passages are negatives of each query; shape (queries, count), bool.

    A passage that the teacher scores within one temperature of the query's best, or above, may be a positive, so it is
    not used as a negative. For passages of other queries that score is known only with the teacher's vectors. A
    candidate that a prescreening left unscored is none either, where another query brings it into the batch. After
    Solatorio 2024, "GISTEmbed", arXiv:2402.16829.

    Args:
        teacher: scaled scores of the candidates; shape (queries, candidates).
        passages: index of each candidate among the batch's passages; shape (queries, candidates).
        teacher_cosines: scaled cosines of the teacher's vectors; shape (queries, count).
        unscored: pairs of a query and one of the passages; shape (pairs, 2).
    """
    lowest = torch.finfo(teacher.dtype).min
    best = teacher.masked_fill(~mask, lowest).max(dim=1, keepdim=True).values
    usable = torch.ones(len(teacher), count, dtype=torch.bool, device=teacher.device)
    if teacher_cosines is not None:
        usable = teacher_cosines < best - 1
    rows, columns = mask.nonzero(as_tuple=True)
    usable[rows, passages[rows, columns]] = (teacher < best - 1)[rows, columns]
    if unscored is not None:
        usable[unscored[:, 0], unscored[:, 1]] = False
    return usable


class DistillationLoss(nn.Module):
    """The loss of a batch made by `collator.GroupedCollator`, by name, as a dict of its weighted terms.

    `mse` compares vectors: the mean over texts of |W s - t|^2, with s and t of length 1 and W a learned projection
    where the sizes differ (Reimers and Gurevych 2020, arXiv:2004.09813, have W = 1). The projection is not saved with
    the model.

    With `matryoshka_dims` it is the mean over vectors cut to each size (Kusupati et al. 2022, "Matryoshka
    Representation Learning", arXiv:2205.13147, take the sum). sentence-transformers' MatryoshkaLoss wraps losses that
    return one number, and would cut the anchors too, whose vectors are whole.
    """

    def __init__(self, model: SentenceTransformer, settings: LossSettings, teacher_dimensions: int | None) -> None:
        super().__init__()
        self.model = model
        self._settings = settings
        self.projection: nn.Module = nn.Identity()
        dimensions = model.get_embedding_dimension()
        if settings.loss == "mse" and teacher_dimensions is not None and teacher_dimensions != dimensions:
            self.projection = nn.Linear(dimensions, teacher_dimensions, bias=False)

    def forward(self, inputs: Mapping[str, Any], labels: None = None) -> dict[str, Tensor]:
        """Return the terms of the loss, scalars, whose sum is minimised."""
        vectors = self._embed(inputs["minibatches"], inputs["order"])
        distill = self._matryoshka if self._settings.matryoshka_dims else self._distillation
        terms = distill(vectors, inputs)
        if self._settings.anchor_weight:
            drift = 1 - (vectors[inputs["anchors"]] * inputs["anchor_vectors"]).sum(dim=1)
            terms["drift"] = self._settings.anchor_weight * drift.mean()
        return terms

    def _matryoshka(self, vectors: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        found = [
            self._distillation(normalize(vectors[:, :size], dim=1), inputs) for size in self._settings.matryoshka_dims
        ]
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}

    def _embed(self, minibatches: list[dict[str, Tensor]], order: Tensor) -> Tensor:
        encoded = torch.cat([self.model(features)["sentence_embedding"] for features in minibatches]).float()
        return torch.empty_like(encoded).index_copy(0, order, normalize(encoded, dim=1))

    def _distillation(self, vectors: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        settings = self._settings
        if settings.loss == "mse":
            taught = vectors[: len(inputs["teacher_vectors"])]
            projected = normalize(self.projection(taught), dim=1)
            return {"mse": ((projected - inputs["teacher_vectors"]) ** 2).sum(dim=1).mean()}
        queries, passages, mask = vectors[inputs["queries"]], inputs["passages"], inputs["mask"]
        student = (queries.unsqueeze(1) * vectors[passages]).sum(dim=2) / settings.student_temperature
        teacher = inputs["scores"] / settings.teacher_temperature
        if settings.loss == "margin_mse":
            return {"margin_mse": margin_mse(student, teacher, mask)}
        terms = {"kl": kl_divergence(student, teacher, mask)}
        if settings.loss == "kl+contrastive":
            terms["contrastive"] = settings.contrastive_weight * self._contrastive(vectors, teacher, inputs)
        return terms

    def _contrastive(self, vectors: Tensor, teacher: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        first, end = inputs["passage_range"]  # where the batch's passages stand among its texts
        queries, passages, mask = inputs["queries"], inputs["passages"] - first, inputs["mask"]
        teacher_cosines = None
        if "teacher_vectors" in inputs:
            known = inputs["teacher_vectors"]
            teacher_cosines = known[queries] @ known[first:end].T / self._settings.teacher_temperature
        unscored = inputs.get("unscored")
        if unscored is not None:
            unscored = unscored - torch.tensor([0, first], device=unscored.device)
        usable = usable_negatives(teacher, mask, passages, end - first, teacher_cosines, unscored=unscored)
        best = teacher.masked_fill(~mask, torch.finfo(teacher.dtype).min).argmax(dim=1, keepdim=True)
        student = vectors[queries] @ vectors[first:end].T / self._settings.student_temperature
        return contrastive(student, passages.gather(1, best).squeeze(1), usable)
