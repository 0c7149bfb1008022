"""The pictures of the report, as SVG text that stands in its HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_core.base.figures import COLOURS, INK, MODEL_COLOURS, WORSE, Picture, as_label, new_figure, svg
from rag_core.distillation.weight_merging import Curve, Domain, Merge
from rag_core.evaluation.latency import LatencyReport
from rag_core.evaluation.rankers import FileEvaluation, Ranker
from rag_core.evaluation.report import FileReport, Report
from rag_core.evaluation.training_record import TrainingRecord
from rag_core.metrics.ranking import METRICS
from rag_core.metrics.significance import count_wins

_MOST_POINTS = 2000
_LEGEND_COLUMNS = 4  # of names beside each other


def pictures_of_file(file: FileReport, evaluation: FileEvaluation, seed: int) -> list[Picture]:
    """Draw what the rankers did on a file."""
    drawn = [metric_bars(file), change_histogram(evaluation)]
    if "teacher" in evaluation.scores:
        drawn.append(score_scatter(evaluation, seed))
    return drawn


def pictures_of_training(training: TrainingRecord) -> list[Picture]:
    """Draw how "after" was made, as far as that is known."""
    drawn = []
    if training.log:
        drawn.append(training_curve(training.log))
    if training.merges:
        drawn.append(trade_off(training.merges))
    return drawn


def pictures_of_latency(report: Report) -> list[Picture]:
    """Draw what models cost against how well they rank, and how deep reranking helps, where it was measured."""
    if report.latency is None:
        return []
    return [quality_against_latency(report.latency), *(depth_curves(file) for file in report.files)]


def quality_against_latency(latency: LatencyReport) -> Picture:
    """Draw each model's MAP, with its interval, against the median time of a query."""
    figure, axes = new_figure()
    depth = 30 if 30 in latency.depths else latency.depths[-1]
    described = []
    for number, row in enumerate(latency.rows):
        milliseconds = row.cost.reranking[depth].p50
        colour = COLOURS.get(row.name) or MODEL_COLOURS[number % len(MODEL_COLOURS)]
        bounds = np.abs(np.array([row.interval]).T - row.MAP)
        axes.errorbar(
            milliseconds, row.MAP, bounds, fmt="o", color=colour, elinewidth=0.8, capsize=2, label=as_label(row.name)
        )
        described.append(f"{row.name}: MAP {row.MAP:.4f}, {milliseconds:.3g} ms")
    axes.set_xscale("log")
    axes.set_xlabel(f"median ms of a query with {depth} candidates")
    axes.set_ylabel("MAP, with 95 % interval")
    axes.legend(frameon=False, fontsize=8)
    said = f"Quality against latency, {latency.path}. {'; '.join(described)}"
    return Picture("Quality against latency", svg(figure, said))


def depth_curves(file: FileReport) -> Picture:
    """Draw each ranker's MAP by how many candidates it reranks."""
    figure, axes = new_figure()
    described = []
    for ranker, results in (file.depth or {}).items():
        depths, values = [result.depth for result in results], [result.MAP for result in results]
        bounds = np.abs(np.array([result.interval for result in results]).T - values)
        axes.errorbar(
            depths, values, bounds, marker="o", color=COLOURS[ranker], elinewidth=0.8, capsize=2, label=ranker
        )
        described.append(
            f"{ranker}: {', '.join(f'{value:.4f} at {depth}' for depth, value in zip(depths, values, strict=True))}"
        )
    axes.set_xscale("log")
    axes.set_xticks(depths, map(str, depths))
    axes.minorticks_off()
    axes.set_xlabel("candidates reranked")
    axes.set_ylabel("MAP, with 95 % interval")
    axes.legend(frameon=False)
    said = f"MAP by depth, {file.path}. {'; '.join(described)}"
    return Picture("How deep to rerank", svg(figure, said))


