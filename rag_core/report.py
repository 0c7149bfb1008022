"""Before, after, teacher: the table on the screen, `report.json`, `per_query.jsonl` and `report.html`."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.evaluation import FileEvaluation, Ranker
from rag_core.jsonl import atomic_write
from rag_core.metrics import METRICS

Report = dict[str, Any]


def make_report(evaluations: Sequence[FileEvaluation], models: Mapping[Ranker, str], seed: int) -> Report:
    """Return the content of `report.json`: per file the means of every ranker and what "after" changed."""
    return {
        "models": dict(models),
        "files": [
            {
                "path": str(evaluation.path),
                "domain": evaluation.domain,
                "queries": len(evaluation.samples),
                "measured": evaluation.measured,
                "means": evaluation.means(),
                "change_to_after": {
                    ranker: {metric: dataclasses.asdict(change) for metric, change in changes.items()}
                    for ranker, changes in evaluation.changes(seed).items()
                },
            }
            for evaluation in evaluations
        ],
    }


def format_table(report: Report) -> str:
    """Return the report as a Markdown table for each file: means, and "after" against each ranker."""
    blocks = []
    for file in report["files"]:
        rows = [["", "model", *METRICS, "MAP, after minus this [95 % interval]", "relative"]]
        for ranker, means in file["means"].items():
            change = file["change_to_after"].get(ranker, {}).get("MAP")
            rows.append(
                [
                    ranker,
                    Path(report["models"].get(ranker, "")).name,
                    *(f"{means[metric]:.4f}" for metric in METRICS),
                    f"{change['difference']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]" if change else "",
                    f"{change['relative']:+.1%}" if change and change["relative"] is not None else "",
                ]
            )
        title = f"{file['path']} ({file['domain']}, {file['measured']} queries)"
        blocks.append(f"{title}\n\n{format_rows(rows)}")
    return "\n\n".join(blocks)


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
    return found


def write_report(directory: Path, report: Report, evaluations: Sequence[FileEvaluation]) -> None:
    """Write `report.json`, `per_query.jsonl` and the self-contained `report.html`."""
    with atomic_write(directory / "report.json") as file:
        file.write(json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n")
    with atomic_write(directory / "per_query.jsonl") as file:
        for row in _per_query(evaluations):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    with atomic_write(directory / "report.html") as file:
        file.write(_html(report, evaluations).encode())


def format_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table, the first row as its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


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


def _html(report: Report, evaluations: Sequence[FileEvaluation]) -> str:
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader("rag_core", "."), autoescape=True).get_template("report.html.jinja")
    plots = [
        (_bars(file), _histogram(evaluation)) for file, evaluation in zip(report["files"], evaluations, strict=True)
    ]
    return template.render(report=report, metrics=METRICS, plots=plots)


def _bars(file: Mapping[str, Any]) -> str:
    """Draw the means of every ranker, metric by metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    rankers = list(file["means"])
    width = 0.8 / len(rankers)
    for i, ranker in enumerate(rankers):
        heights = [file["means"][ranker][metric] for metric in METRICS]
        bars = axes.bar(np.arange(len(METRICS)) + i * width, heights, width, label=ranker, color=_COLOURS[ranker])
        axes.bar_label(bars, fmt="%.3f", fontsize=7)
    axes.set_xticks(np.arange(len(METRICS)) + 0.4 - width / 2, METRICS)
    axes.set_ylim(0, 1)
    axes.legend(ncols=len(rankers), loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False, fontsize=8)
    return _svg(figure)


def _histogram(evaluation: FileEvaluation) -> str:
    """Draw how many queries gained or lost how much MAP from before to after."""
    from matplotlib.figure import Figure

    change = evaluation.values["after"]["MAP"] - evaluation.values["before"]["MAP"]
    change = change[np.isfinite(change)]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(change, bins=np.linspace(-1, 1, 41).tolist(), color=_COLOURS["after"])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("change of average precision, after minus before")
    axes.set_ylabel("queries")
    won, lost = int((change > 0).sum()), int((change < 0).sum())
    axes.set_title(f"{won} queries better, {lost} worse, {len(change) - won - lost} the same", fontsize=9)
    return _svg(figure)


_COLOURS: dict[str, str] = {"BM25": "#9aa5b1", "before": "#5b8def", "after": "#1f9d61", "teacher": "#d98a29"}


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "report"}):  # equal figures give equal bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
