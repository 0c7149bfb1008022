"""Make README's tables from the reports in benchmarks/results.

python benchmarks/readme_tables.py [--store NAME report.json] [--check]

`--store` only keeps a report under a name; `--check` writes nothing and exits 1 where README is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality_runs import RUNS

from rag_core.report import format_rows, format_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PERFORMANCE = ("scoring", "training", "evaluation")  # files of results whose rows stand in the table of speed


def main() -> int:
    """Store, then write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", nargs=2, metavar=("NAME", "REPORT"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.store:
        store(args.store[0], Path(args.store[1]))
        return 0
    current = README.read_text(encoding="utf-8")
    fresh = fill(current)
    if args.check:
        return int(fresh != current)
    README.write_text(fresh, encoding="utf-8")
    return 0


def store(name: str, report: Path) -> None:
    """Keep the figures of a report, with the names of its files and models: no folders, and no text of a data set."""
    content = json.loads(report.read_text(encoding="utf-8"))
    content["models"] = {ranker: Path(model).name for ranker, model in content["models"].items()}
    if content["training"] and content["training"]["teacher"]:
        content["training"]["teacher"] = Path(content["training"]["teacher"]).name
    del content["training_log"]
    for file in content["files"]:
        file["path"] = Path(file["path"]).name
        del file["examples"]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def fill(readme: str) -> str:
    """Return README with the tables between its markers made anew."""
    tables = {
        "quickstart": quickstart(),
        "reranker": reranker(),
        "embedding": embedding(),
        "performance": performance(),
        "quality": quality(),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        readme = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", readme, flags=re.DOTALL)
    return readme


def quickstart() -> str:
    """Return what the two halves of the quickstart print."""
    halves = {"Embedder": "quickstart-embedding", "Reranker": "quickstart-reranker"}
    return "\n\n".join(f"{title}:\n\n```text\n{format_table(_load(name))}\n```" for title, name in halves.items())


def reranker() -> str:
    """Return one row a seed of the WikiQA benchmark of the reranker."""
    rows = [["seed", "BM25", "before", "after", "teacher", "after - before [95 %]", "after - BM25 [95 %]"]]
    for path in sorted(RESULTS.glob("wikiqa-*.json")):
        (file,) = _load(path.stem)["files"]
        means = [f"{file['means'][ranker]['MAP']:.4f}" for ranker in ("BM25", "before", "after", "teacher")]
        changes = [_interval(file["change_to_after"][ranker]["MAP"]) for ranker in ("before", "BM25")]
        rows.append([path.stem.removeprefix("wikiqa-"), *means, *changes])
    title = (
        "`benchmarks/wikiqa.sh`: WikiQA, 856 training queries, 237 test queries; teacher all-mpnet-base-v2, before = "
        "all-MiniLM-L6-v2 as bi-encoder, after = a cross-encoder grown from it."
    )
    return f"{title}\n\n{format_rows(rows)}"


def embedding() -> str:
    """Return one row a run of the embedding benchmark: the gain in its domain, and the change in the others."""
    rows = [["run", "alpha", "before", "after", "teacher", "after - before [95 %]", "lead closed", "others"]]
    for path in sorted(RESULTS.glob("embedding-*.json")):
        report = _load(path.stem)
        inside, *outside = report["files"]
        means = [f"{inside['means'][ranker]['MAP']:.4f}" for ranker in ("before", "after", "teacher")]
        gap = inside["gap_closed"]["MAP"]
        others = (f"{_stem(file)} {_interval(file['change_to_after']['before']['MAP'])}" for file in outside)
        training = report["training"]
        rows.append(
            [
                path.stem.removeprefix("embedding-"),
                f"{training['alpha']:g}",
                *means,
                _interval(inside["change_to_after"]["before"]["MAP"]),
                "no lead" if gap is None else f"{gap['share']:.0%}",
                ", ".join(others),
            ]
        )
    title = (
        "`scripts/benchmark.sh`: all-mpnet-base-v2 teaches all-MiniLM-L6-v2; MAP on the test set of the run's name; "
        "others: after - before on sets that were not trained on."
    )
    return f"{title}\n\n{format_rows(rows)}"


def quality() -> str:
    """Return one row a run of a reranker: what is learned and how, and MAP in its domain and in the others."""
    rows = [["run", "technique", "seconds", "before", "after", "teacher", "after - before [95 %]", "others"]]
    for path in sorted(RESULTS.glob("reranker-*.json")):
        report = _load(path.stem)
        inside, *outside = report["files"]
        others = (f"{_stem(file)} {_interval(file['change_to_after']['before']['MAP'])}" for file in outside)
        rows.append(
            [
                path.stem.removeprefix("reranker-"),
                RUNS[path.stem.rpartition("-")[0]].technique,
                f"{report['training']['seconds']:.0f}",
                *(f"{inside['means'][ranker]['MAP']:.4f}" for ranker in ("before", "after", "teacher")),
                _interval(inside["change_to_after"]["before"]["MAP"]),
                ", ".join(others),
            ]
        )
    title = (
        "`scripts/benchmark.sh`: a cross-encoder grown from all-MiniLM-L6-v2 (before: that bi-encoder), two epochs; "
        "MAP on the test set of the run's name; others: after - before on sets that were not trained on."
    )
    return f"{title}\n\n{format_rows(rows)}"


def performance() -> str:
    """Return the rows of the benchmarks of speed."""
    return performance_table([row for name in PERFORMANCE for row in _load(name)["rows"]])


def performance_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of results, as measurement.py has them, as a Markdown table."""
    cells = [["what", "theirs", "ours", "theirs/s", "ours/s", "ratio [min, max]", "memory, MiB", "results"]]
    cells += [
        [
            row["work"],
            row["theirs"],
            row["ours"],
            f"{row['rate_theirs']:,.4g} {row['unit']}",
            f"{row['rate_ours']:,.4g}",
            f"{row['ratio']['median']:.2f} [{row['ratio']['min']:.2f}, {row['ratio']['max']:.2f}]",
            f"{row['peak_mib_theirs']:,.0f} / {row['peak_mib_ours']:,.0f}",
            row["result"],
        ]
        for row in rows
    ]
    return format_rows(cells)


def _stem(file: dict[str, Any]) -> str:
    return Path(file["path"]).name.partition("_")[0]


def _interval(change: dict[str, Any]) -> str:
    return f"{change['difference']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"


def _load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
