"""Rows and counts as text: for the screen, and as Markdown."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from rag_core.base.markdown import table_cell
from rag_core.base.outside_text import visible


def format_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table, the first row as its head; each cell is one line."""
    cells = [[table_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def format_difference(difference: float, low: float, high: float) -> str:
    """Return a difference and its interval, as in `+0.0123 [+0.0010, +0.0236]`."""
    return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"


def counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Lay counts out as text, one row per split."""
    columns = list(next(iter(counts.values())))
    rows = [["", *(column.replace("_", " ") for column in columns)]]
    rows += [[name, *(f"{row[column]:,}" for column in columns)] for name, row in counts.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def listed(dropped: Counter[str]) -> str:
    """Return `2 duplicate passages, 1 empty passages`, or `nothing`."""
    return ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in sorted((+dropped).items())) or "nothing"


def format_ranking(rows: Sequence[Sequence[str]], width: int) -> str:
    """Return the rows as text of `width` columns of a terminal; the last cell is cut to fit, but not below 20."""
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    room = max(20, width - sum(sizes) - 2 * len(sizes))
    lines = []
    for row in rows:
        cells = [cell.rjust(size) for cell, size in zip(row[:-1], sizes, strict=True)]
        lines.append("  ".join([*cells, _cut(visible(row[-1]), room)]).rstrip())
    return "\n".join(lines)


def _cut(text: str, columns: int) -> str:
    """Cut a line to the columns it may take; East Asian wide characters take two."""
    shown: list[str] = []
    taken = 0
    for character in text:
        size = 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
        if taken + size > columns:
            while taken > columns - 1:  # room for the ellipsis
                last = shown.pop()
                taken -= 2 if unicodedata.east_asian_width(last) in "WF" else 0 if unicodedata.combining(last) else 1
            return "".join(shown) + "…"
        shown.append(character)
        taken += size
    return "".join(shown)
