"""A report as Markdown tables: what is printed, and stands in the card and in report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rag_core.base.markdown import escaped
from rag_core.base.tables import format_difference, format_rows
from rag_core.evaluation.depth import DepthResult
from rag_core.evaluation.latency import LatencyReport
from rag_core.evaluation.mixing_words import change_rows, mixing_words
from rag_core.evaluation.rankers import Ranker
from rag_core.evaluation.report import FileReport, Report
from rag_core.evaluation.search_tables import format_search
from rag_core.metrics.ranking import METRICS
from rag_core.metrics.significance import GapClosed


def format_table(report: Report) -> str:
    """Return a table per file (means, "after" against each ranker, wins, the gap closed), then search and latency."""
    blocks = []
    for file in report.files:
        title = f"{escaped(file.path)} ({file.domain}, {file.measured} queries)"
        blocks.append(f"{title}\n\n{format_rows(_ranker_rows(report, file))}\n\n{summary(file)}")
        if file.depth is not None:
            blocks.append(format_rows(depth_rows(file.depth)))
    if changes := change_rows(report, escaped):
        blocks.append("\n\n".join([format_rows(changes), *mixing_words(report, escaped)]))
    blocks += [format_search(search) for search in report.retrieval]
    if report.latency:
        rows = [[escaped(cell) for cell in row] for row in latency_rows(report.latency)]
        blocks.append(f"{format_rows(rows)}\n\n{escaped(latency_note(report.latency))}")
    return "\n\n".join(blocks)


def _ranker_rows(report: Report, file: FileReport) -> list[list[str]]:
    rows = [["", "model", *METRICS, "MAP, after minus this [95 % interval]", "relative", "p"]]
    for ranker, means in file.means.items():
        change = file.change_to_after[ranker]["MAP"] if ranker in file.change_to_after else None
        rows.append(
            [
                ranker,
                escaped(Path(report.models.get(ranker, "")).name),
                *(f"{means[metric]:.4f}" for metric in METRICS),
                format_difference(change.difference, change.low, change.high) if change else "",
                f"{change.relative:+.1%}" if change and change.relative is not None else "",
                f"{change.p_value:.4f}" if change else "",
            ]
        )
    return rows


def summary(file: FileReport) -> str:
    """Return wins and losses, and in a second line the share of the gap closed."""
    wins = file.wins["MAP"]
    line = f"{wins.better} queries better than before, {wins.worse} worse, {wins.same} the same"
    if file.gap_closed is None:
        return line
    shares = [f"{metric} {_share(gap)}" for metric, gap in file.gap_closed.items()]
    return f"{line}\nshare of the teacher's lead closed: {', '.join(shares)}"


def _share(gap: GapClosed | None) -> str:
    if gap is None:
        return "- (the teacher has no lead)"
    if gap.low is None:
        return "- (the teacher's lead may be chance)"
    return f"{gap.share:.0%} [{gap.low:.0%}, {gap.high:.0%}]"


def format_changes(file: FileReport) -> str:
    """Return a Markdown table with one row per metric: how it changed from before to after."""
    rows = [["", "after - before [95 % interval]", "p", "better", "worse", "same", "teacher's lead closed"]]
    for metric in METRICS:
        change, wins = file.change_to_after["before"][metric], file.wins[metric]
        rows.append(
            [
                metric,
                format_difference(change.difference, change.low, change.high),
                f"{change.p_value:.4f}",
                *map(str, (wins.better, wins.worse, wins.same)),
                _share(file.gap_closed[metric]) if file.gap_closed else "",
            ]
        )
    return format_rows(rows)


def latency_rows(latency: LatencyReport) -> list[list[str]]:
    """Return a head and one row per model, as text."""
    head = ["", "model", "precision", "MAP"]
    head += [f"{depth} candidates: queries/s, p50, p95 ms" for depth in latency.depths]
    rows = [[*head, "passages/s", "on disk, MB", "peak memory, MB"]]
    for row in latency.rows:
        times = (row.cost.reranking[depth] for depth in latency.depths)
        speed = row.cost.passages_per_second
        rows.append(
            [
                row.name,
                Path(row.model).name,
                row.dtype,
                f"{row.MAP:.4f}",
                *(f"{time.queries_per_second:.4g}, {time.p50:.3g}, {time.p95:.3g}" for time in times),
                "" if speed is None else f"{speed:.4g}",
                *(f"{size / 1e6:,.0f}" for size in (row.cost.disk_bytes, row.cost.peak_bytes)),
            ]
        )
    return rows


def latency_note(latency: LatencyReport) -> str:
    """Return how the figures were measured."""
    return (
        f"Latency: {latency.queries} queries of {latency.path}, one after another, {latency.threads} "
        f"thread{'s' if latency.threads > 1 else ''}, each model in a process of its own, whose peak memory has the "
        "libraries in it. An embedder's passages were embedded beforehand (passages/s); a query is embedded. Texts are "
        f"cut to {latency.rows[0].max_length} tokens, or to what a model reads."
        + "".join(f" The {name} was not timed: only its scores were given." for name in latency.untimed)
    )


def depth_rows(depths: Mapping[Ranker, Sequence[DepthResult]]) -> list[list[str]]:
    """Return a head and one row per ranker: its MAP, and how far that is from the best shallower depth."""
    head = [f"{result.depth} reranked" for result in next(iter(depths.values()))]
    return [["MAP", *head], *([ranker, *map(_depth_cell, results)] for ranker, results in depths.items())]


def _depth_cell(result: DepthResult) -> str:
    found = f"{result.MAP:.4f}"
    return found if result.change is None else f"{found}, {format_difference(*result.change)}"
