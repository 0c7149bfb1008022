"""The picture of the report: what each way changes, and on how many queries for the better and the worse."""

from __future__ import annotations

from collections.abc import Sequence

from query_expansion_rl.report.measuring import RowReport
from query_expansion_rl.report.verdict import text_of
from rag_core.base.figures import COLOURS, INK, NEUTRAL, WORSE, Picture, as_label, svg

_ROW_HEIGHT = 0.24  # inches
_OF_KIND = {"retriever": NEUTRAL, "training-free": COLOURS["before"], "policy": COLOURS["teacher"]}


def changes(rows: Sequence[RowReport], retriever: str, used: str) -> Picture | None:
    """Draw each row's change of nDCG@10 with its interval, and its wins and losses; `None` where nothing changed.

    Args:
        retriever: what the changes are from.
        used: the row that the verdict names.
    """
    drawn = [(row, change) for row in rows if (change := row.minus_retriever) is not None]
    if not drawn:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.8, 0.9 + _ROW_HEIGHT * len(drawn)), layout="constrained")
    left, right = figure.subplots(ncols=2, sharey=True)
    left.axvline(0, color=NEUTRAL, linewidth=0.8, zorder=0)
    for place, (row, change) in enumerate(drawn):
        colour = _OF_KIND.get(row.kind, COLOURS["after"])
        left.plot([change.low, change.high], [place, place], color=colour, linewidth=1.6)
        left.scatter([change.difference], [place], color=colour, s=22, zorder=2)
        if row.name == used:
            left.scatter([change.difference], [place], marker="*", s=150, facecolors="none", edgecolors=INK, zorder=3)
        right.barh(place, change.better, 0.7, color=COLOURS["after"])
        right.barh(place, -change.worse, 0.7, color=WORSE)
    left.set_yticks(range(len(drawn)), [as_label(row.name) for row, _ in drawn])
    left.invert_yaxis()
    left.set_xlabel(f"change of nDCG@10 from {as_label(retriever)}, 95 % interval")
    right.axvline(0, color=NEUTRAL, linewidth=0.8)
    right.set_xlabel("queries: worse to the left, better to the right")
    right.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    told = "; ".join(
        f"{row.name} {text_of(change)}, {change.better} better, {change.worse} worse" for row, change in drawn
    )
    caption = "What each way changes, and on how many queries"
    return Picture(caption, svg(figure, f"Change of nDCG@10 from {retriever}. {told}"), wide=True)
