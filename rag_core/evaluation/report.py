"""The content of a report as types: the models, how "after" was trained, and what each ranker does on each file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_core.evaluation.depth import DepthResult, depth_warnings
from rag_core.evaluation.latency import LatencyReport
from rag_core.evaluation.mixing import Mixing
from rag_core.evaluation.rankers import Domain, Example, FileEvaluation, Ranker, examples
from rag_core.evaluation.retrieval import SearchReport, search_means
from rag_core.evaluation.training_record import TrainingRecord
from rag_core.metrics.ranking import METRICS, MetricName
from rag_core.metrics.significance import Change, GapClosed, Wins, count_wins, gap_closed, mean_interval, paired_change

_EXAMPLES = 10


@dataclasses.dataclass(frozen=True)
class Examples:
    """The queries with the largest gains and with the largest losses, the largest first."""

    gains: list[Example]
    losses: list[Example]


@dataclasses.dataclass(frozen=True)
class FileReport:
    """What each ranker does on a file.

    Attributes:
        measured: how many of the `queries` have both a positive and a negative.
        intervals: 95 %, of the means.
        change_to_after: "after" against every other ranker.
        wins: of "after" against "before".
        gap_closed: `None` without a teacher; of a metric, `None` where the teacher has no lead.
        depth: MAP by the number of candidates that are reranked; `None` where that was not measured.
        change_from_first_stage: the mix and "after" against the first stage; `None` without one.
    """

    path: str
    domain: Domain
    queries: int
    measured: int
    means: dict[Ranker, dict[MetricName, float]]
    intervals: dict[Ranker, dict[MetricName, tuple[float, float]]]
    change_to_after: dict[Ranker, dict[MetricName, Change]]
    wins: dict[MetricName, Wins]
    gap_closed: dict[MetricName, GapClosed | None] | None
    examples: Examples
    depth: dict[Ranker, list[DepthResult]] | None = None
    change_from_first_stage: dict[Ranker, dict[MetricName, Change]] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What is written, printed and drawn.

    Attributes:
        models: their names, by role.
        latency: `None` where it was not measured.
        mixing: of "after" and its first stage; `None` without one.
        retrieval: what they find in whole corpora; empty where that was not measured.
    """

    models: dict[Ranker, str]
    training: TrainingRecord
    files: list[FileReport]
    latency: LatencyReport | None = None
    mixing: Mixing | None = None
    retrieval: Sequence[SearchReport] = ()

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the figures that --expect can name: name of a file, ranker, metric."""
        return {
            Path(file.path).name: {
                str(ranker): {str(metric): value for metric, value in by_metric.items()}
                for ranker, by_metric in file.means.items()
            }
            for file in self.files
        } | search_means(self.retrieval)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `report.json`; what was not measured has no key."""
        files = [dataclasses.asdict(file) for file in self.files]
        for file in files:
            for name in ("depth", "change_from_first_stage"):
                if file[name] is None:
                    del file[name]
        content = {"models": self.models, **self.training.as_json(), "files": files}
        further = {"latency": self.latency, "mixing": self.mixing}
        content |= {name: part.as_json() for name, part in further.items() if part is not None}
        return content | ({"retrieval": [one.as_json() for one in self.retrieval]} if self.retrieval else {})


def make_report(
    evaluations: Sequence[FileEvaluation],
    models: Mapping[Ranker, str],
    training: TrainingRecord,
    seed: int,
    mixing: Mixing | None = None,
) -> Report:
    """Compute intervals and tests on each file; latency and depth are not measured here."""
    from tqdm import tqdm

    progress = tqdm(evaluations, desc="intervals and tests", disable=None)
    files = [_file_report(evaluation, seed) for evaluation in progress]
    return Report(dict(models), training, files, mixing=mixing)


def _file_report(evaluation: FileEvaluation, seed: int) -> FileReport:
    values = evaluation.values
    return FileReport(
        path=str(evaluation.path),
        domain=evaluation.domain,
        queries=len(evaluation.samples),
        measured=evaluation.measured,
        means=evaluation.means(),
        intervals={
            ranker: {metric: mean_interval(by_metric[metric], seed) for metric in METRICS}
            for ranker, by_metric in values.items()
        },
        change_to_after=evaluation.changes(seed),
        wins={metric: count_wins(values["before"][metric], values["after"][metric]) for metric in METRICS},
        gap_closed=_gaps(evaluation, seed) if "teacher" in values else None,
        examples=Examples(*examples(evaluation, _EXAMPLES)),
        change_from_first_stage=_changes_from_first_stage(evaluation, seed) if "first stage" in values else None,
    )


def _changes_from_first_stage(evaluation: FileEvaluation, seed: int) -> dict[Ranker, dict[MetricName, Change]]:
    values = evaluation.values
    first, compared = values["first stage"], [ranker for ranker in ("mixed", "after") if ranker in values]
    return {
        ranker: {metric: paired_change(first[metric], values[ranker][metric], seed) for metric in METRICS}
        for ranker in compared
    }


def _gaps(evaluation: FileEvaluation, seed: int) -> dict[MetricName, GapClosed | None]:
    before, after, teacher = (evaluation.values[ranker] for ranker in ("before", "after", "teacher"))
    return {metric: gap_closed(before[metric], after[metric], teacher[metric], seed) for metric in METRICS}


def warnings(report: Report) -> list[str]:
    """Say what the reader must not overlook."""
    found = []
    for file in report.files:
        means = file.means
        if "teacher" in means and means["teacher"]["MAP"] < means["before"]["MAP"]:
            found.append(
                f"WARNING: on {file.path} the teacher ranks worse than the student did before (MAP "
                f"{means['teacher']['MAP']:.4f} < {means['before']['MAP']:.4f}): there is nothing to learn from it."
            )
        found += depth_warnings(file.path, file.depth or {})
    return found + [note for search in report.retrieval for note in search.warnings()]
