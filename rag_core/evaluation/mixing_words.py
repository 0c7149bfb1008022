"""What the reranker adds to what it reorders, as rows and in words: where it adds nothing, which model to use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rag_core.base.tables import format_difference
from rag_core.evaluation.rankers import Ranker
from rag_core.evaluation.report import FileReport, Report
from rag_core.metrics.ranking import METRICS

_SUBJECTS: dict[Ranker, str] = {"mixed": "mixing in the reranker", "after": "the reranker alone"}


def change_rows(report: Report, shown: Callable[[str], str]) -> list[list[str]]:
    """Return a head and a row for each file and comparison with the first stage; no row where there is none.

    Args:
        shown: how names are written, `escaped` in Markdown.
    """
    rows = [["file", "", *(f"{metric} [95 % interval]" for metric in METRICS)]]
    for file in report.files:
        for ranker, changes in (file.change_from_first_stage or {}).items():
            cells = (format_difference(c.difference, c.low, c.high) for c in (changes[metric] for metric in METRICS))
            rows.append([shown(Path(file.path).name), f"{ranker} - first stage", *cells])
    return rows if len(rows) > 1 else []


def mixing_words(report: Report, shown: Callable[[str], str]) -> list[str]:
    """Return a sentence on the mix, and for each file one on what the reranker adds; nothing without a first stage.

    Args:
        shown: as in `change_rows`.
    """
    if report.mixing is None:
        return []
    return [
        *_weight(report, shown),
        *(_verdict(file, report, shown) for file in report.files if file.change_from_first_stage),
    ]


def _weight(report: Report, shown: Callable[[str], str]) -> list[str]:
    mixing = report.mixing
    if mixing is None or mixing.weight is None:
        return []
    said = f"Mixed is {mixing.formula}, both standardised per query. "
    if mixing.dev_file is None:
        return [f"{said}The weight was given."]
    name = shown(Path(mixing.dev_file).name)
    by_weight = (f"{weight:g}: {value:.4f}" for weight, value in mixing.dev_means.items())
    said += f"The weight was chosen on {mixing.dev_queries} queries of {name} (MAP by weight {', '.join(by_weight)})."
    return [said]


def _verdict(file: FileReport, report: Report, shown: Callable[[str], str]) -> str:
    changes = {ranker: by_metric["MAP"] for ranker, by_metric in (file.change_from_first_stage or {}).items()}
    first, after = (shown(Path(report.models[role]).name) for role in ("first stage", "after"))
    place = f"On {shown(Path(file.path).name)} "
    figures = {
        ranker: f"{ranker} - first stage {format_difference(change.difference, change.low, change.high)} MAP"
        for ranker, change in changes.items()
    }
    gains = [ranker for ranker in changes if changes[ranker].low > 0]
    if gains:
        best = max(gains, key=lambda ranker: (changes[ranker].difference, ranker == "after"))
        advice = "serve the mix." if best == "mixed" else f"serve the order of {after}."
        return f"{place}{_SUBJECTS[best]} ranks better than the first stage alone, {first} ({figures[best]}): {advice}"
    said = "; ".join(figures.values())
    if all(change.high < 0 for change in changes.values()):
        ending = f"The first stage alone, {first}, ranks better: use it, and save the reranker."
    else:
        ending = f"The first stage alone, {first}, ranks as well: use it, and save the reranker."
    return f"{place}the reranker adds nothing to the first stage beyond the interval ({said}). {ending}"
