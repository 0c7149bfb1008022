"""A running system's cut-off, carried over from one model to the next: at equal pass rate, and at equal precision.

A pair passes where its score is not below the cut-off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_core.base.tables import format_rows

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

PASS_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class MappedCutOff:
    """A cut-off of the old model, and the new model's that takes its place.

    Attributes:
        old: cut-off of the old model.
        pass_rate: the new cut-off that the same share of the pairs passes.
        pass_rate_old, pass_rate_new: shares that pass each, on the held-out pairs.
        precision: the lowest new cut-off at which the precision is not below the old one; `None` without labels, or
            where the new model reaches it nowhere.
        precision_old, precision_new: of each, on the held-out pairs; `None` without labels, or where nothing passes.
    """

    old: float
    pass_rate: float
    pass_rate_old: float
    pass_rate_new: float
    precision: float | None
    precision_old: float | None
    precision_new: float | None


@dataclasses.dataclass(frozen=True)
class Threshold(MappedCutOff):
    """A mapped cut-off whose new ones are also given as probabilities.

    Attributes:
        probability: that of `pass_rate`.
        precision_probability: that of `precision`.
    """

    probability: float
    precision_probability: float | None


def default_cut_offs(old: Values) -> list[float]:
    """Return the old cut-offs that `PASS_RATES` of the pairs pass, the highest first."""
    return list(dict.fromkeys(float(cut_off) for cut_off in np.quantile(old, [1 - rate for rate in PASS_RATES])))


def map_cut_offs(
    cut_offs: Sequence[float], old: Values, new: Values, held_out: Flags, labels: Values | None
) -> list[MappedCutOff]:
    """Find the new cut-offs on the pairs that are not held out, and measure both on those that are.

    Args:
        old, new: the models' scores of the same pairs; shape (pairs,).
        labels: 1 or 0 of each pair, NaN where it is not known; `None` where none is.
    """
    fitted = ~held_out
    mapped = []
    for cut_off in cut_offs:
        by_rate = _at_rank(new[fitted], int((old[fitted] >= cut_off).sum()))
        precisions: dict[str, float | None] = dict.fromkeys(("precision", "precision_old", "precision_new"))
        if labels is not None:
            known, measured = fitted & np.isfinite(labels), held_out & np.isfinite(labels)
            aimed = _precision(old[known], labels[known], cut_off)
            found = _at_precision(new[known], labels[known], aimed) if aimed is not None else None
            precisions = {
                "precision": found,
                "precision_old": _precision(old[measured], labels[measured], cut_off),
                "precision_new": None if found is None else _precision(new[measured], labels[measured], found),
            }
        mapped.append(
            MappedCutOff(
                old=cut_off,
                pass_rate=by_rate,
                pass_rate_old=float((old[held_out] >= cut_off).mean()),
                pass_rate_new=float((new[held_out] >= by_rate).mean()),
                **precisions,
            )
        )
    return mapped


def _at_rank(scores: Values, count: int) -> float:
    """Return a cut-off that `count` of the scores pass: half-way between the last of them and the next."""
    descending = np.sort(scores)[::-1]
    if count == 0:
        return float(np.nextafter(descending[0], np.inf))
    return float(descending[count - 1 : count + 1].mean())


def _at_precision(scores: Values, labels: Values, aimed: float) -> float | None:
    """Return the lowest cut-off with a precision of at least `aimed`; `None` where there is none."""
    order = np.argsort(-scores, kind="stable")
    precision = np.cumsum(labels[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    reached = np.flatnonzero((precision >= aimed) & last_of_ties)
    return _at_rank(scores, int(reached[-1]) + 1) if len(reached) else None


def _precision(scores: Values, labels: Values, cut_off: float) -> float | None:
    passing = scores >= cut_off
    return float(labels[passing].mean()) if passing.any() else None


def largest_difference(mapped: Sequence[MappedCutOff]) -> float:
    """Return by how much the pass rates of old and new differ at most, on the held-out pairs."""
    return max(abs(row.pass_rate_new - row.pass_rate_old) for row in mapped)


def format_thresholds(rows: Sequence[Threshold]) -> str:
    """Return a Markdown table of mapped cut-offs, raw and as probabilities; shares are of the held-out pairs."""
    labelled = any(row.precision_old is not None for row in rows)
    head = ["old cut-off", "new at equal pass rate: raw", "probability", "passes, old", "passes, new"]
    by_precision = ["new at equal precision: raw", "probability", "precision, old", "precision, new"]
    table = [head + (by_precision if labelled else [])]
    for row in rows:
        cells = [f"{row.old:.4g}", f"{row.pass_rate:.4g}", f"{row.probability:.4g}"]
        cells += [f"{row.pass_rate_old:.1%}", f"{row.pass_rate_new:.1%}"]
        if labelled:
            found = (row.precision, row.precision_probability)
            cells += ["none" if value is None else f"{value:.4g}" for value in found]
            shares = (row.precision_old, row.precision_new)
            cells += ["" if share is None else f"{share:.1%}" for share in shares]
        table.append(cells)
    return format_rows(table)
