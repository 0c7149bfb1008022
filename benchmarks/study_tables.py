"""The tables of the studies, from benchmarks/results/studies.json, which `studies.py --store` writes.

It holds the value of each query: of BM25, before and the teacher once for each file (`shared`), and of each run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_core.base.tables import format_difference, format_rows
from rag_core.metrics.significance import gap_closed, paired_change

KEPT = Path(__file__).parent / "results" / "studies.json"
_METRICS = {"search": ("NDCG@10", "Recall@100"), "rerank": ("MAP",)}
_OF_A_RUN = ("after", "mixed")
_FACTS = ("learning_rate", "num_train_epochs", "alpha", "steps", "best_step")
_SEED = 0

Values = npt.NDArray[np.float64]


def pack(folder: Path) -> None:
    """Write the figures of all jobs in a folder into one file."""
    shared: dict[str, Any] = {}
    runs = []
    for path in sorted(folder.glob("*.json")):
        job = json.loads(path.read_text(encoding="utf-8"))
        files: dict[str, Any] = {}
        for name, by_metric in job["files"].items():
            for metric in _METRICS["search" if name.startswith("search ") else "rerank"]:
                for ranker, values in by_metric[metric].items():
                    if ranker in _OF_A_RUN:
                        files.setdefault(name, {}).setdefault(metric, {})[ranker] = values
                    elif ranker in ("before", "teacher"):
                        shared.setdefault(name, {}).setdefault(metric, {})[ranker] = values
        keys = ("study", "trained_on", "pipeline", "way", "seed")
        known = job["training"] | job["facts"]
        facts = {key: known[key] for key in _FACTS if known.get(key) is not None}
        runs.append({key: job[key] for key in keys} | {"facts": facts, "files": files})
    KEPT.write_text(json.dumps({"shared": shared, "runs": runs}, separators=(",", ":")) + "\n", encoding="utf-8")


def recipes(pipeline: str) -> str:
    """Return a row per set and way of the study of recipes: MAP in its domain, and what it costs elsewhere."""
    head = ["trained on", "way", "rate x epochs", "MAP, own test", "lead closed", "worst of two others"]
    head += ["search, own", "search, other", "recall@100, own, other"] if pipeline == "embedding" else ["mixed, own"]
    return format_rows([head, *_rows("recipes", pipeline)])


def candidates() -> str:
    """Return a row per set and way to mine 30 candidates."""
    head = ["trained on", "candidates", "rate x epochs", "MAP, own test", "lead closed", "worst of two others"]
    head += ["search, own", "search, other", "recall@100, own, other"]
    return format_rows([head, *_rows("candidates", "embedding")])


def _rows(study: str, pipeline: str) -> Iterator[list[str]]:
    content = json.loads(KEPT.read_text(encoding="utf-8"))
    mine = [run for run in content["runs"] if (run["study"], run["pipeline"]) == (study, pipeline)]
    before = ""
    for name, way in dict.fromkeys((run["trained_on"], run["way"]) for run in mine):
        runs = [run for run in mine if (run["trained_on"], run["way"]) == (name, way)]
        yield [name if name != before else "", way.replace("_", " "), _rate(runs[0]), *_figures(content, runs, name)]
        before = name


def _rate(run: Mapping[str, Any]) -> str:
    facts = run["facts"]
    return f"{facts['learning_rate']:.2g} x {facts['num_train_epochs']:g}" if "learning_rate" in facts else ""


def _figures(content: Mapping[str, Any], runs: list[dict[str, Any]], name: str) -> Iterator[str]:
    own, *others = [file for file in runs[0]["files"] if not file.startswith("search ")]
    assert own.startswith(name)
    shared = content["shared"]
    yield _change(shared, runs, own, "MAP")
    old, teacher = (_array(shared[own]["MAP"][ranker]) for ranker in ("before", "teacher"))
    found = gap_closed(old, _mean(runs, own, "MAP"), teacher, _SEED)
    yield f"{found.share:.0%}" if found else ""
    yield min((_change(shared, runs, other, "MAP") for other in others), key=lambda cell: float(cell.split()[0]))
    if "mixed" in runs[0]["files"][own]["MAP"]:
        yield _change(shared, runs, own, "MAP", "mixed")
    searches = [file for file in runs[0]["files"] if file.startswith("search ")]
    for file in searches:
        yield _change(shared, runs, file, "NDCG@10")
    if searches:
        yield ", ".join(_change(shared, runs, file, "Recall@100") for file in searches)


def _change(shared: Mapping[str, Any], runs: list[dict[str, Any]], file: str, metric: str, of: str = "after") -> str:
    change = paired_change(_array(shared[file][metric]["before"]), _mean(runs, file, metric, of), _SEED)
    return format_difference(change.difference, change.low, change.high)


def _mean(runs: list[dict[str, Any]], file: str, metric: str, of: str = "after") -> Values:
    """Return the mean over seeds of each query."""
    mean: Values = np.mean([_array(run["files"][file][metric][of]) for run in runs], axis=0)
    return mean


def _array(values: list[float | None]) -> Values:
    return np.array([np.nan if value is None else value for value in values])
