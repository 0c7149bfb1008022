"""The pictures of the report, as SVG text that stands in its HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from milvus_optimization.indexes.pareto import EqualRecallPair, milliseconds, pareto_front
from milvus_optimization.records import IndexTrial
from milvus_optimization.report.index_choice import megabytes
from milvus_optimization.report.waterfall import Step
from milvus_optimization.report.wording import index_name
from rag_core.base.figures import COLOURS, INK, MODEL_COLOURS, NEUTRAL, WORSE, Picture, as_label, new_figure, svg

_FAMILY_COLOURS = (COLOURS["before"], COLOURS["teacher"], *MODEL_COLOURS)
_MOST_LOSS = 0.1  # of what is drawn: what loses more is of no use, and would press all others together
_LEAST_LOG = 1e-4  # ms and MB are drawn on logarithmic axes, which have no 0


def quality_against_latency(trials: Sequence[IndexTrial], chosen: IndexTrial) -> Picture | None:
    """Draw nDCG against the median time of a query; `None` where no trial tells times."""
    unit = "of CPU" if chosen.backend == "faiss" else "of the clock"
    return _quality_against(trials, chosen, milliseconds, f"median ms {unit} of a query, {chosen.backend}", "latency")


def quality_against_size(trials: Sequence[IndexTrial], chosen: IndexTrial) -> Picture | None:
    """Draw nDCG against the size of the index; `None` where no trial tells it."""
    return _quality_against(trials, chosen, megabytes, "MB of the index", "size")


def _quality_against(
    trials: Sequence[IndexTrial],
    chosen: IndexTrial,
    cost_of: Callable[[IndexTrial], float | None],
    label: str,
    what: str,
) -> Picture | None:
    found = [(trial, cost, trial.ndcg) for trial in trials if (cost := cost_of(trial)) and trial.ndcg is not None]
    if not found:
        return None
    least = max(quality for *_, quality in found) - _MOST_LOSS
    drawn = [one for one in found if one[2] >= least]
    left_out = f", {len(found) - len(drawn)} below are left out" if len(found) > len(drawn) else ""
    figure, axes = new_figure()
    points = [(quality, max(cost, _LEAST_LOG)) for _, cost, quality in drawn]
    front = [points[place] for place in pareto_front(points)]
    axes.plot([cost for _, cost in front], [quality for quality, _ in front], color=INK, linewidth=0.8, zorder=1)
    _scatter(axes, [trial for trial, *_ in drawn], [cost for _, cost in points], [quality for quality, _ in points])
    _mark(axes, chosen, cost_of(chosen), chosen.ndcg)
    _logarithmic(axes)
    axes.set_xlabel(label)
    axes.set_ylabel("nDCG@10, report half")
    _legend(axes)
    told = "; ".join(f"{index_name(drawn[p][0])}: {drawn[p][2]:.4f} at {drawn[p][1]:.3g}" for p in pareto_front(points))
    return Picture(
        f"Quality against {what}{left_out}", svg(figure, f"nDCG@10 against {label}. The Pareto front: {told}")
    )


def recall_against_loss(
    trials: Sequence[IndexTrial], chosen: IndexTrial, pair: EqualRecallPair | None
) -> Picture | None:
    """Draw what each index loses in nDCG against its recall, with the pair that recall cannot tell apart."""
    drawn = [(trial, trial.recall, trial.loss) for trial in trials if trial.recall is not None and trial.loss]
    if not drawn:
        return None
    figure, axes = _wide_figure(3.9)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8, zorder=0)
    for _, recall, loss in drawn:
        axes.plot([recall, recall], [loss.low, loss.high], color=NEUTRAL, linewidth=0.7, zorder=1)
    losses = [loss.difference for *_, loss in drawn]
    _scatter(axes, [trial for trial, *_ in drawn], [recall for _, recall, _ in drawn], losses)
    _mark(axes, chosen, chosen.recall, chosen.loss.difference if chosen.loss else None)
    if pair and pair.better.recall is not None and pair.worse.recall is not None:
        assert pair.better.loss and pair.worse.loss  # of every trial with status ok
        places = [pair.worse.recall, pair.better.recall], [pair.worse.loss.difference, pair.better.loss.difference]
        axes.plot(*places, color=WORSE, linewidth=1.4, zorder=2)
        axes.scatter(*places, s=90, facecolors="none", edgecolors=WORSE, linewidths=1.4, zorder=3)
        middle = sum(places[0]) / 2, sum(places[1]) / 2
        text = f"equal recall,\n{pair.difference.difference:.3f} apart"
        place, white = {"textcoords": "offset points", "va": "center"}, {"color": "white", "alpha": 0.8, "pad": 1}
        axes.annotate(text, middle, (11, 0), fontsize=8, color=WORSE, bbox=white, zorder=5, **place)
    axes.set_xlabel(f"recall@{chosen.k}")
    axes.set_ylabel("change of nDCG@10 [95 % interval]")
    _legend(axes)
    told = f"{len(drawn)} settings. "
    if pair:
        told += f"{index_name(pair.better)} and {index_name(pair.worse)} have the same recall."
    return Picture("Recall against loss", svg(figure, f"Change of nDCG@10 against recall. {told}"), wide=True)


def waterfall(steps: Sequence[Step]) -> Picture:
    """Draw what each step takes or brings, from the best model's exact search to all of it."""
    figure, axes = _wide_figure(2.9)
    reached, names = 0.0, []
    for place, step in enumerate(steps):
        names.append(as_label(step.name))
        colour = NEUTRAL if step.is_level else COLOURS["after"] if step.value >= 0 else WORSE
        bottom = 0.0 if step.is_level else reached
        axes.bar(place, step.value, 0.5, bottom=bottom, color=colour)
        reached = step.value if step.is_level else reached + step.value
        top = max(reached, bottom)
        text = f"{step.value:.3f}" if step.is_level else f"{step.value:+.4f}"
        axes.annotate(text, (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    levels = [sum(s.value for s in steps[: i + 1] if not s.is_level) + steps[0].value for i in range(len(steps))]
    low, high = min(levels), max([*levels, *(step.value for step in steps if step.is_level)])
    room = max(high - low, 0.02)
    axes.set_ylim(max(0, low - room), high + 0.25 * room)
    axes.set_ylabel("nDCG@10, not from 0" if low > room else "nDCG@10")
    told = "; ".join(f"{step.name} {step.value:+.4f}" for step in steps)
    return Picture("What is lost and won where", svg(figure, f"nDCG@10 step by step. {told}"), wide=True)


def _wide_figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.8, height), layout="constrained")
    return figure, figure.subplots()


def _logarithmic(axes: Any) -> None:
    """Draw the horizontal axis by ratios, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scatter(axes: Any, trials: Sequence[IndexTrial], across: Sequence[float], up: Sequence[float]) -> None:
    families = sorted({trial.index for trial in trials} - {"FLAT"})
    colours = {family: _FAMILY_COLOURS[i % len(_FAMILY_COLOURS)] for i, family in enumerate(families)}
    for family in ["FLAT", *families]:
        own = [i for i, trial in enumerate(trials) if trial.index == family]
        if own:
            places = [across[i] for i in own], [up[i] for i in own]
            axes.scatter(*places, s=18, color=colours.get(family, INK), label=as_label(family), zorder=2)


def _mark(axes: Any, chosen: IndexTrial, across: float | None, up: float | None) -> None:
    if across is not None and up is not None:
        axes.scatter(
            [across],
            [up],
            marker="*",
            s=150,
            facecolors="none",
            edgecolors=INK,
            linewidths=1.1,
            label="the choice",
            zorder=4,
        )


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
