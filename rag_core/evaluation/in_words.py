"""What a report comes to, in words: one sentence per file and per corpus, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_core.evaluation.rankers import Domain
from rag_core.evaluation.report import FileReport, Report
from rag_core.evaluation.retrieval import Comparison, SearchReport
from rag_core.metrics.significance import Change

Outcome = Literal["gain", "loss", "unclear"]
_PLACES: dict[Domain, str] = {"in-domain": "In its domain", "out-of-domain": "Out of its domain"}
_UNCLEAR = "shows no difference beyond chance"
_VERBS: dict[Literal["rerank", "search"], dict[Outcome, str]] = {
    "rerank": {"gain": "reranks better", "loss": "reranks worse", "unclear": _UNCLEAR + " when it reranks"},
    "search": {"gain": "finds more", "loss": "finds less", "unclear": _UNCLEAR + " when it searches"},
}


@dataclass(frozen=True)
class _Finding:
    """A sentence, and what it says.

    Attributes:
        where: e.g. "search in scifact".
        retrieves: whether it is about search.
    """

    sentence: str
    outcome: Outcome
    where: str
    retrieves: bool


def in_words(report: Report) -> list[str]:
    """Return the sentences: files, corpora, then what to do, unless `mixing_words` says that of a first stage."""
    findings = [_of_file(file) for file in report.files] + [_of_search(search) for search in report.retrieval]
    beside = [sentence for search in report.retrieval for sentence in _beside(search)]
    advice = [] if report.mixing else _advice(findings)
    return [*(finding.sentence for finding in findings), *beside, *advice]


def outcome(change: Change) -> Outcome:
    """Return on which side of 0 the interval of a change lies."""
    if change.low > 0:
        return "gain"
    return "loss" if change.high < 0 else "unclear"


def _of_file(file: FileReport) -> _Finding:
    change, name = file.change_to_after["before"]["MAP"], Path(file.path).name
    found = outcome(change)
    means = (file.means["before"]["MAP"], file.means["after"]["MAP"])
    sentence = f"{_PLACES[file.domain]} ({name}) the trained student {_VERBS['rerank'][found]}: "
    return _Finding(f"{sentence}MAP {_figures(*means, change)}.", found, f"reranking on {name}", False)


def _of_search(search: SearchReport) -> _Finding:
    comparison = search.compared("after", "before")
    assert comparison is not None  # both always search
    ranked, recall = (outcome(comparison.changes[metric]) for metric in ("NDCG@10", "Recall@100"))
    sentence = f"{_PLACES[search.domain]} ({search.name}, {search.documents:,} passages) the trained embedder "
    sentence += f"{_VERBS['search'][ranked]}: NDCG@10 {_of_means(search, comparison)}"
    if recall != "unclear":
        change = comparison.changes["Recall@100"]
        means = (search.means["before"]["Recall@100"], search.means["after"]["Recall@100"])
        more = "more" if recall == "gain" else "fewer"
        sentence += f"; {more} of the relevant passages are among the first 100: recall {_figures(*means, change)}"
    worst: Outcome = "loss" if "loss" in (ranked, recall) else "gain" if "gain" in (ranked, recall) else "unclear"
    return _Finding(f"{sentence}.", worst, f"search in {search.name}", True)


def _beside(search: SearchReport) -> list[str]:
    """Say where BM25, alone or beside the embedder, is the better choice."""
    found = []
    words = search.compared("after", "BM25")
    hybrid = search.compared("hybrid after", "after")
    if words and outcome(words.changes["NDCG@10"]) == "loss":
        found.append(f"In {search.name} BM25 alone finds more than the trained embedder: {_of_pair(search, words)}.")
    if hybrid and (what := outcome(hybrid.changes["NDCG@10"])) != "unclear":
        better = "more" if what == "gain" else "less"
        found.append(
            f"In {search.name} the hybrid with BM25 finds {better} than the trained embedder alone: "
            f"{_of_pair(search, hybrid)}."
        )
    return found


def _of_pair(search: SearchReport, comparison: Comparison) -> str:
    old, new = (search.means[ranker]["NDCG@10"] for ranker in (comparison.old, comparison.new))
    return f"{comparison.old} {old:.3f}, {comparison.new} {new:.3f} NDCG@10, {_interval(comparison.changes['NDCG@10'])}"


def _of_means(search: SearchReport, comparison: Comparison) -> str:
    old, new = (search.means[ranker]["NDCG@10"] for ranker in (comparison.old, comparison.new))
    return _figures(old, new, comparison.changes["NDCG@10"])


def _figures(before: float, after: float, change: Change) -> str:
    return f"{before:.3f} -> {after:.3f}, {_interval(change)}"


def _interval(change: Change) -> str:
    return f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _advice(findings: Sequence[_Finding]) -> list[str]:
    gains, losses = ([one for one in findings if one.outcome == outcome] for outcome in ("gain", "loss"))
    searched = any(finding.retrieves for finding in findings)
    less = "train again with a smaller --merge, e.g. 0.5" if searched else "train with a lower --learning_rate"
    if losses and gains:
        advice = (
            f"use the trained model where it gains ({_listed(gains)}), and the one before training where it loses "
            f"({_listed(losses)}). For one model that does both, {less}, and measure again."
        )
    elif losses:
        advice = f"keep the model before training: the trained one only loses. Or {less}."
    elif not gains:
        advice = (
            "these queries show no reason to change models. More labelled queries would narrow the intervals; "
            "check_teacher tells whether the teacher has a lead to learn from."
        )
    elif any(finding.retrieves for finding in gains):
        advice = (
            "deploy the trained model. Embed the corpus again with it: vectors of the model before do not fit its "
            "queries."
        )
    elif searched:
        advice = "rerank with the trained model; for search, these queries show no reason to embed a corpus again."
    else:
        advice = "use the trained model in the place of the one before."
    return [f"What to do: {advice}"] if findings else []


def _listed(findings: Sequence[_Finding]) -> str:
    return ", ".join(finding.where for finding in findings)
