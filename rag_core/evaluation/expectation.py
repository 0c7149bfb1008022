"""Expected figures as a file: a two-sided check, so that a better score is a surprise, too."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rag_core.base.errors import DataError, PipelineError
from rag_core.base.outside_text import quoted
from rag_core.files.inputs import read_whole
from rag_core.metrics.ranking import RunMetricName

Means = Mapping[str, Mapping[str, Mapping[str, float]]]
"""File -> ranker -> metric -> mean: the figures of a report."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Expectation:
    """A ranker's mean on a file (by its name, without folder), and how far off it may be, in either direction."""

    file: str
    ranker: str
    metric: RunMetricName
    expected: float
    tolerance: float


def read_expectations(path: Path) -> list[Expectation]:
    """Read a JSON list of expectations.

    Raises:
        DataError: as `read_whole`, or the file holds no such list.
    """
    try:
        return TypeAdapter(list[Expectation]).validate_json(read_whole(path, "Check --expect"))
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"]))
        raise DataError(
            f"is not a list of expectations ({quoted(place + ': ' + what['msg'])})",
            "Each needs file, ranker, metric, expected and tolerance",
            path=path,
        ) from error


def check(expectations: Sequence[Expectation], means: Means) -> None:
    """Log one line per expectation: verdict, expected, actual, delta.

    Raises:
        PipelineError: one is missed or cannot be found in the report.
    """
    failed = 0
    for item in expectations:
        actual = means.get(item.file, {}).get(item.ranker, {}).get(item.metric)
        name = quoted(f"{item.file} {item.ranker} {item.metric}", 300)
        if actual is None:
            failed += 1
            logger.warning("FAIL %s: expected %.4f, not in this report", name, item.expected)
            continue
        delta = actual - item.expected
        is_met = abs(delta) <= item.tolerance
        failed += not is_met
        logger.log(
            logging.INFO if is_met else logging.WARNING,
            "%s %s: expected %.4f +- %.4f, actual %.4f, delta %+.4f",
            "PASS" if is_met else "FAIL",
            name,
            item.expected,
            item.tolerance,
            actual,
            delta,
        )
    if failed:
        raise PipelineError(
            f"{failed} of {len(expectations)} figures are not as expected",
            "Find out what changed; a figure that moved for a good reason gets a new expectation and a changelog line",
        )
