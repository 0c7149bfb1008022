"""What rankers find in a corpus as a table: one row per ranker, then what changed with training."""

from __future__ import annotations

from pathlib import Path

from rag_core.base.markdown import escaped
from rag_core.base.tables import format_difference, format_rows
from rag_core.evaluation.retrieval import DEPTH, SEARCH_METRICS, SearchReport

SEARCH_NOTE = (
    f"Search: every passage of the corpus is compared with every query. Hybrid: reciprocal rank fusion of the first "
    f"{DEPTH} of BM25 and of the embedder. Recall@100 is the share of the relevant passages among the first 100. "
    "Passages that nobody judged count as not relevant."
)


def format_search(search: SearchReport) -> str:
    """Return a Markdown table under its title, with wins and losses below."""
    title = f"Search in {escaped(search.name)} ({search_title(search)})"
    head, *rows = search_rows(search)
    rows = [head, *([ranker, escaped(model), *figures] for ranker, model, *figures in rows)]
    return f"{title}\n\n{format_rows(rows)}\n\n{search_wins(search)}\n{SEARCH_NOTE}"


def search_title(search: SearchReport) -> str:
    """Return how large the search is."""
    return f"{search.domain}, {search.queries:,} queries over {search.documents:,} passages"


def search_rows(search: SearchReport) -> list[list[str]]:
    """Return a head, one row per ranker, and one per comparison of before with after."""
    rows = [["", "model", *SEARCH_METRICS]]
    for ranker, means in search.means.items():
        model = next((name for role, name in search.models.items() if role == ranker), "")
        rows.append([ranker, Path(model).name, *(f"{means[metric]:.4f}" for metric in SEARCH_METRICS)])
    for comparison in (search.compared("after", "before"), search.compared("hybrid after", "hybrid before")):
        if comparison:
            changes = (comparison.changes[metric] for metric in SEARCH_METRICS)
            cells = (format_difference(change.difference, change.low, change.high) for change in changes)
            rows.append([f"{comparison.new} - {comparison.old}", "95 % interval", *cells])
    return rows


def search_wins(search: SearchReport) -> str:
    """Return on how many queries after finds more than before, and less."""
    comparison = search.compared("after", "before")
    assert comparison is not None  # both always search
    parts = [
        f"{metric} {wins.better} better, {wins.worse} worse, {wins.same} the same"
        for metric, wins in comparison.wins.items()
    ]
    return f"queries, after beside before: {'; '.join(parts)}"