def metric_bars(file: FileReport) -> Picture:
    """Draw the means of every ranker, metric by metric, with their intervals."""
    figure, axes = new_figure()
    means, intervals = file.means, file.intervals
    width = 0.84 / len(means)
    size = 8 if len(means) <= _LEGEND_COLUMNS else 6  # of the figures, which are as wide as a bar
    for i, ranker in enumerate(means):
        heights = np.array([means[ranker][metric] for metric in METRICS])
        bounds = np.array([intervals[ranker][metric] for metric in METRICS]).T
        places = np.arange(len(METRICS)) + i * width
        axes.bar(places, heights, width * 0.94, label=ranker, color=COLOURS[ranker])
        axes.errorbar(places, heights, np.abs(bounds - heights), fmt="none", ecolor="#333", elinewidth=0.8, capsize=2)
        for place, height, top in zip(places, heights, bounds[1], strict=True):
            # Without its "0.", a figure is no wider than its bar.
            text = f"{height:.3f}".removeprefix("0")
            axes.annotate(text, (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=size)
    axes.set_xticks(np.arange(len(METRICS)) + 0.42 - width / 2, METRICS)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("mean, with 95 % interval")
    columns = len(means) if len(means) <= _LEGEND_COLUMNS else 3
    above = 1.17 if columns == len(means) else 1.3
    axes.legend(ncols=columns, loc="upper center", bbox_to_anchor=(0.5, above), frameon=False, columnspacing=1.2)
    said = (", ".join(f"{ranker} {by_metric[m]:.3f}" for ranker, by_metric in means.items()) for m in METRICS)
    described = "; ".join(f"{metric}: {figures}" for metric, figures in zip(METRICS, said, strict=True))
    return Picture("What each ranker reaches", svg(figure, f"{file.path}, means. {described}"))


def change_histogram(evaluation: FileEvaluation) -> Picture:
    """Draw how many queries gained or lost how much average precision from before to after."""
    before, after = evaluation.values["before"]["MAP"], evaluation.values["after"]["MAP"]
    change, wins = after - before, count_wins(before, after)
    figure, axes = new_figure()
    axes.hist(change[change > 0], bins=np.linspace(0, 1, 21).tolist(), color=COLOURS["after"])
    axes.hist(change[change < 0], bins=np.linspace(-1, 0, 21).tolist(), color=WORSE)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("change of average precision, after minus before")
    axes.set_ylabel("queries")
    counts = f"{wins.better} queries better, {wins.worse} worse; not drawn: {wins.same} the same"
    axes.set_title(counts)
    described = f"{evaluation.path}, change of average precision. {counts}"
    return Picture("What changed, query by query", svg(figure, described))


def score_scatter(evaluation: FileEvaluation, seed: int) -> Picture:
    """Draw the student's score against the teacher's, before and after, for up to 2,000 pairs."""
    teacher = np.concatenate(evaluation.scores["teacher"])
    chosen = np.random.default_rng(seed).permutation(len(teacher))[:_MOST_POINTS]
    figure, (left, right) = new_figure(columns=2)
    titles = []
    shown: tuple[tuple[Any, Ranker], ...] = ((left, "before"), (right, "after"))
    for axes, ranker in shown:
        student = np.concatenate(evaluation.scores[ranker])
        axes.scatter(
            teacher[chosen], student[chosen], s=7, alpha=0.35, linewidths=0, color=COLOURS[ranker], rasterized=True
        )
        titles.append(f"{ranker}: {_correlation(teacher, student)}")
        axes.set_title(titles[-1])
        axes.set_xlabel("teacher's score")
        axes.set_ylabel("student's score")
    described = f"{evaluation.path}, {len(chosen)} of {len(teacher)} pairs. {'; '.join(titles)}"
    return Picture("Does the student score as the teacher does?", svg(figure, described), wide=True)


def training_curve(log: Sequence[Mapping[str, float]]) -> Picture:
    """Draw the loss by step, on training data and on unseen data, and what dev files say, where that was measured."""
    figure, axes = new_figure()
    described = []
    measured = (
        ("loss", "training", COLOURS["after"]),
        ("eval_loss", "unseen", INK),
        ("eval_dev", "dev files", COLOURS["before"]),
    )
    for key, label, colour in measured:
        steps = [entry["step"] for entry in log if key in entry]
        losses = [entry[key] for entry in log if key in entry]
        if losses:
            drawn_on = axes.twinx() if key == "eval_dev" else axes
            drawn_on.plot(
                steps, losses, label=label, color=colour, linewidth=1.4, marker="." if len(losses) < 20 else None
            )
            described.append(f"{label}: from {losses[0]:.4g} to {losses[-1]:.4g} at step {steps[-1]}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    figure.legend(frameon=False, loc="outside upper right", ncols=3)
    return Picture("Loss by step", svg(figure, f"Loss by step. {'; '.join(described)}"))


def trade_off(merges: Mapping[str, Merge]) -> Picture:
    """Draw in-domain quality against the change out of domain, along the line of `weight_merging`.

    One line per model, its chosen alpha ringed. Where a model has no out-of-domain files, in-domain quality by alpha.

    Args:
        merges: by the name of the model.
    """
    figure, axes = new_figure()
    forgetting = all(_curves(merge, "out-of-domain") for merge in merges.values())
    described = []
    for number, (model, merge) in enumerate(merges.items()):
        inside = _mean_values(merge, "in-domain")
        outside = _mean_values(merge, "out-of-domain") if forgetting else None
        across = np.array(merge.alphas) if outside is None else outside - outside[0]
        colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
        axes.plot(
            across, inside, marker="o", markersize=3, linewidth=1.2, label=as_label(model), color=colour, zorder=2
        )
        chosen = merge.alphas.index(merge.alpha)
        axes.scatter(across[chosen], inside[chosen], s=90, facecolors="none", edgecolors=colour, zorder=3)
        for alpha, x, y in zip(merge.alphas, across, inside, strict=True) if forgetting else ():
            axes.annotate(f"{alpha:g}", (x, y), (4, -8), textcoords="offset points", fontsize=7, color=colour)
        described.append(f"{model}: alpha {merge.alpha:g}, in-domain {inside[chosen]:.4f}")
    if forgetting:
        axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    measures = " / ".join(dict.fromkeys(c.measure for merge in merges.values() for c in _curves(merge, "in-domain")))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("mean change of the out-of-domain dev files" if forgetting else "alpha")
    axes.set_ylabel(f"in-domain dev files, {as_label(measures)}")
    axes.legend(frameon=False)
    what = "against out-of-domain, at each alpha" if forgetting else "by alpha"
    described_as = f"In-domain {what}. Chosen: {'; '.join(described)}"
    return Picture("How much of the training is kept", svg(figure, described_as))


def _curves(merge: Merge, domain: Domain) -> list[Curve]:
    return [curve for curve in merge.files if curve.domain == domain]


def _mean_values(merge: Merge, domain: Domain) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.mean([curve.values for curve in _curves(merge, domain)], axis=0)
    return values


def _correlation(teacher: npt.NDArray[np.float64], student: npt.NDArray[np.float64]) -> str:
    from scipy.stats import spearmanr

    if np.ptp(teacher) == 0 or np.ptp(student) == 0:
        return "no rank correlation, all scores are alike"
    return f"rank correlation {spearmanr(teacher, student).statistic:.3f}"
