"""Before, after, teacher: the table on the screen, `report.json`, `report.md`, `report.html` and `per_query.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.base.tables import format_rows
from rag_core.evaluation.depth import depth_warnings
from rag_core.evaluation.latency_table import depth_rows, latency_note, latency_rows
from rag_core.evaluation.rankers import FileEvaluation, Ranker, examples
from rag_core.files.atomic import atomic_write
from rag_core.metrics.ranking import METRICS
from rag_core.metrics.significance import count_wins, gap_closed, mean_interval

Report = dict[str, Any]

_EXAMPLES = 10


def make_report(
    evaluations: Sequence[FileEvaluation], models: Mapping[Ranker, str], training: Mapping[str, Any], seed: int
) -> Report:
    """Return the content of `report.json`: the models, how "after" was trained, and what each ranker does on each file.

    Args:
        training: of `report_training.read_training`.
    """
    from tqdm import tqdm

    progress = tqdm(evaluations, desc="intervals and tests", disable=None)
    return {"models": dict(models), **training, "files": [_file_report(evaluation, seed) for evaluation in progress]}


def _file_report(evaluation: FileEvaluation, seed: int) -> Report:
    values = evaluation.values
    gains, losses = examples(evaluation, _EXAMPLES)
    return {
        "path": str(evaluation.path),
        "domain": evaluation.domain,
        "queries": len(evaluation.samples),
        "measured": evaluation.measured,
        "means": evaluation.means(),
        "intervals": {
            ranker: {metric: mean_interval(by_metric[metric], seed) for metric in METRICS}
            for ranker, by_metric in values.items()
        },
        "change_to_after": {
            ranker: {metric: dataclasses.asdict(change) for metric, change in changes.items()}
            for ranker, changes in evaluation.changes(seed).items()
        },
        "wins": {m: dataclasses.asdict(count_wins(values["before"][m], values["after"][m])) for m in METRICS},
        "gap_closed": _gaps(evaluation, seed) if "teacher" in values else None,
        "examples": {
            "gains": [dataclasses.asdict(example) for example in gains],
            "losses": [dataclasses.asdict(example) for example in losses],
        },
    }


def _gaps(evaluation: FileEvaluation, seed: int) -> dict[str, Any]:
    before, after, teacher = (evaluation.values[ranker] for ranker in ("before", "after", "teacher"))
    found = {metric: gap_closed(before[metric], after[metric], teacher[metric], seed) for metric in METRICS}
    return {metric: dataclasses.asdict(gap) if gap else None for metric, gap in found.items()}


def format_table(report: Report) -> str:
    """Return the report as a Markdown table for each file: means, "after" against each ranker, wins, the gap closed."""
    blocks = []
    for file in report["files"]:
        rows = [["", "model", *METRICS, "MAP, after minus this [95 % interval]", "relative", "p"]]
        for ranker, means in file["means"].items():
            change = file["change_to_after"].get(ranker, {}).get("MAP")
            rows.append(
                [
                    ranker,
                    Path(report["models"].get(ranker, "")).name,
                    *(f"{means[metric]:.4f}" for metric in METRICS),
                    f"{change['difference']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]" if change else "",
                    f"{change['relative']:+.1%}" if change and change["relative"] is not None else "",
                    f"{change['p_value']:.4f}" if change else "",
                ]
            )
        title = f"{file['path']} ({file['domain']}, {file['measured']} queries)"
        blocks.append(f"{title}\n\n{format_rows(rows)}\n\n{summary(file)}")
        if "depth" in file:
            blocks.append(format_rows(depth_rows(file["depth"])))
    if "latency" in report:
        blocks.append(f"{format_rows(latency_rows(report['latency']))}\n\n{latency_note(report['latency'])}")
    return "\n\n".join(blocks)


def summary(file: Mapping[str, Any]) -> str:
    """Return wins and losses, and the share of the gap closed, in a line."""
    wins = file["wins"]["MAP"]
    line = f"{wins['better']} queries better than before, {wins['worse']} worse, {wins['same']} the same"
    if file["gap_closed"] is None:
        return line
    shares = [f"{metric} {_share(gap)}" for metric, gap in file["gap_closed"].items()]
    return f"{line}\nshare of the teacher's lead closed: {', '.join(shares)}"


def _share(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return "- (the teacher has no lead)"
    if gap["low"] is None:
        return "- (the teacher's lead may be chance)"
    return f"{gap['share']:.0%} [{gap['low']:.0%}, {gap['high']:.0%}]"


def format_changes(file: Mapping[str, Any]) -> str:
    """Return as a Markdown table what became of each metric from before to after."""
    rows = [["", "after - before [95 % interval]", "p", "better", "worse", "same", "teacher's lead closed"]]
    for metric in METRICS:
        change, wins = file["change_to_after"]["before"][metric], file["wins"][metric]
        rows.append(
            [
                metric,
                f"{change['difference']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]",
                f"{change['p_value']:.4f}",
                *(str(wins[outcome]) for outcome in ("better", "worse", "same")),
                _share(file["gap_closed"][metric]) if file["gap_closed"] else "",
            ]
        )
    return format_rows(rows)


def warnings(report: Report) -> list[str]:
    """Say what the reader must not overlook."""
    found = []
    for file in report["files"]:
        means = file["means"]
        if "teacher" in means and means["teacher"]["MAP"] < means["before"]["MAP"]:
            found.append(
                f"WARNING: on {file['path']} the teacher ranks worse than the student did before (MAP "
                f"{means['teacher']['MAP']:.4f} < {means['before']['MAP']:.4f}): there is nothing to learn from it."
            )
        found += depth_warnings(file["path"], file.get("depth", {}))
    return found


def write_report(directory: Path, report: Report, evaluations: Sequence[FileEvaluation], seed: int) -> None:
    """Write `report.json`, `report.md`, the self-contained `report.html`, and `per_query.jsonl`."""
    with atomic_write(directory / "report.json") as file:
        file.write(json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n")
    with atomic_write(directory / "per_query.jsonl") as file:
        for row in _per_query(evaluations):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    with atomic_write(directory / "report.md") as file:
        file.write(_markdown(report).encode())
    with atomic_write(directory / "report.html") as file:
        file.write(_html(report, evaluations, seed).encode())


def _per_query(evaluations: Sequence[FileEvaluation]) -> list[dict[str, Any]]:
    return [
        {
            "path": str(evaluation.path),
            "query_id": sample.query_id,
            "query": sample.query,
            **{ranker: {m: float(values[m][i]) for m in METRICS} for ranker, values in evaluation.values.items()},
        }
        for evaluation in evaluations
        for i, sample in enumerate(evaluation.samples)
        if np.isfinite(evaluation.values["BM25"]["MAP"][i])
    ]


def _markdown(report: Report) -> str:
    return _render(
        "report.md.jinja",
        autoescape=False,
        report=report,
        table=format_table(report),
        format_changes=format_changes,
        plain=_plain_markdown,
    )


def _plain_markdown(text: str) -> str:
    """Return a text of the data as Markdown that shows it in a line, whatever it spells."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(text.split()))


def _html(report: Report, evaluations: Sequence[FileEvaluation], seed: int) -> str:
    from rag_core.evaluation import plots

    pictures = [
        plots.pictures_of_file(file, evaluation, seed)
        for file, evaluation in zip(report["files"], evaluations, strict=True)
    ]
    return _render(
        "report.html.jinja",
        autoescape=True,
        report=report,
        metrics=METRICS,
        summary=summary,
        pictures=pictures,
        training_pictures=plots.pictures_of_training(report),
        latency_pictures=plots.pictures_of_latency(report),
        latency_rows=latency_rows,
        latency_note=latency_note,
        depth_rows=depth_rows,
        warnings=warnings(report),
    )


def _render(template: str, *, autoescape: bool, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("rag_core.evaluation", "."), autoescape=autoescape, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)
