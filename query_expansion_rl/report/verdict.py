"""What the table comes to, in words: an expansion is recommended only where it beats every way without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from query_expansion_rl.report.measuring import RowReport
from query_expansion_rl.report.rows import Way
from rag_core.base.outside_text import quoted
from rag_core.base.tables import format_difference
from rag_core.metrics.differences import Difference, difference

Outcome = Literal["expansion", "training-free", "retriever"]

_CONTROLLED: tuple[Way, ...] = ("alone", "concat", "gated", "rrf", "dense", "other", "other gated")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Controlled:
    """A learned method minus the control that learned from random samples, done the same way.

    Attributes:
        way: what both do with their expansions.
    """

    method: str
    control: str
    way: Way
    difference: Difference


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Verdict:
    """Which row to use, and why.

    Attributes:
        shown: the expansion that did best; empty where there is none.
    """

    use: str
    outcome: Outcome
    sentence: str
    shown: str = ""


def conclude(
    rows: Sequence[RowReport], *, retriever: str, best: str, dev: Mapping[str, float], controls: Sequence[Controlled]
) -> Verdict:
    """Return the verdict on rows.

    Args:
        best: the best way that needs no training, chosen on the dev queries.
        dev: row -> nDCG@10 on the dev queries, by which the expansion is chosen; empty where they have none.
    """
    by_name = {row.name: row for row in rows}
    candidates = [row for row in rows if row.is_candidate]
    shown = max(candidates, key=lambda row: dev.get(row.name, 0.0) if dev else row.ndcg) if candidates else None
    rival = by_name[best]
    over = rival.minus_retriever
    on_dev = " on the dev queries" if dev else ""
    what = "choice query by query" if shown and shown.kind == "policy" else "expansion"
    beaten = _is_above(shown, retriever) if shown else False
    # Which way without training is best was chosen on other queries: what does better here is not to be passed over.
    better = max((row for row in rows if row.kind in ("retriever", "training-free")), key=lambda row: row.ndcg)
    if shown and shown.minus_best and beaten and shown.ndcg > better.ndcg:
        sentence = (
            f"Use {_named(shown)}: nDCG@10 {shown.ndcg:.3f}, {text_of(shown.minus_best)} against {_named(rival)}, the "
            f"best way without training. {_chosen(len(candidates), dev)}{_on_controls(shown, controls)}"
        )
        return Verdict(use=shown.name, outcome="expansion", sentence=sentence, shown=shown.name)
    if over is not None and over.low > 0:
        outcome: Outcome = "training-free"
        sentence = (
            f"Use {_named(rival)}: nDCG@10 {rival.ndcg:.3f}, {text_of(over)} against {quoted(retriever)}, without "
            "training."
        )
    else:
        outcome = "retriever"
        sentence = f"Leave {quoted(retriever)} as it is: nDCG@10 {by_name[retriever].ndcg:.3f}."
        if over is not None:
            sentence += f" Without training {_named(rival)} did best on the dev queries: {text_of(over)}."
    if shown and shown.minus_best and beaten:
        sentence += (
            f" {_named(shown)} is {text_of(shown.minus_best)} against {_named(rival)}, but {_named(better)} reached "
            f"{better.ndcg:.3f} on these queries, without training either: have more dev queries choose."
        )
    elif shown and shown.minus_best:
        sentence += (
            f" No {what} is better beyond the interval: {_named(shown)}, the best of {len(candidates)} rows{on_dev}, "
            f"is {text_of(shown.minus_best)} against {_named(rival)}.{_on_controls(shown, controls)}"
        )
    use = best if outcome == "training-free" else retriever
    return Verdict(use=use, outcome=outcome, sentence=sentence, shown=shown.name if shown else "")


def compare_with_control(
    rows: Sequence[RowReport], control: str, query_ids: Sequence[str], seed: int
) -> list[Controlled]:
    """Return what each method reaches above the control, way by way."""
    theirs = {row.way: row for row in rows if row.method == control and row.way}
    return [
        Controlled(
            method=row.method,
            control=control,
            way=row.way,
            difference=difference(theirs[row.way].by_query, row.by_query, query_ids, seed),
        )
        for row in rows
        if row.kind == "expansion" and row.method != control and row.way in theirs and row.way in _CONTROLLED
    ]


def text_of(found: Difference) -> str:
    """Return a difference and its interval, as in `+0.0123 [+0.0010, +0.0236]`."""
    return format_difference(found.difference, found.low, found.high)


def _is_above(row: RowReport, retriever: str) -> bool:
    """Tell whether a row is above both the best way without training and the retriever, beyond the interval."""
    return all(
        found is not None and found.low > 0
        for found in (row.minus_best, row.minus_retriever if row.name != retriever else None)
    )


def _chosen(candidates: int, dev: Mapping[str, float]) -> str:
    if candidates == 1:
        return ""
    if dev:
        return f"It was chosen among {candidates} rows on the dev queries."
    return (
        f"It was chosen among {candidates} rows on the queries that report it, which flatters it: write expansions for "
        "the dev queries, too."
    )


def _on_controls(shown: RowReport, controls: Sequence[Controlled]) -> str:
    """Say whether the method of a row beats its control, by itself and in that row."""
    ways: list[tuple[Way | None, str]] = [("alone", "its expansions alone"), (shown.way, "this row")]
    told = []
    for way, what in ways:
        for one in controls:
            if one.method == shown.method and one.way == way:
                found = one.difference
                beats = "above" if found.low > 0 else "below" if found.high < 0 else "no difference beyond the interval"
                told.append(f"{what} {text_of(found)}, {beats}")
    if not told:
        return ""
    return f" Minus the control {quoted(controls[0].control)}, which learned from random samples: {'; '.join(told)}."


def _named(row: RowReport) -> str:
    return quoted(row.name)
