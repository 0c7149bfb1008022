"""Losses over whole queries: each passage goes through the student once, whatever the number of its triplets.

MarginMSE: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
Distillation", arXiv:2010.02666.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from torch import Tensor, nn

from rag_core.records import Triplet
from rag_core.training import longest_first


def group_triplets(groups: Sequence[Sequence[Triplet]], margin_scale: float) -> Dataset:
    """Return one row a query: its distinct passages, and each triplet as two indices into them and a margin.

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


@dataclass
class GroupedCollator(CrossEncoderDataCollator):  # type: ignore[misc]  # untyped base
    """Tokenise the (query, passage) pairs of a batch of queries, each once, in mini-batches of similar length.

    The batch is: `minibatches`, a list of model inputs; `order` (pairs,), the place of each of their rows in
    the order of the file; `positive` and `negative` (triplets,), indices in that order; `label` (triplets,),
    the teacher's margins.
    """

    mini_batch_size: int = 32

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        pairs: list[tuple[str, str]] = []
        positive: list[int] = []
        negative: list[int] = []
        margin: list[float] = []
        for row in features:
            start = len(pairs)
            pairs += [(row["query"], passage) for passage in row["passages"]]
            positive += [start + i for i in row["positive"]]
            negative += [start + i for i in row["negative"]]
            margin += row["margin"]
        order = longest_first(self.preprocess_fn(pairs))
        minibatches = [
            dict(self.preprocess_fn([pairs[i] for i in order[start : start + self.mini_batch_size]]))
            for start in range(0, len(order), self.mini_batch_size)
        ]
        return {
            "minibatches": minibatches,
            "order": torch.tensor(order),
            "positive": torch.tensor(positive),
            "negative": torch.tensor(negative),
            "label": torch.tensor(margin),
        }


class GroupedMarginMSE(nn.Module):
    """mean over the triplets of ((s_positive - s_negative) - margin)^2, with s the student's raw scores.

    Equal, in value and gradient, to sentence-transformers' `MarginMSELoss` over the same triplets. For all
    n(n-1)/2 pairs of a query the sum is n * sum((d - mean d)^2) with d = s - t, so a student that is off by a
    constant per query loses nothing.
    """

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: list[Any], labels: Tensor, prompt: str | None = None, task: str | None = None) -> Tensor:
        """Return the loss, a scalar, of a batch made by `GroupedCollator`."""
        minibatches, order, positive, negative = inputs
        sorted_scores = torch.cat([self.model(features)["scores"].view(-1) for features in minibatches]).float()
        scores = torch.empty_like(sorted_scores).index_copy(0, order, sorted_scores)
        return nn.functional.mse_loss(scores[positive] - scores[negative], labels)
