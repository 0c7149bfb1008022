"""Does an exported student rank as its source does? Both score the same pairs, and the metrics are compared."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rag_core.base.records import RankingSample
from rag_core.base.tables import format_difference
from rag_core.engines.canary import score_once
from rag_core.engines.exported_engine import Format, Precision, load_exported
from rag_core.engines.identity import ModelInfo
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Floats, Pair
from rag_core.metrics.ranking import METRICS, MetricName, means, measure, measured
from rag_core.metrics.significance import Change, paired_change
from rag_core.release.graph import PlainGraph
from rag_core.release.quantization import parts_of
from rag_core.scoring.samples import spread_pairs

_DIAGNOSED_PAIRS = 256
_LARGEST_DIFFERENCE: dict[Precision, float] = {"fp32": 0.01, "int8": 1.0}  # of a score, in standard deviations
_LEAST_TAU = 0.9  # where there are no labels; the same order but for near ties

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Proof:
    """How far an export is from its source, over the candidates of some queries.

    Attributes:
        kendall_tau: mean over queries of tau-b between both scores; 1 where all rankings are the same.
        largest_difference: of two scores of a pair, in the unit of the score.
        score_deviation: standard deviation of the source's scores, to see that difference against.
        changes: export minus source, by metric; empty where nothing is labelled.
        values: means, by "source" and "export" and by metric.
    """

    queries: int
    pairs: int
    kendall_tau: float
    largest_difference: float
    score_deviation: float
    changes: dict[MetricName, Change]
    values: dict[str, dict[MetricName, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[list[str]]:
        """Return a table."""
        rows = [["", "source", "export", "export - source [95 %]"]]
        for metric, change in self.changes.items():
            source, export = (f"{self.values[which][metric]:.4f}" for which in ("source", "export"))
            rows.append([metric, source, export, format_difference(change.difference, change.low, change.high)])
        rows.append(["Kendall's tau", "", f"{self.kendall_tau:.4f}", f"{self.queries} queries, {self.pairs} pairs"])
        deviation = f"of a standard deviation of {self.score_deviation:.4g}"
        return [*rows, ["largest difference", "", f"{self.largest_difference:.4g}", deviation]]

    def fault(self, precision: Precision, max_map_drop: float) -> str | None:
        """Return why the export is refused, `None` if it ranks as its source; warn if the data cannot tell.

        Args:
            max_map_drop: largest loss of MAP that is accepted, if there are labels.
        """
        change = self.changes.get("MAP")
        if change and change.difference < -max_map_drop:
            return (
                f"the export loses {-change.difference:.4f} of MAP [{-change.high:.4f}, {-change.low:.4f}], and "
                f"--max_map_drop allows {max_map_drop:g}"
            )
        if change and change.low < -max_map_drop:
            logger.warning(
                "WARNING: on these %d queries the loss of MAP may be %.4f, more than --max_map_drop %g; "
                "pass a --dataset with more labelled queries",
                *(self.queries, -change.low, max_map_drop),
            )
        if not change:
            logger.warning(
                "WARNING: fewer than 2 queries have a positive and a negative, so MAP is not measured: the order of "
                "all candidates decides (Kendall's tau must be at least %g)",
                _LEAST_TAU,
            )
        if not change and not self.kendall_tau >= _LEAST_TAU:
            return (
                f"the export ranks candidates differently (Kendall's tau {self.kendall_tau:.3f}, largest difference "
                f"{self.largest_difference:.3g} where scores have a standard deviation of {self.score_deviation:.3g})"
            )
        # A monotone mistake, such as a sigmoid too many, leaves every ranking as it is.
        if self.largest_difference > _LARGEST_DIFFERENCE[precision] * self.score_deviation:
            return (
                f"scores of the export differ by up to {self.largest_difference:.3g} in {precision}, where "
                f"the source's have a standard deviation of {self.score_deviation:.3g}"
            )
        return None


def prove(
    source: ModelInfo, export: Path, samples: Sequence[RankingSample], max_length: int | None, seed: int
) -> Proof:
    """Score the candidates of samples with both.

    Args:
        source: the student, which runs in float32.
        samples: one of them at least has two candidates.
        max_length: tokens that both read, at most; `None`: as many as the source does.

    Raises:
        EngineError: one of them cannot be loaded.
    """
    from scipy.stats import kendalltau

    pairs = [(sample.query, passage) for sample in samples for passage, _ in sample.passages()]
    scores = {
        "source": _source_scores(source, pairs, max_length),
        "export": score_once(load_exported(export, max_length), pairs),
    }
    ends = np.cumsum([sum(1 for _ in sample.passages()) for sample in samples])[:-1]
    rows: dict[str, list[Floats]] = {which: list(np.split(found, ends)) for which, found in scores.items()}
    taus = [
        kendalltau(one, other).statistic
        for one, other in zip(rows["source"], rows["export"], strict=True)
        if len(one) > 1
    ]
    per_query = {which: measure(samples, found) for which, found in rows.items()}
    labelled = measured(per_query["source"]) > 1
    return Proof(
        queries=len(samples),
        pairs=len(pairs),
        kendall_tau=float(np.nan_to_num(taus).mean()),
        largest_difference=float(np.abs(scores["source"] - scores["export"]).max()),
        score_deviation=float(scores["source"].std()),
        changes={m: paired_change(per_query["source"][m], per_query["export"][m], seed) for m in METRICS}
        if labelled
        else {},
        values={which: means(found) for which, found in per_query.items()} if labelled else {},
    )


def errors_without(
    graph: PlainGraph,
    samples: Sequence[RankingSample],
    folder: Path,
    *,
    form: Format,
    exclude: Sequence[str],
    max_length: int | None,
) -> dict[str, float]:
    """Return the error of int8 by what stays in float32 (flags of --exclude): as it is, and with each part besides.

    The error is the root mean square of the differences of scores, in standard deviations of the source's.

    Args:
        folder: for the attempts; removed.
    """
    pairs = spread_pairs(samples, _DIAGNOSED_PAIRS)
    scores = _source_scores(graph.model, pairs, max_length)
    errors = {}
    for parts in tqdm([[], *parts_of(graph.path)], desc="what int8 costs where", unit="export", disable=None):
        excluded = [*exclude, *parts]
        graph.write(folder, form, "int8", excluded)
        found = score_once(load_exported(folder, max_length), pairs)
        errors[" ".join(excluded)] = float(np.sqrt(np.mean((found - scores) ** 2)) / scores.std())
        shutil.rmtree(folder)
    return errors


def _source_scores(source: ModelInfo, pairs: Sequence[Pair], max_length: int | None) -> Floats:
    options = EngineOptions(source, max_length=max_length or sys.maxsize, dtype="float32")
    return score_once(load_model("sentence-transformers", options, pairs), pairs)
