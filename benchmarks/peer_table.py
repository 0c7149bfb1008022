"""The table of peers.py: MAP, seconds, memory and passes of each way, as ratios to ours with their spread over seeds.

What is kept, benchmarks/results/peers-<set>.json, is {"settings", "device", "versions", "tests", "before", "teacher",
"ways"}. A way has its rate, the dev values of all rates that were tried, one row of figures per seed, and per test file
the average precision of each query, in the mean over seeds.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_ways import BEFORE, WAYS, reference

from rag_core.base.tables import format_difference, format_rows
from rag_core.metrics.significance import paired_change

RESULTS = Path(__file__).parent / "results"
_BOOTSTRAP_SEED = 0
_FIGURES = {"seconds": " s", "memory": " MiB", "passes": "", "steps": ""}


def summarise(settings: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is kept: of each way the rate with the best dev value, among those with the most seeds."""
    before = next(result for result in results if result["way"] == BEFORE)
    by_way: defaultdict[str, defaultdict[float, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result["way"] != BEFORE:
            by_way[result["way"]][result["rate"]].append(result)
    ways = {}
    for name in (name for name in WAYS if name in by_way):
        rates = by_way[name]
        dev = {rate: float(np.mean([run["dev"] for run in runs])) for rate, runs in rates.items()}
        rate = max(rates, key=lambda rate: (len(rates[rate]), dev[rate]))
        runs = sorted(rates[rate], key=lambda run: run["seed"])
        ways[name] = {
            "rate": rate,
            "dev": {f"{tried:g}": round(value, 4) for tried, value in sorted(dev.items())},
            "seeds": [_figures(run) for run in runs],
            "MAP": {
                test: np.mean([run["MAP"][test] for run in runs], axis=0).round(4).tolist() for test in before["MAP"]
            },
        }
    return {
        "settings": settings,
        "device": before["device"],
        "versions": before["versions"],
        "before": before["MAP"],
        "teacher": before["facts"]["teacher"],
        "ways": ways,
    }


def _figures(run: Mapping[str, Any]) -> dict[str, Any]:
    facts = run["facts"]
    memory = facts.get("cuda_mib", facts["rss_mib"])
    maps = {test: float(np.mean(values)) for test, values in run["MAP"].items()}
    found = {"seed": run["seed"], "MAP": maps, "memory": memory} | {name: facts[name] for name in _FACTS}
    return json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.6g}"))  # type: ignore[no-any-return]


_FACTS = ("seconds", "wall_seconds", "passes", "padded_tokens", "steps", "epochs", "rss_mib")


def store(name: str, summary: Mapping[str, Any]) -> None:
    """Keep a summary, a list of numbers in one line."""
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(summary, indent=1))
    (RESULTS / f"peers-{name}.json").write_text(f"{text}\n", encoding="utf-8")


def peers() -> str:
    """Return the tables of all sets that are kept."""
    return "\n\n".join(peers_table(json.loads(path.read_text(encoding="utf-8"))) for path in kept())


def kept() -> list[Path]:
    """Return the files of results."""
    return sorted(RESULTS.glob("peers-*.json"))


def peers_table(summary: Mapping[str, Any]) -> str:
    """Return what was measured with what, and one row per way."""
    ways, tests = summary["ways"], list(summary["before"])
    device, settings = summary["device"], summary["settings"]
    amount = f"minutes: {settings['minutes']:g}" if settings["minutes"] else f"epochs: {settings['epochs']:g}"
    versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    seeds = max((len(way["seeds"]) for way in ways.values()), default=0)
    memory = "memory of the GPU" if "cpu" not in device else "memory of the process"
    means = {name: {test: np.mean(summary[name][test]) for test in tests} for name in ("before", "teacher")}
    known = ", ".join(f"{name} {means[name][tests[0]]:.4f}" for name in means)
    head = [
        *("way", "rate", f"MAP, {tests[0]} (seeds)", "÷ ours [least, most]", "- ours [95 %]"),
        *("seconds ÷ ours", f"{memory} ÷ ours", "passes ÷ ours", "steps ÷ ours"),
        *(f"{test} - ours [95 %]" for test in tests[1:]),
    ]
    rows = [head]
    for name, way in ways.items():
        ours = ways.get(reference(WAYS[name].kind))
        rows.append([WAYS[name].what, f"{way['rate']:g}", _seeds(way, tests[0])])
        if ours is way or ours is None:  # as it is, where there is nothing to compare it with
            plain = (f"{np.mean([run[figure] for run in way['seeds']]):,.4g}" for figure in _FIGURES)
            rows[-1] += ["", "", *(f"{mean}{_FIGURES[figure]}" for figure, mean in zip(_FIGURES, plain, strict=True))]
            rows[-1] += [f"{np.mean(way['MAP'][test]):.4f}" for test in tests[1:]]
            continue
        rows[-1] += [_ratio(way, ours, lambda run: run["MAP"][tests[0]]), _change(way, ours, tests[0])]
        rows[-1] += [_ratio(way, ours, lambda run, figure=figure: run[figure]) for figure in _FIGURES]
        rows[-1] += [_change(way, ours, test) for test in tests[1:]]
    note = f"{tests[0]}: {amount}, seeds: {seeds}; {device} ({versions}). MAP: {known}."
    return f"{note}\n\n{format_rows(rows)}"


def _seeds(way: Mapping[str, Any], test: str) -> str:
    found = [run["MAP"][test] for run in way["seeds"]]
    return f"{np.mean(found):.4f}" + (f" ({', '.join(f'{one:.4f}' for one in found)})" if len(found) > 1 else "")


def _ratio(way: Mapping[str, Any], ours: Mapping[str, Any], figure: Any) -> str:
    """Return the median over seeds that both have, with the least and the most."""
    of_ours = {run["seed"]: figure(run) for run in ours["seeds"]}
    found = [figure(run) / of_ours[run["seed"]] for run in way["seeds"] if run["seed"] in of_ours]
    if not found:
        return ""
    return f"{np.median(found):.2f}" + (f" [{min(found):.2f}, {max(found):.2f}]" if len(found) > 1 else "")


def _change(way: Mapping[str, Any], ours: Mapping[str, Any], test: str) -> str:
    change = paired_change(np.array(ours["MAP"][test]), np.array(way["MAP"][test]), _BOOTSTRAP_SEED)
    return format_difference(change.difference, change.low, change.high)
