"""The picture of a calibration: does what a probability promises come true?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rag_core.base.figures import COLOURS, NEUTRAL, Picture, new_figure, svg
from rag_core.release.calibration import Bin, Target, When


def reliability_diagram(bins: Mapping[When, Sequence[Bin]], target: Target) -> Picture:
    """Draw mean target by mean probability, before and after calibration; a point's area grows with its pairs."""
    figure, axes = new_figure(columns=2)
    for side, (when, rows) in zip(axes, bins.items(), strict=True):
        probabilities = [row.probability for row in rows]
        areas = [8 + 200 * row.pairs / sum(row.pairs for row in rows) for row in rows]
        side.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8)
        side.plot(probabilities, [row.target for row in rows], color=COLOURS[when], linewidth=1)
        side.scatter(probabilities, [row.target for row in rows], s=areas, color=COLOURS[when], zorder=3)
        side.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=f"{when} calibration", xlabel="mean probability")
        side.set_ylabel("relevant, by the labels" if target == "labels" else "mean probability of the teacher")
    said = []
    for when, rows in bins.items():
        figures = (f"{row.probability:.2f} is {row.target:.2f}" for row in rows)
        said.append(f"{when}: {', '.join(figures)}")
    return Picture("Are the probabilities right?", svg(figure, f"Held-out pairs. {'; '.join(said)}"), wide=True)
