"""What the benchmarks share: their flags, model and text, repeats by turns, and rows of results for README's table.

A file of results is {"environment", "settings", "rows"}. A row is {"work", "theirs", "ours", "unit", "rate_theirs",
"rate_ours", "ratio": {"median", "min", "max"}, "peak_mib_theirs", "peak_mib_ours", "result"}: what is done, by which
ways, how many units a second each does (medians), how many times faster ours was in runs that took turns, what each
had in memory beyond what was there before it, and in words how the results compare.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tables import RESULTS, performance_table

from rag_core import demo_models

Value = TypeVar("Value")


@dataclass(frozen=True)
class Run(Generic[Value]):
    """What one run took, and what it returned."""

    seconds: float
    peak_mib: float
    value: Value


def make_parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an embedder (default: all-MiniLM-L6-v2 from its package)")
    parser.add_argument("--input_file", type=Path, help="RankingSample (default: documentation of installed packages)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/benchmarks"), help="for the default model and text")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")
    return parser


def fill_in(args: argparse.Namespace) -> dict[str, Any]:
    """Put the default model and text where none was given; return the flags as settings, without folders."""
    if args.model is None:
        demo_models.run(demo_models.Args(output_dir=args.work_dir))
        args.model = args.work_dir / demo_models.STUDENT
    if args.input_file is None:
        folder = args.work_dir / "documentation"
        # In a process of its own: it imports all of the packages that it reads, and vLLM trips over some.
        command = f"{sys.executable} -m rag_core.prepare --source apidocs --output_dir".split()
        subprocess.run([*command, str(folder)], check=True)
        args.input_file = folder / "test.jsonl"
    paths = ("model", "input_file")
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    return {name: getattr(args, name).name for name in paths} | settings


def by_turns(ways: Mapping[str, Callable[[], Value]], repeats: int) -> dict[str, list[Run[Value]]]:
    """Run all ways one after another, `repeats` times: what else the machine does then hits all of them."""
    runs: dict[str, list[Run[Value]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            runs[name].append(_run(way))
    return runs


def row(
    work: str, theirs: tuple[str, Sequence[Run[Any]]], ours: tuple[str, Sequence[Run[Any]]], count: int, unit: str
) -> dict[str, Any]:
    """Return a row of results, but for its "result", of runs that each did `count` units."""
    ratios = [one.seconds / other.seconds for one, other in zip(theirs[1], ours[1], strict=True)]
    found: dict[str, Any] = {
        "work": work,
        "theirs": theirs[0],
        "ours": ours[0],
        "unit": unit,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }
    for side, runs in (("theirs", theirs[1]), ("ours", ours[1])):
        found[f"rate_{side}"] = count / statistics.median(run.seconds for run in runs)
        found[f"peak_mib_{side}"] = max(run.peak_mib for run in runs)
    return found


def finish(output: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the results, rounded to 6 significant digits, and print their table."""
    import torch

    packages = ("torch", "transformers", "sentence-transformers")
    environment = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    content = {"environment": environment, "settings": settings, "rows": rows}
    short = json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.6g}"))
    output.write_text(json.dumps(short, indent=1) + "\n", encoding="utf-8")
    print(performance_table(short["rows"]))  # noqa: T201


def _run(way: Callable[[], Value]) -> Run[Value]:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the run before has freed is not to hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    before = _memory_mib("VmRSS")
    started = time.perf_counter()
    value = way()
    return Run(time.perf_counter() - started, _memory_mib("VmHWM") - before, value)


def _memory_mib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
