"""The pictures of the report, as SVG text that stands in its HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_core.evaluation import FileEvaluation
from rag_core.metrics import METRICS

COLOURS: dict[str, str] = {"BM25": "#9aa5b1", "before": "#5b8def", "after": "#1f9d61", "teacher": "#d98a29"}

_MOST_POINTS = 2000


def metric_bars(file: Mapping[str, Any]) -> str:
    """Draw the means of every ranker, metric by metric, with their intervals."""
    figure, axes = _figure()
    rankers = list(file["means"])
    width = 0.8 / len(rankers)
    for i, ranker in enumerate(rankers):
        heights = np.array([file["means"][ranker][metric] for metric in METRICS])
        bounds = np.array([file["intervals"][ranker][metric] for metric in METRICS]).T
        places = np.arange(len(METRICS)) + i * width
        axes.bar(places, heights, width * 0.94, label=ranker, color=COLOURS[ranker])
        axes.errorbar(places, heights, np.abs(bounds - heights), fmt="none", ecolor="#333", elinewidth=0.8, capsize=2)
        for place, height, top in zip(places, heights, bounds[1], strict=True):
            axes.annotate(f"{height:.3f}", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(np.arange(len(METRICS)) + 0.4 - width / 2, METRICS)
    axes.set_ylim(0, 1.06)
    axes.set_ylabel("mean, with 95 % interval")
    axes.legend(ncols=len(rankers), loc="upper center", bbox_to_anchor=(0.5, 1.16), frameon=False, fontsize=8)
    return _svg(figure)


def change_histogram(evaluation: FileEvaluation) -> str:
    """Draw how many queries gained or lost how much average precision from before to after."""
    change = evaluation.values["after"]["MAP"] - evaluation.values["before"]["MAP"]
    change = change[np.isfinite(change)]
    figure, axes = _figure()
    changed = change[change != 0]
    axes.hist(changed[changed > 0], bins=np.linspace(0, 1, 21).tolist(), color=COLOURS["after"])
    axes.hist(changed[changed < 0], bins=np.linspace(-1, 0, 21).tolist(), color="#c8553d")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("change of average precision, after minus before")
    axes.set_ylabel("queries")
    axes.set_title(
        f"{(change > 0).sum()} queries better, {(change < 0).sum()} worse; not drawn: {(change == 0).sum()} the same",
        fontsize=9,
    )
    return _svg(figure)


def score_scatter(evaluation: FileEvaluation, seed: int) -> str:
    """Draw the student's score against the teacher's, before and after, for up to 2,000 pairs."""
    from scipy.stats import spearmanr

    teacher = np.concatenate([np.asarray(row) for row in evaluation.scores["teacher"]])
    chosen = np.random.default_rng(seed).permutation(len(teacher))[:_MOST_POINTS]
    figure, axes = _figure(columns=2)
    for place, ranker in zip(axes, ("before", "after"), strict=True):
        student = np.concatenate([np.asarray(row) for row in evaluation.scores[ranker]])  # type: ignore[index]
        place.scatter(teacher[chosen], student[chosen], s=5, alpha=0.35, linewidths=0, color=COLOURS[ranker])
        agreement = spearmanr(teacher, student).statistic
        place.set_title(f"{ranker}: rank correlation {agreement:.3f}", fontsize=9)
        place.set_xlabel("teacher's score")
        place.set_ylabel("student's score")
    return _svg(figure)


def training_curve(log: Sequence[Mapping[str, float]]) -> str:
    """Draw the loss by step, on training data and on unseen data where it was measured."""
    figure, axes = _figure()
    for key, label, colour in (("loss", "training", COLOURS["before"]), ("eval_loss", "unseen", COLOURS["teacher"])):
        points = [(entry["step"], entry[key]) for entry in log if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def trade_off(merges: Sequence[Mapping[str, Any]]) -> str:
    """Draw in-domain quality against the change out of domain, from before (alpha 0) to after training (alpha 1).

    One line a model, its chosen alpha marked. Without out-of-domain files, in-domain quality by alpha.
    """
    figure, axes = _figure()
    for number, merge in enumerate(merges):
        inside = _mean_values(merge, "in-domain")
        outside = _mean_values(merge, "out-of-domain")
        across = np.array(merge["alphas"]) if outside is None else outside - outside[0]
        if inside is None:
            continue
        (line,) = axes.plot(across, inside, marker="o", markersize=3, linewidth=1.2, label=merge["name"], zorder=2)
        chosen = list(merge["alphas"]).index(merge["alpha"]) if merge["alpha"] in merge["alphas"] else None
        if chosen is not None:
            axes.scatter(across[chosen], inside[chosen], s=90, facecolors="none", edgecolors=line.get_color(), zorder=3)
        for i in (0, 5, 10) if number == 0 else (10,):
            axes.annotate(
                f"alpha {merge['alphas'][i]:g}", (across[i], inside[i]), (4, -9), textcoords="offset points", fontsize=7
            )
    axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    outside_measured = any(_mean_values(merge, "out-of-domain") is not None for merge in merges)
    axes.set_xlabel("out-of-domain dev files, mean change" if outside_measured else "alpha")
    axes.set_ylabel("in-domain dev file")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _mean_values(merge: Mapping[str, Any], domain: str) -> npt.NDArray[np.float64] | None:
    values = [file["values"] for file in merge["files"] if file["domain"] == domain]
    return np.mean(values, axis=0) if values else None


def _figure(columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    return figure, figure.subplots(ncols=columns)


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "report"}):  # equal figures give equal bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
