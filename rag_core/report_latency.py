"""What models cost, beside how well they rank: the report's part on latency, size and depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.depth import measure_depths
from rag_core.engines import EngineOptions
from rag_core.engines.identity import export_precision
from rag_core.engines.precision import resolve_dtype
from rag_core.evaluation import FileEvaluation, score_for_evaluation
from rag_core.latency import make_requests, measure_apart
from rag_core.metrics import measure
from rag_core.scored_files import scores_by_sample
from rag_core.significance import mean_interval


def add_latency(
    report: dict[str, Any],
    evaluations: Sequence[FileEvaluation],
    models: Mapping[str, EngineOptions],
    also: Sequence[EngineOptions],
    *,
    queries: int,
    seed: int,
    **scoring: Any,
) -> None:
    """Measure models on the first file and depths on every file; add both to the report.

    Args:
        models: by role, those that were evaluated.
        also: further ones, which are evaluated on the first file.
        scoring: for `score_for_evaluation`, of the further ones.

    Raises:
        EngineError: as `measure_apart`.
    """
    first = evaluations[0]
    requests = make_requests(first.samples, queries)
    values = {role: first.values[role]["MAP"] for role in models}  # type: ignore[index]
    rows = dict(models)
    for number, options in enumerate(also, start=1):
        name = Path(options.model).name
        name = name if name not in rows else f"{name} ({number})"
        (path,) = score_for_evaluation(f"also_{number}", [first.path], options, **scoring).values()
        values[name] = measure(first.samples, scores_by_sample(path, first.samples))["MAP"]
        rows[name] = options
    measured = {name: measure_apart(options, requests) for name, options in rows.items()}
    report["latency"] = {
        "path": str(first.path),
        "queries": min(queries, len(first.samples)),
        "untimed": sorted(set(first.values) - set(models) - {"BM25"}),
        "threads": max(latency.threads for latency in measured.values()),
        "depths": list(requests),
        "rows": [
            {
                "name": name,
                "model": rows[name].model,
                "dtype": export_precision(rows[name].model) or resolve_dtype(rows[name].dtype),
                "max_length": rows[name].max_length,
                "MAP": float(np.nanmean(values[name])),
                "interval": mean_interval(values[name], seed),
                **dataclasses.asdict(latency),
                "reranking": {str(depth): dataclasses.asdict(row) for depth, row in latency.reranking.items()},
            }
            for name, latency in measured.items()
        ],
    }
    for file, evaluation in zip(report["files"], evaluations, strict=True):
        depths = measure_depths(evaluation, seed)
        file["depth"] = {ranker: [dataclasses.asdict(row) for row in found] for ranker, found in depths.items()}


def latency_rows(latency: Mapping[str, Any]) -> list[list[str]]:
    """Return a head and a row a model, as text."""
    head = ["", "model", "precision", "MAP"]
    head += [f"{depth} candidates: queries/s, p50, p95 ms" for depth in latency["depths"]]
    rows = [[*head, "passages/s", "on disk, MB", "peak memory, MB"]]
    for row in latency["rows"]:
        times = (row["reranking"][str(depth)] for depth in latency["depths"])
        speed = row["passages_per_second"]
        rows.append(
            [
                row["name"],
                Path(row["model"]).name,
                row["dtype"],
                f"{row['MAP']:.4f}",
                *(f"{time['queries_per_second']:.4g}, {time['p50']:.3g}, {time['p95']:.3g}" for time in times),
                "" if speed is None else f"{speed:.4g}",
                *(f"{row[key] / 1e6:,.0f}" for key in ("disk_bytes", "peak_bytes")),
            ]
        )
    return rows


def latency_note(latency: Mapping[str, Any]) -> str:
    """Return how the figures were measured, in a sentence or two."""
    return (
        f"Latency: {latency['queries']} queries of {latency['path']}, one after another, {latency['threads']} "
        f"thread{'s' if latency['threads'] > 1 else ''}, each model in a process of its own, whose peak memory has the "
        "libraries in it. An embedder's passages were embedded beforehand (passages/s); a query is embedded. Texts are "
        f"cut to {latency['rows'][0]['max_length']} tokens, or to what a model reads."
        + "".join(f" The {name} was not timed: only its scores were given." for name in latency["untimed"])
    )


def depth_rows(depths: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return a head and a row a ranker: its MAP, and how far that is from the best shallower depth."""
    head = [f"{row['depth']} reranked" for row in next(iter(depths.values()))]
    return [["MAP", *head], *([ranker, *map(_depth_cell, rows)] for ranker, rows in depths.items())]


def _depth_cell(row: Mapping[str, Any]) -> str:
    if row["change"] is None:
        return f"{row['MAP']:.4f}"
    difference, low, high = row["change"]
    return f"{row['MAP']:.4f}, {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
