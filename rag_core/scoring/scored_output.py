"""Outputs of a scoring run: the `ScoredPair` rows of a file with its manifest, and how well they rank."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.protocols import ScoreUnit
from rag_core.files.atomic import atomic_write
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import UNKNOWN, Recipe, read_manifest, write_manifest
from rag_core.metrics.ranking import METRICS, PerQuery, means, measure, measured
from rag_core.scoring.prescreen import LeftOut, Prescreen
from rag_core.scoring.samples import SampleFile
from rag_core.scoring.scores import Scores, scored_samples

_MEASURED_AT_ONCE = 1000  # queries

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class UnfinishedFile:
    """A file that is to be scored.

    Attributes:
        recipe: of the output.
    """

    source: SampleFile
    output: Path
    recipe: Recipe


def write_scores(
    file: UnfinishedFile, scores: Scores, score_unit: ScoreUnit, batch_size: int, prescreen: Prescreen | None
) -> None:
    """Write an output and its manifest, and log how well the scores rank.

    Args:
        prescreen: that left candidates of the file out, if one did.

    Raises:
        StaleError: the file has changed.
    """
    rankings: list[PerQuery] = []
    left_out = LeftOut()
    scored = scored_samples(file.source, scores)
    try:
        if prescreen:
            scored = left_out.told(file.source.whole(), scored)
        rows = write_records(file.output, _measuring(scored, rankings))
    except (KeyError, ValueError):
        file.source.check_unchanged()  # or else there could be no text that was not there before
        raise
    write_manifest(
        file.output,
        file.recipe,
        rows=rows,
        score_unit=score_unit,
        skipped={"bad_rows": len(file.source.bad_rows)},
        batch_size=batch_size,
        **(prescreen.fact(left_out) if prescreen else {}),
    )
    logger.info("%s: %d queries, %d pairs", file.output, file.source.queries, rows)
    if prescreen:
        left_out.log()
    ranking = {metric: np.concatenate([block[metric] for block in rankings]) for metric in METRICS}
    if measured(ranking):
        figures = ", ".join(f"{name} {value:.4f}" for name, value in means(ranking).items())
        what = "the scored candidates of" if prescreen else "the"
        logger.info("its ranking of %s %d labelled queries: %s", what, measured(ranking), figures)


def copy_scores(finished: Path, file: UnfinishedFile) -> None:
    """Write an output and its manifest from one that has the same scores."""
    facts = (read_manifest(finished) or UNKNOWN).facts
    with atomic_write(file.output) as output:
        output.write(finished.read_bytes())
    kept = ("rows", "score_unit", "skipped", "batch_size")
    write_manifest(file.output, file.recipe, **{name: facts[name] for name in kept if name in facts})


def _measuring(
    scored: Iterator[tuple[RankingSample, list[ScoredPair]]], rankings: list[PerQuery]
) -> Iterator[ScoredPair]:
    """Yield the pairs as they come, and measure their ranking on the way."""
    while block := list(islice(scored, _MEASURED_AT_ONCE)):
        for _, pairs in block:
            yield from pairs
        scores = [[pair.score for pair in pairs] for _, pairs in block]
        rankings.append(measure([sample for sample, _ in block], scores))
