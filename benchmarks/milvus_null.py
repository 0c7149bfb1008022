"""How often is "better" said where nothing is better? And how many queries does a choice need?

python benchmarks/milvus_null.py runs/milvus/retrieval.jsonl --draws 200

Null data: each query's values are dealt out anew to the ways to rank, so that all are equally good. The choice is made
by the tune half and judged on the other, as tune_retrieval does it; and for contrast by all queries, and judged on the
same. The learning curve takes the values as they are: a random part to choose by, the rest to report on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import RetrievalTrial
from milvus_optimization.retrieval.choice import against, choose, defaults, verdict
from rag_core.base.stage import show
from rag_core.base.tables import format_rows
from rag_core.files.jsonl import read_records

REFERENCE = "RRF 60"
SIZES = (25, 50, 100, 200, 400)


@dataclasses.dataclass(frozen=True)
class FalseAlarms:
    """What was said of data without any difference.

    Attributes:
        better: share of the draws whose verdict is "better".
        above_reference: share of the draws in which the interval of the choice minus RRF 60 is above 0.
        gain: mean of the choice minus RRF 60.
    """

    better: float
    above_reference: float
    gain: float


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """What so many tune queries bring, over random splits.

    Attributes:
        gain, low, high: of the choice over RRF 60 on the untouched rest: mean, 5 % and 95 % quantile.
        above: share of the splits with a gain above 0.
        optimism: how much higher the gain is on the tune queries.
        winners: how many different ways were chosen.
    """

    queries: int
    gain: float
    low: float
    high: float
    above: float
    optimism: float
    winners: int


def false_alarms(trials: Sequence[RetrievalTrial], halves: Halves, draws: int, seed: int) -> FalseAlarms:
    """Permute the ways' values within each query, choose and judge, so many times.

    Args:
        trials: of one model.
        halves: to choose by and to judge on; they may be the same queries.
    """
    from tqdm import tqdm

    ids = list(dict.fromkeys([*halves.tune, *halves.report]))
    values = _matrix(trials, ids)
    generator = np.random.default_rng(seed)
    said, above, gains = [], [], []
    for _ in tqdm(range(draws), desc="draw", disable=None):
        drawn = [
            _with_values(trial, dict(zip(ids, row.tolist(), strict=True)), halves)
            for trial, row in zip(trials, generator.permuted(values, axis=0), strict=True)
        ]
        choice, usual = choose(drawn, "server"), defaults(drawn, "server", trials[0].model)
        said.append(verdict(choice, usual, halves, seed) == "better")
        reference = against(choice, {REFERENCE: usual[REFERENCE]}, halves.report, seed)[REFERENCE]
        above.append(reference.low > 0)
        gains.append(reference.difference)
    return FalseAlarms(float(np.mean(said)), float(np.mean(above)), float(np.mean(gains)))


def learning_curve(trials: Sequence[RetrievalTrial], sizes: Sequence[int], splits: int, seed: int) -> list[CurvePoint]:
    """Choose by random parts of the queries, and report on the rest. A size that leaves fewer than 2 is left out."""
    reference = defaults(trials, "server", trials[0].model)[REFERENCE]
    ids = list(reference.by_query)
    gains = _matrix(trials, ids) - _matrix([reference], ids)
    generator = np.random.default_rng(seed)
    points = []
    for size in (size for size in sizes if size <= len(ids) - 2):
        rest, tuned, winners = [], [], set()
        for _ in range(splits):
            order = generator.permutation(len(ids))
            on_tune = gains[:, order[:size]].mean(axis=1)
            winner = int(on_tune.argmax())
            winners.add(winner)
            tuned.append(on_tune[winner])
            rest.append(gains[winner, order[size:]].mean())
        low, high = np.quantile(rest, (0.05, 0.95))
        optimism = float(np.mean(tuned) - np.mean(rest))
        above = float(np.mean(np.array(rest) > 0))
        points.append(CurvePoint(size, float(np.mean(rest)), float(low), float(high), above, optimism, len(winners)))
    return points


def _matrix(trials: Sequence[RetrievalTrial], ids: Sequence[str]) -> np.ndarray:
    return np.array([[trial.by_query[query_id] for query_id in ids] for trial in trials])


def _with_values(trial: RetrievalTrial, by_query: dict[str, float], halves: Halves) -> RetrievalTrial:
    report, tune = halves.means(by_query)
    return dataclasses.replace(trial, by_query=by_query, ndcg=report, ndcg_tune=tune)


def main() -> None:
    """Print both tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, help="RetrievalTrial records of tune_retrieval")
    parser.add_argument("--model", help="whose trials (default: the first's)")
    parser.add_argument("--tune_fraction", type=float, default=0.5)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON of the figures")
    args = parser.parse_args()
    everything = list(read_records(args.trials, RetrievalTrial))
    model = args.model or everything[0].model
    # What can be chosen for Milvus: others would have no say in a choice.
    trials = [t for t in everything if t.model == model and t.normalisation != "minmax" and not t.reranker]
    ids = list(trials[0].by_query)
    ways = {
        "held-out half": Halves.of(ids, args.tune_fraction),
        "chosen and judged on the same queries": Halves(ids, ids),
    }
    alarms = {name: false_alarms(trials, halves, args.draws, args.seed) for name, halves in ways.items()}
    curve = learning_curve(trials, SIZES, args.splits, args.seed)
    rows = [["null data", 'verdict "better"', f"interval above {REFERENCE}", f"gain over {REFERENCE}"]]
    rows += [[name, f"{a.better:.1%}", f"{a.above_reference:.1%}", f"{a.gain:+.4f}"] for name, a in alarms.items()]
    show(f"{len(trials)} ways, {len(ids)} queries, {args.draws} draws\n\n{format_rows(rows)}\n")
    rows = [["tune queries", f"gain over {REFERENCE} on the rest (5 to 95 %)", "above 0", "optimism", "winners"]]
    rows += [
        [
            str(p.queries),
            f"{p.gain:+.4f} ({p.low:+.4f}, {p.high:+.4f})",
            f"{p.above:.0%}",
            f"{p.optimism:+.4f}",
            str(p.winners),
        ]
        for p in curve
    ]
    show(format_rows(rows))
    if args.output:
        figures = {
            "null": {name: dataclasses.asdict(found) for name, found in alarms.items()},
            "curve": [dataclasses.asdict(point) for point in curve],
        }
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
