"""Soft labels from a teacher's scores: which candidates of a query are kept, and how soft their distribution is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.base.records import ScoredPair, SoftLabels
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups

# The teacher's default temperature, as a share of the spread of its scores within a query. Teachers differ in that
# spread: some 0.15 for cosines, 5 and more for log-odds. On WikiQA (0.155), temperatures of 1, 0.1, 0.05
# and 0.03 gave a dev MAP of 0.717, 0.729, 0.743 and 0.741, from 0.675 before (2 epochs, rate 1.5e-4, one seed).
AUTO_SHARE = 1 / 3

# Mean of entropy / log(candidates), above and below which a distribution says next to nothing.
_NEARLY_UNIFORM, _NEARLY_ONE_HOT = 0.98, 0.05

logger = logging.getLogger(__name__)


def make_soft_labels(pairs: Sequence[ScoredPair], max_passages: int | None) -> SoftLabels:
    """Return the candidates of one query, best first, with the teacher's scores. Labels are not read.

    Candidates that a prescreening left unscored stay named as such.

    Ties keep the order of the file. Of more than `max_passages` candidates, half of those kept are the teacher's best,
    where the order matters most. The others are spread evenly over the rest of its ranking, down to the worst: the
    student goes on seeing what is irrelevant.
    """
    ranking = sorted(pairs, key=lambda pair: -pair.score)
    if max_passages is not None and len(ranking) > max_passages:
        best = (max_passages + 1) // 2
        rest = np.linspace(len(ranking) - 1, best, num=max_passages - best).round().astype(int)
        ranking = ranking[:best] + [ranking[rank] for rank in reversed(rest)]
    return SoftLabels(
        query_id=pairs[0].query_id,
        query=pairs[0].query,
        passages=[pair.passage for pair in ranking],
        scores=[pair.score for pair in ranking],
        unscored=[text for pair in pairs for text in pair.unscored or ()] or None,
    )


def read_soft_labels(path: Path, bad_rows: BadRows | None = None) -> list[SoftLabels]:
    """Read soft labels, one row per query.

    Raises:
        DataError: as `read_groups`, or a query has one candidate, or two rows.
    """
    groups = []
    for rows in read_groups(path, SoftLabels, bad_rows=bad_rows):
        if len(rows) > 1 or len(rows[0].passages) < 2:
            what = "two rows" if len(rows) > 1 else "one candidate, which has nothing to be compared with"
            raise DataError(
                f"query_id {quoted(repr(rows[0].query_id))} has {what}",
                "Make the file again with generate_scores",
                path=path,
            )
        groups.append(rows[0])
    return groups


def choose_temperature(
    groups: Sequence[SoftLabels], asked: float | None, unit: str, path: Path, *, as_distribution: bool
) -> float:
    """Return what the teacher's scores are divided by, and log how soft that makes the targets.

    Args:
        as_distribution: whether they are learned as a distribution; nearly uniform or one-hot ones get a warning.

    Raises:
        DataError: the scores of `path` do not spread.
    """
    spread = score_spread(groups)
    temperature = asked or AUTO_SHARE * spread
    largest, limits = max(max(map(abs, group.scores)) for group in groups), np.finfo(np.float32)
    if temperature < limits.tiny or largest > temperature * float(limits.max):
        raise DataError("the teacher scores all candidates of most queries alike", "Check its scores", path=path)
    softness = relative_entropy(groups, temperature)
    logger.info(
        "teacher's scores (%s) spread by %.3g within a query; temperature %.3g (%s) makes targets of relative entropy "
        "%.2f (0 one-hot, 1 uniform)",
        unit,
        spread,
        temperature,
        "as asked" if asked else "auto",
        softness,
    )
    if as_distribution and not _NEARLY_ONE_HOT < softness < _NEARLY_UNIFORM:
        logger.warning(
            "WARNING: the targets are nearly %s: the student learns little of the teacher's order. "
            "Pass a %s --teacher_temperature.",
            "uniform" if softness >= _NEARLY_UNIFORM else "one-hot",
            "lower" if softness >= _NEARLY_UNIFORM else "higher",
        )
    return temperature


def score_spread(groups: Sequence[SoftLabels]) -> float:
    """Return the median, over queries, of the standard deviation of the teacher's scores of one query."""
    return float(np.median([np.std(group.scores) for group in groups]))


def relative_entropy(groups: Sequence[SoftLabels], temperature: float) -> float:
    """Return how soft the targets are: the mean over queries of H(softmax(scores / temperature)) / log(candidates).

    0 is one-hot, 1 is uniform.
    """
    return float(np.mean([_entropy(np.asarray(group.scores) / temperature) for group in groups]))


def _entropy(logits: npt.NDArray[np.float64]) -> float:
    from scipy.special import softmax
    from scipy.stats import entropy

    return float(entropy(softmax(logits)) / np.log(len(logits)))
