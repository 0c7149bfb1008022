"""What models cost, beside how well they rank: the report's part on latency, size and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


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
