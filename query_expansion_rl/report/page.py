"""The report on disk: `report.json`, one self-contained page, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from query_expansion_rl.report.findings import Example, Report, behind_name
from query_expansion_rl.report.measuring import LABELS, RowReport
from query_expansion_rl.report.plots import changes
from query_expansion_rl.report.table import control_table, row_table
from rag_core.base.errors import DataError
from rag_core.base.figures import COLOURS, NEUTRAL, Picture
from rag_core.base.markdown import escaped
from rag_core.base.outside_text import quoted
from rag_core.base.tables import format_rows
from rag_core.base.templates import render
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_whole

REPORT = "report.json"
FILES = (REPORT, f"{REPORT}.manifest.json", "report.html", "report.md")
"""What a report consists of, with the manifest that `evaluate` adds."""

_COLOURS = {"expansion": COLOURS["after"], "training-free": COLOURS["before"], "retriever": NEUTRAL}


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        rows: a table, its head first; empty for none.
        chosen: the row of the table that the verdict names; 0 for none.
        examples: heading -> queries.
    """

    title: str
    notes: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chosen: int = 0
    picture: Picture | None = None
    examples: Sequence[tuple[str, Sequence[Example]]] = ()


def write_report(folder: Path, report: Report) -> None:
    """Write the three files."""
    sections, facts = make_sections(report), _facts(report)
    files = {
        REPORT: TypeAdapter(Report).dump_json(report, indent=2) + b"\n",
        "report.html": _render("report.html.jinja", True, report, sections, facts),
        "report.md": _render("report.md.jinja", False, report, sections, facts),
    }
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def read_report(path: Path) -> Report:
    """Read what `write_report` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        return TypeAdapter(Report).validate_json(read_whole(path, "Pass --overwrite to make it again"))
    except ValidationError as error:
        what = quoted(error.errors()[0]["msg"])
        raise DataError(f"is no report ({what})", "Pass --overwrite to make it again", path=path) from error


def make_sections(report: Report) -> list[Section]:
    """Return the parts that have something to say."""
    found = [_ways("All ways", report.rows, (report.retriever, report.best), report.verdict.use, _WAYS_NOTES)]
    if report.reranked_verdict:
        against = (behind_name(report.retriever), behind_name(report.best))
        note = f"The first {report.reranker_depth} of each ranking, ordered by {quoted(report.reranker or '')}."
        found.append(_ways("Behind the reranker", report.reranked, against, report.reranked_verdict.use, [note]))
    if report.controls:
        note = (
            "The control learned from random samples. What a method reaches above it is learned from the reward; what "
            "both reach comes of the shorter prompt and the cleaning."
        )
        found.append(Section("Learned, or only shortened", [note], control_table(report.controls)))
    if report.gains or report.losses:
        headings = [
            (f"The {len(report.gains)} largest gains", report.gains),
            (f"The {len(report.losses)} largest losses", report.losses),
        ]
        notes = [f"Of {quoted(report.shown)}, against the query alone."]
        found.append(Section("Queries that changed most", notes, examples=[one for one in headings if one[1]]))
    return found


_WAYS_NOTES = (
    "alone: the expansion instead of the query, which shows what was learned and is no way to search. gated: the "
    "expansion is used only where the teacher likes its ranking better. rrf: the rankings with and without it, fused. "
    "+ dense: fused with dense search of the query.",
)


def _ways(title: str, rows: Sequence[RowReport], against: tuple[str, str], used: str, notes: Sequence[str]) -> Section:
    retriever, best = against
    chosen = next((place for place, row in enumerate(rows, 1) if row.name == used), 0)
    return Section(title, notes, row_table(rows, retriever, best), chosen, changes(rows, retriever, used))


def _facts(report: Report) -> dict[str, str]:
    judged = "people" if report.judged_by == LABELS else f"{report.judged_by}, a teacher"
    dev = f", {report.dev_queries} dev queries chose" if report.dev_queries else ""
    return {
        "queries": f"{report.queries} test queries report{dev}",
        "judged by": judged,
        "retriever": report.retriever,
        "best without training": report.best,
        "headroom": f"{report.headroom:+.4f} nDCG@10: what choosing right among the ways without training would bring",
        "query weight": f"{report.query_weight:g}, where the expansion has 1",
        "verdict": report.verdict.outcome,
    }


def _render(template: str, autoescape: bool, report: Report, sections: list[Section], facts: dict[str, str]) -> bytes:
    values: dict[str, Any] = {
        "sentence": report.headline,
        "colour": _COLOURS[report.verdict.outcome],
        "sections": sections,
        "facts": facts,
        "plain": lambda text: escaped(text) or "?",
        "table": lambda rows: format_rows([[escaped(cell) for cell in row] for row in rows]),
    }
    return render("query_expansion_rl.report", template, autoescape=autoescape, **values).encode()
