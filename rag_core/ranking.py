"""The passages of a query in the order of a model, and where another model had put them, as a table for the screen."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy.typing as npt

from rag_core.metrics import rank
from rag_core.records import Label

_LABELS = {1: "relevant", 0: "", None: ""}


def ranking_rows(
    passages: Sequence[tuple[str, Label]], scores: npt.ArrayLike, before: npt.ArrayLike | None
) -> list[list[str]]:
    """Return a head and, best first, a row a passage: rank, what was before, how far it moved, scores, label, text.

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


def format_ranking(rows: Sequence[Sequence[str]], width: int) -> str:
    """Return the rows as text of `width` columns of a terminal; the last cell is cut to fit, but not below 20."""
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    room = max(20, width - sum(sizes) - 2 * len(sizes))
    lines = []
    for row in rows:
        cells = [cell.rjust(size) for cell, size in zip(row[:-1], sizes, strict=True)]
        lines.append("  ".join([*cells, _cut(row[-1], room)]).rstrip())
    return "\n".join(lines)


def _cut(text: str, columns: int) -> str:
    """Cut a text to the columns it may take; East Asian wide characters take two, control characters are left out."""
    shown: list[str] = []
    taken = 0
    for character in text:
        if unicodedata.category(character) == "Cc":
            continue
        size = 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
        if taken + size > columns:
            while taken > columns - 1:  # room for the ellipsis
                last = shown.pop()
                taken -= 2 if unicodedata.east_asian_width(last) in "WF" else 0 if unicodedata.combining(last) else 1
            return "".join(shown) + "…"
        shown.append(character)
        taken += size
    return "".join(shown)
