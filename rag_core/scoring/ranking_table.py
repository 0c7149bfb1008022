"""The passages of a query in the order of a model, and where another model had put them, as a table for the screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from rag_core.base.records import Label
from rag_core.metrics.ranking import rank

_LABELS = {1: "relevant", 0: "", None: ""}


def ranking_rows(
    passages: Sequence[tuple[str, Label]], scores: npt.ArrayLike, before: npt.ArrayLike | None
) -> list[list[str]]:
    """Return a head and one row per passage, best first: rank, rank before, how far it moved, scores, label, text.

    Args:
        passages: distinct ones with their labels; the column of labels is there when one is.
        scores, before: of each passage, by the model and by the one before it.
    """
    import numpy as np

    texts = [text for text, _ in passages]
    new_scores, ranks = np.asarray(scores, dtype=np.float64), rank(texts, scores)
    columns: dict[str, list[str]] = {"rank": [str(place + 1) for place in ranks]}
    if before is not None:
        old_ranks = rank(texts, before)
        moved = old_ranks - ranks
        columns["before"] = [str(place + 1) for place in old_ranks]
        columns["moved"] = [f"{places:+d}" if places else "" for places in moved]
    columns["score"] = [f"{score:.4f}" for score in new_scores]
    if before is not None:
        columns["score before"] = [f"{score:.4f}" for score in np.asarray(before, dtype=np.float64)]
    if any(label is not None for _, label in passages):
        columns["label"] = [_LABELS[label] for _, label in passages]
    columns["passage"] = [" ".join(text.split()) for text in texts]
    order = ranks.argsort()
    return [list(columns), *([cells[i] for cells in columns.values()] for i in order)]
