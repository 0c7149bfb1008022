"""The pairs that a student is calibrated on: what their probabilities should be, and which of them measure it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from rag_core.base.errors import DataError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.records import ScoredPair
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.release.calibration import (
    SPLIT,
    Calibration,
    Half,
    Method,
    Scaling,
    Target,
    Unit,
    When,
    expected_calibration_error,
    fit,
    is_held_out,
    reliability,
    sigmoid,
    uncalibrated,
)
from rag_core.release.cut_offs import Flags, Threshold, Values, default_cut_offs, largest_difference, map_cut_offs

_MOST_DIFFERENCE = 0.02  # of pass rates that a carried-over cut-off is warned about

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CalibrationData:
    """Pairs with what is known of them.

    Attributes:
        pairs: (query, passage) texts.
        held_out: of each pair, whether it measures; the others are fitted on.
        targets: what its probability should be, NaN where that is not known; by where it comes from.
        target: the one that is fitted to.
        old: of each pair, the score of the old model.
    """

    pairs: list[tuple[str, str]]
    held_out: Flags
    targets: dict[Target, Values]
    target: Target
    old: Values | None

    def calibrate(
        self, scores: Sequence[float], method: Method, cut_offs: Sequence[float], *, unit: Unit
    ) -> Calibration:
        """Fit on one half of the queries, and measure on the other.

        Args:
            scores: the student's, of each pair.
            cut_offs: of the old model; where there are none, those that `cut_offs.PASS_RATES` of the pairs pass.

        Raises:
            DataError: as `calibration.fit`.
        """
        student = np.asarray(scores, dtype=np.float64)
        known = np.isfinite(self.targets[self.target])
        fitted = known & ~self.held_out
        scaling = fit(student[fitted], self.targets[self.target][fitted], method)
        before, after = uncalibrated(student, unit), scaling(student)
        measured = known & self.held_out
        probabilities: dict[When, Values] = {"before": before, "after": after}
        errors = {of: self._errors(targets, probabilities) for of, targets in self.targets.items()}
        if errors[self.target]["after"] >= errors[self.target]["before"]:
            logger.warning(
                "WARNING: on the held-out pairs the calibration error rises from %.4f to %.4f; pass --input_files with "
                "more pairs than the %d that were fitted on",
                *(errors[self.target]["before"], errors[self.target]["after"], int(fitted.sum())),
            )
        folded = unit == "logit"
        return Calibration(
            method=method,
            slope=scaling.slope,
            intercept=scaling.intercept,
            score_unit=unit,
            folded=folded,
            target=self.target,
            split=SPLIT,
            fitted_on=self._half(fitted),
            held_out=self._half(measured),
            errors=errors,
            reliability={
                when: reliability(values[measured], self.targets[self.target][measured])
                for when, values in probabilities.items()
            },
            thresholds=self._thresholds(student, scaling, cut_offs, folded=folded),
        )

    def _half(self, chosen: Flags) -> Half:
        queries = {query for (query, _), is_chosen in zip(self.pairs, chosen, strict=True) if is_chosen}
        mean = float(self.targets[self.target][chosen].mean())
        return Half(len(queries), int(chosen.sum()), mean)

    def _errors(self, targets: Values, probabilities: dict[When, Values]) -> dict[When, float]:
        chosen = self.held_out & np.isfinite(targets)
        return {
            when: expected_calibration_error(values[chosen], targets[chosen]) for when, values in probabilities.items()
        }

    def _thresholds(
        self, student: Values, scaling: Scaling, cut_offs: Sequence[float], *, folded: bool
    ) -> list[Threshold]:
        """Carry cut-offs over to the scores that the calibrated model gives."""
        if self.old is None:
            return []
        new = scaling.slope * student + scaling.intercept if folded else student
        asked = cut_offs or default_cut_offs(self.old[~self.held_out])
        mapped = map_cut_offs(asked, self.old, new, self.held_out, self.targets.get("labels"))
        difference = largest_difference(mapped)
        said = "on the held-out pairs, the pass rates of old and new cut-offs differ by at most %.1f points"
        logger.info(said, 100 * difference)
        if difference > _MOST_DIFFERENCE:
            logger.warning("WARNING: that is more than 2 points; pass --input_files with more pairs")

        def probability(cut_off: float) -> float:
            return float(sigmoid(cut_off) if folded else scaling(cut_off))

        return [
            Threshold(
                **dataclasses.asdict(row),
                probability=probability(row.pass_rate),
                precision_probability=None if row.precision is None else probability(row.precision),
            )
            for row in mapped
        ]


def read_calibration_data(
    groups: Sequence[Sequence[ScoredPair]],
    units: Collection[str | None],
    target: Literal["auto", "teacher", "labels"],
    old_scores: Sequence[Path],
    bad_rows: BadRows | None = None,
) -> CalibrationData:
    """Collect targets and old scores of the pairs, and divide the queries into halves.

    Args:
        groups: the teacher's scores, query by query.
        units: of its scores, from the manifests; `None` where there is none.
        bad_rows: where given, it decides what becomes of a bad row of the old scores.

    Raises:
        PipelineError: there is nothing to fit to, or the old scores lack a pair.
    """
    rows = list(chain.from_iterable(groups))
    labels = np.array([np.nan if row.label is None else row.label for row in rows], dtype=np.float64)
    labelled = bool({0, 1} <= set(labels[np.isfinite(labels)]))
    chosen = _choose_target(target, units, labelled)
    targets: dict[Target, Values] = {}
    if chosen == "teacher" or set(units) == {"log-odds"}:
        targets["teacher"] = sigmoid([row.score for row in rows])
    if labelled:
        targets["labels"] = labels
    logger.info("fitted to %s", "the teacher's probabilities" if chosen == "teacher" else "the labels")
    held_out = np.array([is_held_out(row.query) for row in rows])
    for half in (held_out, ~held_out):
        values = targets[chosen][half]
        if len(set(values[np.isfinite(values)])) < 2:
            raise DataError(
                f"of {len(groups)} queries, the half that {'measures' if half is held_out else 'is fitted on'} has "
                "pairs with one target only",
                "Pass --input_files with more queries",
            )
    old = _read_old_scores(old_scores, rows, bad_rows) if old_scores else None
    return CalibrationData([(row.query, row.passage) for row in rows], held_out, targets, chosen, old)


def _choose_target(
    asked: Literal["auto", "teacher", "labels"], units: Collection[str | None], labelled: bool
) -> Target:
    if asked == "teacher" and "cosine" in units:
        raise UsageError("the teacher's scores are cosines, not probabilities", "Pass --target labels")
    if asked == "teacher" or (asked == "auto" and set(units) == {"log-odds"}):
        return "teacher"
    if labelled:
        return "labels"
    said = ", ".join(sorted(unit or "of an unknown unit" for unit in units))
    remedy = "Pass --input_files with labels of 0 and of 1"
    if asked == "auto" and "cosine" not in units:
        remedy += ", or --target teacher if the scores are the log-odds of relevance"
    raise DataError(f"there are no labels to fit to (the teacher's scores are {said}, not probabilities)", remedy)


def _read_old_scores(paths: Sequence[Path], rows: Sequence[ScoredPair], bad_rows: BadRows | None) -> Values:
    read = (pair for path in paths for pair in read_records(path, ScoredPair, bad_rows=bad_rows))
    score_of = {(pair.query, pair.passage): pair.score for pair in read}
    try:
        return np.array([score_of[row.query, row.passage] for row in rows], dtype=np.float64)
    except KeyError as error:
        raise DataError(
            f"has no score for query {quoted(repr(error.args[0][0]), 40)} "
            f"and passage {quoted(repr(error.args[0][1]), 60)}",
            "Score the same samples with the old model (generate_logits)",
            path=paths[0],
        ) from error
