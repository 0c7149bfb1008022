"""Make the tables of README and docs/RESULTS.md from the reports in benchmarks/results.

python benchmarks/tables.py [--store NAME report.json] [--check]

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. `--store` only keeps a report under a name.
`--check` writes nothing, and exits with 1 where a page is stale or a table stands on no page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peer_table import kept, peers
from pydantic import TypeAdapter
from quality_runs import RUNS, Pipeline, Run
from study_tables import candidates, recipes

from rag_core.base.tables import format_difference, format_rows
from rag_core.evaluation.report import FileReport, Report
from rag_core.evaluation.retrieval import Comparison, SearchReport
from rag_core.evaluation.tables import format_table
from rag_core.evaluation.training_record import TrainingRecord
from rag_core.metrics.significance import gap_closed, paired_change

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "RESULTS.md")
# Files of results whose rows stand in the tables of speed.
PERFORMANCE = ("scoring", "training", "evaluation")
EXPORT = ("export-cross-encoder", "export-embedder")
QUICKSTART = "quickstart-embedding"
_BOOTSTRAP_SEED = 0

Values = npt.NDArray[np.float64]


def main() -> int:
    """Store, then write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", nargs=2, metavar=("NAME", "REPORT"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.store:
        store(args.store[0], Path(args.store[1]))
        return 0
    stale = False
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for page, current in pages.items():
        fresh = fill(current)
        stale |= fresh != current
        if not args.check:
            page.write_text(fresh, encoding="utf-8")
    homeless = [name for name in TABLES if not any(_marks(name).search(current) for current in pages.values())]
    if homeless:
        print(f"on no page: {', '.join(homeless)}", file=sys.stderr)  # noqa: T201
    return int(bool(homeless) or (args.check and stale))


