"""A report on disk: `report.json`, `report.md`, the self-contained `report.html`, and `per_query.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.base.figures import COLOURS, WORSE
from rag_core.base.markdown import code, escaped
from rag_core.base.templates import render
from rag_core.evaluation.in_words import in_words
from rag_core.evaluation.mixing_words import change_rows, mixing_words
from rag_core.evaluation.rankers import FileEvaluation
from rag_core.evaluation.report import Report, warnings
from rag_core.evaluation.search_tables import SEARCH_NOTE, search_rows, search_title, search_wins
from rag_core.evaluation.tables import depth_rows, format_changes, format_table, latency_note, latency_rows, summary
from rag_core.files.atomic import atomic_write
from rag_core.metrics.ranking import METRICS

FILES = ("report.json", "report.json.manifest.json", "per_query.jsonl", "report.md", "report.html")
"""What a report consists of, with what `evaluate` adds."""


def write_report(directory: Path, report: Report, evaluations: Sequence[FileEvaluation], seed: int) -> None:
    """Write the four files."""
    with atomic_write(directory / "report.json") as file:
        file.write(_json(report.as_json(), indent=2))
    with atomic_write(directory / "per_query.jsonl") as file:
        for row in [*_per_query(evaluations), *(row for search in report.retrieval for row in search.per_query())]:
            file.write(_json(row))
    with atomic_write(directory / "report.md") as file:
        file.write(_markdown(report).encode())
    with atomic_write(directory / "report.html") as file:
        file.write(_html(report, evaluations, seed).encode())


def _json(content: Any, indent: int | None = None) -> bytes:
    """Return a line of JSON; a byte of a path that is no UTF-8 is written as JSON's own escape."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


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
    return render(
        "rag_core.evaluation",
        "report.md.jinja",
        autoescape=False,
        report=report,
        table=format_table(report),
        format_changes=format_changes,
        in_words=in_words(report),
        plain=lambda text: escaped(text) or "?",
        code=code,
    )


def _html(report: Report, evaluations: Sequence[FileEvaluation], seed: int) -> str:
    from rag_core.evaluation import plots

    return render(
        "rag_core.evaluation",
        "report.html.jinja",
        autoescape=True,
        report=report,
        metrics=METRICS,
        summary=summary,
        pictures=[
            plots.pictures_of_file(file, evaluation, seed)
            for file, evaluation in zip(report.files, evaluations, strict=True)
        ],
        training_pictures=plots.pictures_of_training(report.training),
        latency_pictures=plots.pictures_of_latency(report),
        latency_rows=latency_rows,
        latency_note=latency_note,
        depth_rows=depth_rows,
        search_rows=search_rows,
        search_title=search_title,
        search_wins=search_wins,
        search_note=SEARCH_NOTE,
        in_words=in_words(report),
        warnings=warnings(report),
        first_stage_rows=change_rows(report, str),
        mixing_words=mixing_words(report, str),
        colours={"after": COLOURS["after"], "worse": WORSE},
    )
