"""How many evaluations until a table of index trials has told nearly all it has to tell?

python benchmarks/milvus_sweep.py --vectors runs/milvus/vectors [--tables 3] [--seeds 20] [--output FILE]

The whole grid of faiss is measured, as often as there are tables, since times vary. Then each strategy goes through it
again, from what was measured: the sweep with its order and its stops, settings drawn at random, and Optuna. Counted is
how many settings it needs for 99 % of the hypervolume of all (recall from .5, logarithm of the CPU time), and what they
cost: their builds, each once, and 1,000 queries a setting.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tables import RESULTS

from milvus_optimization.backends.loading import open_backend
from milvus_optimization.builds import Builds
from milvus_optimization.corpus import choose_model, read_corpus, read_vectors
from milvus_optimization.index_space import BuildSetting, default_grid
from milvus_optimization.optuna_search import search_table
from milvus_optimization.pareto import WORST_RECALL, hypervolume, recall_and_latency
from milvus_optimization.records import IndexTrial, Setting
from milvus_optimization.sweep import Subject, Sweep
from milvus_optimization.trial_store import TrialStore
from milvus_optimization.workload import Workload

SHARE = 0.99
QUERIES = 1000

Table = dict[tuple[int, int], IndexTrial]  # place of a build, and of a search in it


class Logged(Sweep):
    """A sweep that tells the order of its trials."""

    order: list[IndexTrial]

    def trial(self, setting: BuildSetting, search: Setting) -> IndexTrial:
        """Measure, or find what was measured, and note it."""
        found = super().trial(setting, search)
        self.order.append(found)
        return found


def main() -> int:
    """Measure the tables, replay each strategy; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--tables", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "milvus_sweep.json")
    args = parser.parse_args()
    found: dict[str, list[tuple[int | None, float]]] = {}
    points = 0
    for number in range(args.tables):
        with tempfile.TemporaryDirectory() as folder:
            points = replay_table(args, Path(folder), number, found)
    figures = {name: summary(ends) for name, ends in found.items()}
    result = {"settings": points, "tables": args.tables, "seeds": args.seeds, "strategies": figures}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))  # noqa: T201
    return 0


def replay_table(
    args: argparse.Namespace, folder: Path, number: int, found: dict[str, list[tuple[int | None, float]]]
) -> int:
    """Measure the whole grid, and let each strategy go through it; return the number of its settings."""
    model = choose_model(args.vectors, args.model)
    corpus = read_corpus(args.vectors)
    vectors = read_vectors(args.vectors, model, corpus)
    rows, dimensions = vectors.documents.shape
    workload = Workload.of(corpus, vectors, timed=QUERIES, k=10, tune_fraction=0.5, seed=42)
    settings = default_grid("faiss", rows, dimensions, 10)
    subject = Subject("faiss", model, [], rows, dimensions, 10, len(workload.timed))
    with Builds(lambda: open_backend("faiss"), vectors.documents, most=1, seed=42) as builds:

        def swept() -> Logged:
            sweep = Logged(builds, vectors.documents, workload, subject, TrialStore(folder))
            sweep.order = []
            return sweep

        whole = swept()
        table = {
            (build, search): whole.trial(setting, setting.searches[search])
            for build, setting in enumerate(settings)
            for search in range(len(setting.searches))
        }
        sweep = swept()
        sweep.run(settings)
        found.setdefault("sweep", []).append(needed(sweep.order, table))
        for seed in range(args.seeds):
            random = np.random.default_rng([number, seed])
            order = [table[point] for point in sorted(table)]
            random.shuffle(order)  # type: ignore[arg-type]
            found.setdefault("random", []).append(needed(order, table))
            proposed = search_table(settings, lookup(settings, table), evaluations=len(table), seed=seed)
            found.setdefault("optuna", []).append(needed(list(proposed.values()), table))
    return len(table)


def lookup(settings: Sequence[BuildSetting], table: Table) -> Callable[[BuildSetting, Setting], IndexTrial]:
    """Return what gives a trial of the table."""

    def trial(setting: BuildSetting, search: Setting) -> IndexTrial:
        return table[settings.index(setting), setting.searches.index(search)]

    return trial


def needed(order: Sequence[IndexTrial], table: Table) -> tuple[int | None, float]:
    """Return how many of the trials reach `SHARE` of the table's hypervolume (None: they do not), and the CPU seconds."""
    every = recall_and_latency(table.values())
    reference = (WORST_RECALL, max(cost for _, cost in every))
    wanted = SHARE * hypervolume(every, reference)
    seconds, built = 0.0, set()
    for count, trial in enumerate(order, start=1):
        name = json.dumps([trial.index, trial.build])
        seconds += 0.0 if name in built else trial.build_cpu_s or 0.0
        built.add(name)
        seconds += QUERIES * (trial.cpu_ms_p50 or 0.0) / 1000
        if hypervolume(recall_and_latency(order[:count]), reference) >= wanted:
            return count, seconds
    return None, seconds


def summary(ends: Sequence[tuple[int | None, float]]) -> dict[str, Any]:
    """Return the median of what reached the end, and how often it did."""
    reached = [(count, seconds) for count, seconds in ends if count is not None]
    counts, seconds = zip(*reached, strict=True) if reached else ([float("nan")], [float("nan")])
    return {
        "evaluations": float(np.median(counts)),
        "least": float(min(counts)),
        "most": float(max(counts)),
        "cpu_seconds": round(float(np.median(seconds)), 1),
        "reached": f"{len(reached)} of {len(ends)}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