def store(name: str, report: Path) -> None:
    """Keep the figures of a report, with the names of its files and models: no folders, and no text of a data set."""
    content = json.loads(report.read_text(encoding="utf-8"))
    content["models"] = {ranker: Path(model).name for ranker, model in content["models"].items()}
    if content["training"] and content["training"]["teacher"]:
        content["training"]["teacher"] = Path(content["training"]["teacher"]).name
    del content["training_log"]
    with (report.parent / "per_query.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for file in content["files"]:
        file["per_query"] = {
            ranker: [
                round(row[ranker]["MAP"], 4) for row in rows if row["path"] == file["path"] and "corpus" not in row
            ]
            for ranker in file["means"]
        }
        file["path"] = Path(file["path"]).name
        del file["examples"]
    for search in content.get("retrieval", []):
        search["path"] = Path(search["path"]).name
        search["models"] = {ranker: Path(model).name for ranker, model in search["models"].items()}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # a list of numbers, a line
    (RESULTS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def fill(page: str) -> str:
    """Return a page with the tables between its markers made anew."""
    for name, table in TABLES.items():
        if _marks(name).search(page):
            content = table()
            page = _marks(name).sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", page)
    return page


def _marks(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)


def quickstart() -> str:
    """Return one row per test file of the quickstart: how the embedder reranks it, and how it searches its passages."""
    rows = [["it", "in", "BM25", "before", "after", "teacher", "after - before [95 %]"]]
    report = _load(QUICKSTART)
    for file in report["files"]:
        change = file["change_to_after"]["before"]["MAP"]
        rows.append(["reranks, MAP", *_quickstart_row(file, "MAP", change)])
    for search in report["retrieval"]:
        pair = next(one for one in search["comparisons"] if (one["old"], one["new"]) == ("before", "after"))
        rows.append(["searches, NDCG@10", *_quickstart_row(search, "NDCG@10", pair["changes"]["NDCG@10"])])
    return format_rows(rows)


def _quickstart_row(part: Mapping[str, Any], metric: str, change: Mapping[str, float]) -> list[str]:
    means = [f"{part['means'][ranker][metric]:.3f}" for ranker in ("BM25", "before", "after", "teacher")]
    return [
        part["domain"].removesuffix("-domain").replace("-", " ") + " its domain",
        *means,
        f"{change['difference']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]",
    ]


def quickstart_tables() -> str:
    """Return what the quickstart prints."""
    content = _load(QUICKSTART)
    without_texts = [file | {"examples": {"gains": [], "losses": []}} for file in content["files"]]
    files = TypeAdapter(list[FileReport]).validate_python(without_texts)
    compared = TypeAdapter(list[Comparison])
    searches = [
        SearchReport(**search | {"comparisons": compared.validate_python(search["comparisons"])}, values={}, asked=[])
        for search in content["retrieval"]
    ]
    report = Report(content["models"], TrainingRecord(), files, retrieval=searches)
    return f"```text\n{format_table(report)}\n```"


def summary() -> str:
    """Return the rows of the runs that were done with several seeds."""
    rows = [["student", "run", "BM25", "before", "after", "teacher", "after - before [95 %]", "elsewhere"]]
    for name, run in RUNS.items():
        reports = _reports(name)
        if len(reports) > 1:
            link = f"[{_short(name)}](#{name})"
            means = [f"{_values(reports, ranker).mean():.4f}" for ranker in ("BM25", "before", "after", "teacher")]
            student = "embedder" if run.pipeline == "embedding" else "cross-encoder"
            rows.append([student, link, *means, _change(reports), _elsewhere(reports)])
    return format_rows(rows)


def quality(pipeline: Pipeline) -> str:
    """Return a row for each run of a pipeline: MAP in its domain and in others, in the mean over its seeds."""
    head = ["run", "what", "alpha", "seconds", "BM25", "before", "after (seeds)", "teacher", "after - before [95 %]"]
    rows = [[*head, "lead closed", "after - that of the first of its set [95 %]", "elsewhere: after - before"]]
    for name, run in RUNS.items():
        reports = _reports(name)
        if run.pipeline != pipeline or not reports:
            continue
        training = [report["training"] for report in reports]
        seconds = np.mean([facts["seconds"] for facts in training])
        gap = gap_closed(*(_values(reports, of) for of in ("before", "after", "teacher")), _BOOTSTRAP_SEED)
        rows.append(
            [
                f'<a id="{name}"></a>{_short(name)}',
                run.technique,
                ", ".join(f"{facts['alpha']:g}" for facts in training if "alpha" in facts),
                f"{seconds:.0f}",
                *(f"{_values(reports, ranker).mean():.4f}" for ranker in ("BM25", "before")),
                _after(reports),
                f"{_values(reports, 'teacher').mean():.4f}",
                _change(reports),
                "no lead" if gap is None else _share(gap.share, gap.low, gap.high),
                _against_first(name, run),
                _elsewhere(reports),
            ]
        )
    empty = {column for column in range(len(rows[0])) if not any(row[column] for row in rows[1:])}  # of no run
    return format_rows([[cell for column, cell in enumerate(row) if column not in empty] for row in rows])


def _short(name: str) -> str:
    return name.partition("-")[2]


def _reports(name: str) -> list[Any]:
    return [_load(path.stem) for path in sorted(RESULTS.glob(f"{name}-[0-9].json"))]


def _values(reports: Sequence[Any], ranker: str, file: int = 0) -> Values:
    """Return a ranker's average precision query by query, in the mean over seeds; shape (queries,)."""
    return np.mean([report["files"][file]["per_query"][ranker] for report in reports], axis=0)


def _change(reports: Sequence[Any], file: int = 0) -> str:
    return _interval(_values(reports, "before", file), _values(reports, "after", file))


def _elsewhere(reports: Sequence[Any]) -> str:
    files = enumerate(reports[0]["files"][1:], start=1)
    return ", ".join(f"{Path(file['path']).name.partition('_')[0]} {_change(reports, at)}" for at, file in files)


def _after(reports: Sequence[Any]) -> str:
    seeds = [report["files"][0]["means"]["after"]["MAP"] for report in reports]
    spread = f" ({', '.join(f'{mean:.4f}' for mean in seeds)})" if len(seeds) > 1 else ""
    return f"{np.mean(seeds):.4f}{spread}"


def _against_first(name: str, run: Run) -> str:
    first = next(other for other, one in RUNS.items() if (one.pipeline, one.tested_on) == (run.pipeline, run.tested_on))
    reports = _reports(first)
    return _interval(_values(reports, "after"), _values(_reports(name), "after")) if reports and first != name else ""


def _interval(old: Values, new: Values) -> str:
    change = paired_change(old, new, _BOOTSTRAP_SEED)
    return format_difference(change.difference, change.low, change.high)


def _share(share: float, low: float | None, high: float | None) -> str:
    return f"{share:.0%}" + ("" if low is None else f" [{low:.0%}, {high:.0%}]")


def performance(names: Sequence[str]) -> str:
    """Return the rows of benchmarks of speed."""
    return performance_table([row for name in names for row in _load(name)["rows"]])


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


def gpu_scoring() -> str:
    """Return the rows of scoring and embedding on a GPU."""
    cells = [["what", "way", "a second", "tokens a second", "of the peak", "GiB"]]
    cells += [
        [
            row["work"],
            row["way"],
            f"{row.get('pairs_per_second') or row['texts_per_second']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['of_peak']:.0%}",
            f"{row['peak_gib']:.1f}",
        ]
        for row in _load("gpu-scoring")["rows"]
    ]
    return format_rows(cells)


def gpu_training() -> str:
    """Return the rows of training a large cross-encoder on a GPU."""
    cells = [["tokens", "way", "checkpointing", "triplets a second", "passes a triplet", "GiB"]]
    for row in _load("gpu-training")["rows"]:
        if "tokens" not in row:
            continue
        checkpointing = "yes" if row["checkpointing"] else ""
        measured = ["", "", "out of memory (80)"]
        if "steps" in row:
            triplets = row["triplets_per_second"] / row["steps_per_second"] * row["steps"]
            measured = [
                f"{row['triplets_per_second']:.0f}",
                f"{row['passes'] / triplets:.2f}",
                f"{row['peak_gib']:.1f}",
            ]
        cells.append([str(row["tokens"]), row["way"], checkpointing, *measured])
    return format_rows(cells)


def _load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart,
    "quickstart tables": quickstart_tables,
    "summary": summary,
    "embedding": lambda: quality("embedding"),
    "reranker": lambda: quality("reranker"),
    "performance": lambda: performance(PERFORMANCE),
    "export": lambda: performance(EXPORT),
    "gpu scoring": gpu_scoring,
    "gpu training": gpu_training,
    "recipes embedder": lambda: recipes("embedding"),
    "recipes cross-encoder": lambda: recipes("reranker"),
    "candidates": candidates,
    **({"peers": peers} if kept() else {}),
}


if __name__ == "__main__":
    sys.exit(main())
