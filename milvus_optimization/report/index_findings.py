"""What the report says of indexes and vectors: what they lose, what they cost, what could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from milvus_optimization.indexes.pareto import EqualRecallPair, milliseconds, pareto_front
from milvus_optimization.records import IndexTrial
from milvus_optimization.report import plots
from milvus_optimization.report.evidence import Evidence
from milvus_optimization.report.index_choice import megabytes, tune_loss
from milvus_optimization.report.recommendation import Outcome
from milvus_optimization.report.section import Section
from milvus_optimization.report.waterfall import steps
from milvus_optimization.report.wording import difference_text, index_name

_MOST_REASONS = 30
_STATUSES = {
    "unsupported": "there is no such index there",
    "ignored": "what was built is not what was asked",
    "failed": "the trial failed",
    "skipped": "nothing more was to be gained",
}


def lost_and_won(evidence: Evidence, outcome: Outcome, seed: int) -> Section:
    """Say what each step takes or brings."""
    found = steps(evidence, outcome, seed)
    rows = [["", "nDCG@10", "change [95 % interval]"]]
    for step in found:
        changed = difference_text(step.change) if step.change else f"{step.value:+.4f}"
        rows.append([step.name, *((f"{step.value:.4f}", "") if step.is_level else ("", changed))])
    note = (
        "Each step is measured by itself on the report half: another model by exact search, the representation by "
        "exact search over what the index holds, the index over the same vectors, fusion and reranker over exact "
        "search. The last row is their sum; apply measures it in Milvus."
    )
    return Section("What is lost and won where", [note], rows, pictures=[plots.waterfall(found)])


def recall_against_loss(trials: Sequence[IndexTrial], outcome: Outcome, pair: EqualRecallPair | None) -> Section | None:
    """Say what recall does not: how much quality two indexes of equal recall keep."""
    picture = plots.recall_against_loss(trials, outcome.index.trial, pair)
    if picture is None:
        return None
    return Section("Recall against loss", [_pair_in_words(pair)], pictures=[picture])


def _pair_in_words(pair: EqualRecallPair | None) -> str:
    if pair is None:
        return "No two kinds of index in this sweep have about the same recall below .98."
    better, worse, found = pair.better, pair.worse, pair.difference
    told = (
        f"{index_name(better)} and {index_name(worse)} have about the same recall@{better.k}, {better.recall:.3f} and "
        f"{worse.recall:.3f}. In nDCG@10 the first is {difference_text(found)} above the second: better on "
        f"{found.better} queries, worse on {found.worse}."
    )
    if found.low > 0:
        return f"{told} Whoever optimises recall takes them for equals."
    return f"{told} That may be chance."


def quality_and_cost(trials: Sequence[IndexTrial], outcome: Outcome) -> Section:
    """Show what quality costs, and the trials that no other beats."""
    chosen, flat = outcome.index.trial, outcome.index.flat
    drawn = [plots.quality_against_latency(trials, chosen), plots.quality_against_size(trials, chosen)]
    shown = _worth_having(trials, outcome)
    rows = [["index", "recall", "loss on the tune half", "loss [95 % interval]", "ms, p50 and p95", "MB"]]
    for trial in shown:
        rows.append(
            [
                index_name(trial),
                _figure(trial.recall, ".4f"),
                f"{0.0 - tune_loss(trial, flat):+.4f}",
                difference_text(trial.loss) if trial.loss else "",
                ", ".join(f"{ms:.3g}" for ms in (milliseconds(trial), trial.cpu_ms_p95 or trial.wall_ms_p95) if ms),
                _figure(megabytes(trial), ".3g"),
            ]
        )
    given = ", ".join(f"{name} {value:g}" for name, value in outcome.recommendation.constraints.items())
    notes = [
        f"Of {len(trials)} measured settings, {outcome.index.measured} are of indexes that the target has, and "
        f"{outcome.index.kept} of these keep the constraints ({given}) on the tune half. The cheapest is taken; FLAT, "
        "where it is within them and answers within a millisecond. The table has the choice, FLAT, and what no other "
        "setting beats in quality and time.",
        f"Measured in {chosen.backend} {chosen.backend_version} on {chosen.queries} queries, one thread. "
        + (
            "faiss runs in this process: a Milvus adds its own time to each query."
            if chosen.backend == "faiss"
            else "Times are of the clock."
            if chosen.backend == "server"
            else "milvus-lite tells no times."
        ),
    ]
    if any(trial.noisy for trial in shown):
        notes.append(f"Noisy, two passes differ: {', '.join(index_name(t) for t in shown if t.noisy)}.")
    pictures = [picture for picture in drawn if picture is not None]
    return Section("Quality, time and size", notes, rows, shown.index(chosen) + 1, pictures)


def _worth_having(trials: Sequence[IndexTrial], outcome: Outcome) -> list[IndexTrial]:
    points = [(trial.ndcg or 0.0, milliseconds(trial) or megabytes(trial) or 0.0) for trial in trials]
    front = [trials[place] for place in pareto_front(points)]
    ids = {trial.trial_id for trial in [outcome.index.flat, outcome.index.trial, outcome.index.cheapest, *front]}
    shown = [trial for trial in trials if trial.trial_id in ids]
    return sorted(shown, key=lambda trial: (milliseconds(trial) or 0.0, megabytes(trial) or 0.0))


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def vector_variants(evidence: Evidence, outcome: Outcome) -> Section | None:
    """Show what fewer bits and dimensions lose with exact search."""
    own = [variant for variant in evidence.variants if variant.model == outcome.recommendation.model]
    if not own:
        return None
    rows = [["vectors", "rescored", "dimensions", "bytes", "overlap@10", "nDCG@10", "loss [95 % interval]"]]
    for variant in own:
        rows.append(
            [
                variant.variant,
                f"{variant.rescore} per result" if variant.rescore else "",
                str(variant.dimensions),
                f"{variant.bytes_per_vector:,}",
                f"{variant.overlap:.3f}",
                f"{variant.ndcg:.4f}",
                difference_text(variant.loss),
            ]
        )
    names = [variant.variant for variant in own]
    held = outcome.recommendation.variant
    note = f"Exact search over other forms of the vectors of {outcome.recommendation.model}."
    return Section("Fewer bits, fewer dimensions", [note], rows, names.index(held) + 1 if held in names else 0)


def not_measured(evidence: Evidence) -> Section | None:
    """List what has no figures, and why."""
    counts = Counter(
        (trial.backend, trial.index, trial.status, trial.reason) for trial in evidence.index if trial.status != "ok"
    )
    if not counts:
        return None
    rows = [["backend", "index", "status", "settings", "reason"]]
    for (backend, index, status, reason), count in counts.most_common(_MOST_REASONS):
        rows.append([backend, index, status, str(count), reason or _STATUSES.get(status, "")])
    left_out = len(counts) - _MOST_REASONS
    notes = [f"{left_out} further reasons stand in the index trials."] if left_out > 0 else []
    return Section("What was not supported, was ignored, or failed", notes, rows)
