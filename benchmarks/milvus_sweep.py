"""How many evaluations until a table of index trials has told nearly all it has to tell?

python benchmarks/milvus_sweep.py runs/milvus/index_trials.jsonl [--seeds 20] [--output FILE]

Each strategy goes through what `sweep_indexes` has measured: the sweep with its order and its stops, settings drawn at
random, and Optuna as `--search optuna` runs it. Counted is how many settings it needs for 99 % of the hypervolume of
all (recall from .5, logarithm of the time), and what they cost: their builds, each once, and 1,000 queries a setting.
Of the sweep, the times vary from one file to another: pass several.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tables import RESULTS

from milvus_optimization.backends.space import BuildSetting
from milvus_optimization.indexes.builds import build_name
from milvus_optimization.indexes.optuna_search import search_table
from milvus_optimization.indexes.pareto import WORST_RECALL, hypervolume, milliseconds, recall_and_latency
from milvus_optimization.indexes.sweep import enough
from milvus_optimization.records import IndexTrial, Setting
from rag_core.files.jsonl import read_records

SHARE = 0.99
QUERIES = 1000

Builds = dict[str, list[IndexTrial]]
End = tuple[int | None, float]


def main() -> int:
    """Replay each strategy over each table; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "milvus_sweep.json")
    args = parser.parse_args()
    ends: dict[str, list[End]] = {"sweep": [], "random": [], "optuna": []}
    settings = []
    for path in args.trials:
        builds = read_builds(path)
        table = [trial for trials in builds.values() for trial in trials]
        settings.append(len(table))
        ends["sweep"].append(needed(swept(builds), table))
        for seed in range(args.seeds):
            order = [table[place] for place in np.random.default_rng(seed).permutation(len(table))]
            ends["random"].append(needed(order, table))
            ends["optuna"].append(needed(proposed(builds, table, seed), table))
    result = {"settings": settings, "strategies": {name: summary(some) for name, some in ends.items()}}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))  # noqa: T201
    return 0


def read_builds(path: Path) -> Builds:
    """Return the trials that are measured, by build, in the order of the sweep."""
    builds: Builds = {}
    for trial in read_records(path, IndexTrial):
        if trial.status == "ok":
            builds.setdefault(build_name(BuildSetting(trial.index, trial.build, ())), []).append(trial)
    return builds


def swept(builds: Builds) -> list[IndexTrial]:
    """Return the trials that the sweep measures, in its order."""
    order: list[IndexTrial] = []
    goal = next(trial.ndcg_tune for trials in builds.values() for trial in trials)  # of FLAT, the first
    for trials in builds.values():
        done: list[IndexTrial] = []
        for trial in trials:
            if enough(done, goal):
                break
            done.append(trial)
        order += done
    return order


def proposed(builds: Builds, table: Sequence[IndexTrial], seed: int) -> list[IndexTrial]:
    """Return the trials that Optuna asks for, until they are enough."""
    settings = [
        BuildSetting(trials[0].index, trials[0].build, tuple(trial.search for trial in trials))
        for trials in builds.values()
    ]
    given: list[IndexTrial] = []

    def look_up(setting: BuildSetting, search: Setting) -> IndexTrial:
        trial = next(one for one in builds[build_name(setting)] if one.search == search)
        if needed(given, table)[0] is not None:
            return dataclasses.replace(trial, status="skipped")
        given.append(trial)
        return trial

    search_table(settings, look_up, evaluations=len(table), seed=seed)
    return given


def needed(order: Sequence[IndexTrial], table: Sequence[IndexTrial]) -> End:
    """Return how many of the trials reach `SHARE` of the table's hypervolume, None where none do, and CPU seconds."""
    every = recall_and_latency(table)
    reference = (WORST_RECALL, max(cost for _, cost in every))
    wanted = SHARE * hypervolume(every, reference)
    seconds, built = 0.0, set()
    for count, trial in enumerate(order, start=1):
        name = build_name(BuildSetting(trial.index, trial.build, ()))
        seconds += 0.0 if name in built else trial.build_cpu_s or 0.0
        built.add(name)
        seconds += QUERIES * (milliseconds(trial) or 0.0) / 1000
        if hypervolume(recall_and_latency(order[:count]), reference) >= wanted:
            return count, seconds
    return None, seconds


def summary(ends: Sequence[End]) -> dict[str, Any]:
    """Return the median of what reached the end, and how often it did."""
    counts = [count for count, _ in ends if count is not None]
    seconds = [seconds for count, seconds in ends if count is not None]
    return {
        "evaluations": float(np.median(counts)) if counts else None,
        "least": min(counts, default=None),
        "most": max(counts, default=None),
        "cpu_seconds": round(float(np.median(seconds)), 1) if counts else None,
        "reached": f"{len(counts)} of {len(ends)}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
