"""Figures as SVG text: their colours, an empty figure, and what a screen reader says of one."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from typing import Any

from rag_core.base.outside_text import quoted, visible

COLOURS: dict[str, str] = {
    "BM25": "#9aa5b1",
    "first stage": "#616e7c",
    "before": "#5b8def",
    "after": "#1f9d61",
    "mixed": "#7b61c4",
    "teacher": "#d98a29",
}
NEUTRAL, WORSE, INK = COLOURS["BM25"], "#c8553d", "#1f2933"
MODEL_COLOURS = (COLOURS["after"], "#7b61c4", WORSE, "#2f97a8", "#8d6e63", "#b0508f")  # "after" and further ones


@dataclasses.dataclass(frozen=True)
class Picture:
    """An SVG element and what stands above it; a `wide` one has two parts side by side."""

    caption: str
    svg: str
    wide: bool = False


def new_figure(columns: int = 1) -> tuple[Any, Any]:
    """Return an empty figure and its axes, or a row of axes where there are several columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * columns, 3.1), layout="constrained")
    return figure, figure.subplots(ncols=columns)


def as_label(text: str) -> str:
    """Return a text that is not ours as a label: no formula, not too long to fit, and not hidden for its first sign."""
    line = quoted(text, 40).replace("$", r"\$") or "?"
    return f" {line}" if line.startswith("_") else line


def svg(figure: Any, description: str) -> str:
    """Return a figure as an SVG element that says what is on it to those who do not see it."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer, description = io.StringIO(), visible(description)
    # Equal figures give equal bytes, and no two of a page the same ids.
    style = {"svg.hashsalt": description, "svg.fonttype": "none"}
    metadata = {"Title": description, "Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context(style), warnings.catch_warnings():
        # The text is text in an SVG: which signs a font has is for who shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        figure.savefig(buffer, format="svg", metadata=metadata, dpi=200)
    svg = re.sub(r"^.*?<svg ", '<svg role="img" ', buffer.getvalue(), flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", svg)  # numbered alike in every figure, and nothing refers to them
