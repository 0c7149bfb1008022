"""The rows as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from query_expansion_rl.report.findings import Report
from query_expansion_rl.report.measuring import RowReport
from query_expansion_rl.report.verdict import Controlled, text_of
from rag_core.base.outside_text import quoted
from rag_core.metrics.differences import Difference

_WAYS = {
    "alone": "instead of the query",
    "concat": "beside the query",
    "gated": "gated",
    "rrf": "fused with the query's ranking",
    "dense": "fused with dense search",
    "other": "second retriever",
    "other gated": "second retriever, gated",
}


def row_table(rows: Sequence[RowReport], retriever: str, best: str) -> list[list[str]]:
    """Return the figures of rows, the head first; what nobody can have is marked."""
    head = ["way", "nDCG@10", "MAP", "recall@100", f"minus {quoted(retriever)}", f"minus {quoted(best)}"]
    head += ["better", "worse", "harm", "tokens", "search ms", "LLM ms"]
    return [head, *map(_cells, rows)]


def _cells(row: RowReport) -> list[str]:
    change = row.minus_retriever
    return [
        f"{quoted(row.name)} (not attainable)" if row.kind == "oracle" else quoted(row.name),
        *(f"{row.means[metric]:.4f}" for metric in ("NDCG@10", "MAP", "Recall@100")),
        _difference(change),
        _difference(row.minus_best),
        str(change.better) if change else "-",
        str(change.worse) if change else "-",
        "-" if row.harm is None else f"{row.harm:.1%}",
        _number(row.tokens, ".1f"),
        _number(row.search_ms, ".2f"),
        _number(row.write_ms, ".0f"),
    ]


def control_table(controls: Sequence[Controlled]) -> list[list[str]]:
    """Return what each method reaches above the control, the head first."""
    head = ["method", "its expansion", "minus the control, nDCG@10", "better", "worse"]
    rows = [
        [
            quoted(one.method),
            _WAYS.get(one.way, one.way),
            text_of(one.difference),
            str(one.difference.better),
            str(one.difference.worse),
        ]
        for one in controls
    ]
    return [head, *rows]


def screen_table(report: Report) -> list[list[str]]:
    """Return the rows with the columns that fit on a screen."""
    table = row_table([*report.rows, *report.reranked], report.retriever, report.best)
    kept = [place for place, name in enumerate(table[0]) if name not in ("MAP", "search ms", "LLM ms")]
    return [[row[place] for place in kept] for row in table]


def _difference(found: Difference | None) -> str:
    return text_of(found) if found else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
