"""Models and BM25 over labelled files: per-query values, means, and what changed. Both evaluate stages share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, read_samples
from rag_core.metrics.ranking import METRICS, MetricName, PerQuery, means, measure, measured, rank
from rag_core.metrics.significance import Change, paired_change
from rag_core.retrieval.analyser import PLAIN, Analyser
from rag_core.retrieval.bm25 import bm25_scores
from rag_core.scoring.prescreen import check_all_scored
from rag_core.scoring.scored_files import scores_by_sample

Domain = Literal["in-domain", "out-of-domain"]
Ranker = Literal["BM25", "first stage", "before", "after", "mixed", "teacher"]
RANKERS: tuple[Ranker, ...] = ("BM25", "first stage", "before", "after", "mixed", "teacher")


@dataclasses.dataclass(frozen=True)
class FileEvaluation:
    """What the rankers did on one file.

    Attributes:
        values: per ranker and metric, one value a sample, NaN where it cannot be measured.
        scores: per ranker, for each sample the scores of its `passages()`.
    """

    path: Path
    domain: Domain
    samples: list[RankingSample]
    values: dict[Ranker, PerQuery]
    scores: dict[Ranker, list[list[float]]]

    @property
    def measured(self) -> int:
        """Count the queries that have both a positive and a negative."""
        return measured(self.values["BM25"])

    @property
    def unmatched(self) -> int:
        """Count the queries that share no word with any of their candidates."""
        return sum(not any(scores) for scores in self.scores["BM25"])

    def means(self) -> dict[Ranker, dict[MetricName, float]]:
        """Return each ranker's mean of each metric."""
        return {ranker: means(values) for ranker, values in self.values.items()}

    def changes(self, seed: int) -> dict[Ranker, dict[MetricName, Change]]:
        """Compare "after" with every other ranker."""
        after = self.values["after"]
        return {
            ranker: {metric: paired_change(values[metric], after[metric], seed) for metric in METRICS}
            for ranker, values in self.values.items()
            if ranker != "after"
        }


@dataclasses.dataclass(frozen=True)
class Example:
    """A query whose average precision changed much, in words.

    Attributes:
        rank_before, rank_after: of the best positive, from 1.
        first_before, first_after: the passage that stands first.
        was_relevant, is_relevant: whether those are positives.
    """

    query: str
    change: float
    rank_before: int
    rank_after: int
    first_before: str
    was_relevant: bool
    first_after: str
    is_relevant: bool


def examples(evaluation: FileEvaluation, count: int) -> tuple[list[Example], list[Example]]:
    """Return the queries with the largest gains and with the largest losses after training, up to `count` each."""
    change = evaluation.values["after"]["MAP"] - evaluation.values["before"]["MAP"]
    falling, rising = (np.argsort(sign * np.nan_to_num(change), kind="stable")[:count] for sign in (-1, 1))
    gains = [_example(evaluation, int(i), float(change[i])) for i in falling if change[i] > 0]
    losses = [_example(evaluation, int(i), float(change[i])) for i in rising if change[i] < 0]
    return gains, losses


def _example(evaluation: FileEvaluation, i: int, change: float) -> Example:
    passages, labels = zip(*evaluation.samples[i].passages(), strict=True)
    before = rank(passages, evaluation.scores["before"][i])
    after = rank(passages, evaluation.scores["after"][i])
    positives = np.flatnonzero(labels)
    first_before, first_after = int(before.argmin()), int(after.argmin())
    return Example(
        query=evaluation.samples[i].query,
        change=change,
        rank_before=int(before[positives].min()) + 1,
        rank_after=int(after[positives].min()) + 1,
        first_before=passages[first_before],
        was_relevant=bool(labels[first_before]),
        first_after=passages[first_after],
        is_relevant=bool(labels[first_after]),
    )


def read_labelled(paths: Sequence[Path], bad_rows: BadRows) -> dict[Path, list[RankingSample]]:
    """Read files to be measured on.

    Raises:
        DataError: as `read_samples`, and where fewer than 2 queries have a positive and a negative.
    """
    files = {path: read_samples(path, bad_rows=bad_rows) for path in paths}
    for path, samples in files.items():
        check_labelled(path, samples)
    return files


def check_labelled(path: Path, samples: Sequence[RankingSample]) -> None:
    """Check that a file can be measured on.

    Raises:
        DataError: fewer than 2 queries have a positive and a negative.
    """
    usable = sum(bool(sample.positive and sample.negative) for sample in samples)
    if usable < 2:
        raise DataError(
            f"has {usable} queries with a positive and a negative, a comparison needs 2",
            "Pass labelled samples",
            path=path,
        )


def check_scores(path: Path) -> None:
    """Check the rows of a ScoredPair file, before hours go into what they are compared with.

    Raises:
        DataError: as `read_records` and `check_all_scored`. No row is left out: its pair would have no score.
    """
    check_all_scored(path, read_records(path, ScoredPair))


def evaluate_file(
    path: Path,
    domain: Domain,
    samples: list[RankingSample],
    scores: Mapping[Ranker, Path],
    analyser: Analyser = PLAIN,
) -> FileEvaluation:
    """Measure BM25 and each ranker, from its ScoredPair file, on one file."""
    found: dict[Ranker, list[list[float]]] = {"BM25": bm25_scores(samples, analyser)}
    found |= {ranker: scores_by_sample(scores[ranker], samples) for ranker in RANKERS if ranker in scores}
    return FileEvaluation(path, domain, samples, {ranker: measure(samples, by) for ranker, by in found.items()}, found)
