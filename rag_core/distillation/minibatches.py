"""A batch as a student reads it: tokenised once, then cut into mini-batches of rows of similar length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def cut_minibatches(features: Mapping[str, Any], size: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Cut a model's inputs into mini-batches, the longest rows first: like lengths together need little padding.

    Each mini-batch equals what `preprocess` returns for its rows alone: columns that hold only padding are left out,
    whichever side it is on. Values without a row per text, such as `prompt_length`, go into every mini-batch.

    A static embedder's texts stand one after another without padding: they stay one mini-batch.

    Args:
        features: as `preprocess` returns them; their `attention_mask` has the shape (rows, tokens), a static embedder's
            `offsets` the shape (rows,).
        size: rows in a mini-batch.

    Returns:
        The mini-batches, and the indices of their rows in `features`; rows of the same length keep their order.
    """
    if "offsets" in features:
        return [dict(features)], list(range(len(features["offsets"])))
    mask: Tensor = features["attention_mask"]
    order = mask.sum(dim=1).argsort(descending=True, stable=True)

    def cut(value: Any, rows: Tensor, columns: Tensor) -> Any:
        if not isinstance(value, Tensor) or value.shape[:1] != mask.shape[:1]:
            return value
        return value[rows][:, columns] if value.shape[:2] == mask.shape else value[rows]

    minibatches = []
    for rows in torch.split(order, size):
        columns = mask[rows].any(dim=0)
        minibatches.append({name: cut(value, rows, columns) for name, value in features.items()})
    return minibatches, order.tolist()
