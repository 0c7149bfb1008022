"""The report of a recommendation: one self-contained page, the same in Markdown, and the recommendation itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from milvus_optimization.collection.code import collection_code
from milvus_optimization.indexes.pareto import equal_recall_pair
from milvus_optimization.records import Recommendation
from milvus_optimization.report import index_findings, ranking_findings
from milvus_optimization.report.evidence import Evidence
from milvus_optimization.report.index_choice import deciding_trials
from milvus_optimization.report.recommendation import Outcome
from milvus_optimization.report.section import Section
from rag_core.base.figures import COLOURS, WORSE
from rag_core.base.markdown import code, escaped
from rag_core.base.tables import format_rows
from rag_core.base.templates import render
from rag_core.files.atomic import atomic_write

RECOMMENDATION = "recommendation.json"
FILES = (RECOMMENDATION, f"{RECOMMENDATION}.manifest.json", "report.html", "report.md", "collection.py")
"""What a report consists of, with the manifest that `recommend` adds."""

APPLIED = "applied"
"""A folder in that of the report, for what `apply` says; it stays when the report is made again."""

_VERDICTS = {"better": "after", "worse": "worse", "equal": "equal", "too few queries": "worse"}


def make_sections(evidence: Evidence, outcome: Outcome, seed: int) -> list[Section]:
    """Return the parts that have something to say."""
    recommendation = outcome.recommendation
    trials = deciding_trials(evidence.index, recommendation.model, recommendation.target)
    pair = equal_recall_pair(trials, tune_fraction=recommendation.tune_fraction, seed=seed)
    found = [
        ranking_findings.against_defaults(outcome),
        index_findings.lost_and_won(evidence, outcome, seed),
        index_findings.recall_against_loss(trials, outcome, pair),
        index_findings.quality_and_cost(trials, outcome),
        ranking_findings.ways_to_rank(evidence, outcome),
        index_findings.vector_variants(evidence, outcome),
        ranking_findings.models(evidence, outcome, seed),
        ranking_findings.second_judgement(evidence, outcome, seed),
        ranking_findings.changed_queries(evidence, outcome),
        index_findings.not_measured(evidence),
    ]
    return [section for section in found if section is not None]


def write_report(directory: Path, evidence: Evidence, outcome: Outcome, seed: int) -> None:
    """Write the recommendation, the page, its Markdown and the code."""
    recommendation = outcome.recommendation
    content = TypeAdapter(Recommendation).dump_json(recommendation, indent=2, exclude_none=True) + b"\n"
    sections, facts = make_sections(evidence, outcome, seed), _facts(evidence, recommendation)
    files = {
        RECOMMENDATION: content,
        "report.html": _render("report.html.jinja", True, outcome, sections, facts),
        "report.md": _render("report.md.jinja", False, outcome, sections, facts),
        "collection.py": collection_code(recommendation, evidence.corpus).encode(),
    }
    for name, written in files.items():
        with atomic_write(directory / name) as file:
            file.write(written)


def _facts(evidence: Evidence, recommendation: Recommendation) -> dict[str, str]:
    return {
        "model": recommendation.model,
        "corpus": f"{len(evidence.corpus.documents):,} documents, {len(evidence.corpus.queries):,} queries",
        "judged by": ranking_findings.judged_by_in_words(evidence),
        "queries": f"{recommendation.tune_queries} chose, {recommendation.report_queries} others report",
        "target": "milvus-lite" if recommendation.target == "lite" else "a Milvus server",
        "constraints": ", ".join(f"{name} {value:g}" for name, value in recommendation.constraints.items()),
        "verdict": recommendation.verdict,
    }


def _render(template: str, autoescape: bool, outcome: Outcome, sections: list[Section], facts: dict[str, str]) -> bytes:
    values: dict[str, Any] = {
        "sentence": outcome.recommendation.sentence,
        "verdict": _VERDICTS[outcome.recommendation.verdict],
        "sections": sections,
        "facts": facts,
        "colours": {"after": COLOURS["after"], "worse": WORSE, "equal": COLOURS["BM25"]},
        "plain": lambda text: escaped(text) or "?",
        "code": code,
        "table": lambda rows: format_rows([[escaped(cell) for cell in row] for row in rows]),
    }
    return render("milvus_optimization.report", template, autoescape=autoescape, **values).encode()
