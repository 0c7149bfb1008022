"""What recipes, candidates and prescreening are worth: many small trainings on real sets, several at once.

DATA_DIR=path/to/data python benchmarks/studies.py --study recipes candidates prescreen [--workers 8] [--minutes 10]

DATA_DIR holds wikiqa/, semeval_cqa_b/, scifact/, and docs/ (what `prepare --source apidocs` makes). A study is a list
of jobs (study_jobs.py): a job trains and evaluates, and its figures go to <work_dir>/results/<job>.json. A job
that is done is not done again; after --minutes none is begun. Workers run the stages' own `main`, one after another,
so that the libraries are loaded once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from study_data import shared_work
from study_jobs import STUDIES, Job, Places
from study_tables import pack


def main() -> int:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--models", type=Path, required=True, help="folder of all-MiniLM-L6-v2 and all-mpnet-base-v2")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/studies"))
    parser.add_argument("--sets", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", help="only these")
    parser.add_argument("--workers", type=int, default=2, help="stages at once")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no job after so many")
    parser.add_argument("--output", type=Path, help="folder of the figures (default: <work_dir>/results)")
    parser.add_argument("--store", action="store_true", help="keep all figures in benchmarks/results/studies.json")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    given = Path(os.environ.get("DATA_DIR") or parser.error("set DATA_DIR"))
    places = Places(given.resolve(), args.models.resolve(), args.work_dir.resolve())
    args.output = args.output or places.work / "results"
    args.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        job
        for seed in args.seeds
        for study in args.study
        for job in STUDIES[study](places, seed)
        if (not args.sets or job.trained_on in args.sets) and (not args.ways or job.way in args.ways)
    ]
    jobs = [job for job in jobs if not (args.output / f"{job.name}.json").exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=context) as pool:
        for wave in shared_work(places, jobs):
            for failed in [future.result() for future in [pool.submit(run_all, *work) for work in wave]]:
                if failed:
                    pool.shutdown(cancel_futures=True)
                    raise SystemExit(f"FAILED {failed}")
        print(f"shared work took {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
        futures = {pool.submit(run, job, args.output, started + 60 * args.minutes): job for job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            print(f"{number}/{len(jobs)} {future.result()}", flush=True)  # noqa: T201
    if args.store:
        pack(args.output)
    return 0


def run(job: Job, output: Path, until: float) -> str:
    """Do a job and keep its figures; return a line that says how it went."""
    if time.monotonic() > until:
        return f"{job.name}: left for another time"
    started = time.monotonic()
    failed = run_all(job.folder / "log.txt", job.commands)
    if failed:
        return f"{job.name}: FAILED at {failed}"
    content = figures(job)
    content["seconds"] = round(time.monotonic() - started, 1)
    (output / f"{job.name}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    files = content["files"]
    means = {}
    for name, file in files.items():
        after = [value for value in next(iter(file.values()))["after"] if value is not None]
        means[name] = f"{sum(after) / len(after):.4f}"
    return f"{job.name}: {content['seconds']} s, {means}"


def run_all(log: Path, commands: list[str]) -> str:
    """Run stages in this process, what they print into a file; return the command that failed, "" where none did."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for command in commands:
        print("==", command, file=sys.stderr, flush=True)  # noqa: T201
        module, *argv = shlex.split(command)
        try:
            code = importlib.import_module(module).main(argv)
        except BaseException as error:  # noqa: BLE001  # another job is not to fail with it
            print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
            code = 1
        if code:
            return f"{command[:200]} (see {log})"
    return ""


def figures(job: Job) -> dict[str, Any]:
    """Return what is kept of a job: its place in the study, how it was trained, and the value of each query."""
    report = job.folder / "report"
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    with (report / "per_query.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rankers = ("BM25", "before", "after", "teacher", "first stage", "mixed")
    files: dict[str, Any] = {}
    for row in rows:
        name, metrics = Path(row["path"]).name, ("MAP", "NDCG@10")
        if "corpus" in row:
            name, metrics = f"search {row['corpus']}", ("NDCG@10", "Recall@100")
        for metric in metrics:
            values = files.setdefault(name, {}).setdefault(metric, {})
            for ranker in (*rankers, "hybrid before", "hybrid after"):
                if ranker in row:
                    values.setdefault(ranker, []).append(_short(row[ranker][metric]))
    manifest = json.loads((job.folder / "model.manifest.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in manifest.items() if key not in ("recipe", "packages", "git", "command")}
    found = {key: _without_folders(content[key]) for key in ("mixing", "training") if key in content}
    place = {"study": job.study, "trained_on": job.trained_on, "pipeline": job.pipeline, "way": job.way}
    return place | {"seed": job.seed, "facts": facts, "files": files, **found}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _without_folders(content: Any) -> Any:
    """Return a part of a report with names in the place of paths, and numbers of five digits."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items() if key != "examples"}
    if isinstance(content, list):
        return [_without_folders(value) for value in content]
    if isinstance(content, str) and "/" in content:
        return content.rpartition("/")[2]
    return round(content, 5) if isinstance(content, float) else content


if __name__ == "__main__":
    sys.exit(main())
