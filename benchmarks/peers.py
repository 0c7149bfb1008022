"""Our two distillations and sentence-transformers' own, side by side: same data, teacher, student, seeds and minutes.

python benchmarks/peers.py --data DATA_DIR --set wikiqa --student DIR --teacher DIR [--minutes 2] [--store]

DATA_DIR holds wikiqa/, scifact/ and semeval_cqa_b/ (RankingSample files of the original splits). The teacher scores
them once, through our generate_logits; --teacher_scores takes files that are there. Where there is no dev file, a tenth
of the training queries is held out. Each way, rate and seed is trained in a process of its own, which writes
<run_dir>/<set>/results/<way>-<rate>-<seed>.json, with its log beside it: what is there is not done again.
peer_ways.py has the ways and peer_table.py the table, which has the one of a way's rates that is best on the dev file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import peer_task
from peer_table import peers_table, store, summarise
from peer_ways import BEFORE, WAYS, reference
from quality import stage
from tables import ROOT
from tqdm import tqdm

from rag_core.base.errors import DataError, PipelineError, UsageError
from rag_core.base.records import ScoredPair
from rag_core.engines.identity import describe_model
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import read_groups, read_samples, write_records
from rag_core.files.manifest import UNKNOWN, Recipe, read_manifest, write_manifest

SETS = ("wikiqa", "scifact", "semeval_cqa_b")
Groups = list[list[ScoredPair]]


def main() -> int:
    """Prepare, train what is not there yet, and print the table."""
    args = parse()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    folder = args.run_dir / args.set
    try:
        settings = settle(args, folder)
        jobs = make_jobs(args, folder, prepare(args, folder))
    except PipelineError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except subprocess.CalledProcessError:  # a stage has said why
        return 1
    failed = do([job for job in jobs if args.repeat or not Path(job["output"]).exists()])
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "results").glob("*.json"))]
    if any(result["way"] == BEFORE for result in results):
        summary = summarise(settings, results)
        print(peers_table(summary))  # noqa: T201
        if args.store:
            store(args.set, summary)
    return int(bool(failed))


def parse() -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--set", default="wikiqa", help="that is trained on")
    parser.add_argument("--elsewhere", nargs="*", help="other sets to measure on (default: all that are there)")
    parser.add_argument("--student", type=Path, required=True, help="folder of the embedder that is trained")
    parser.add_argument("--teacher", type=Path, help="folder of the embedder that teaches")
    parser.add_argument("--teacher_scores", type=Path, help="folder of <set>_<split>_logits.jsonl, instead of it")
    parser.add_argument("--queries", type=int, help="train on the first of them (default: all)")
    parser.add_argument("--test_queries", type=int, help="measure on the first of each file (default: all)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rates", nargs="+", type=float, default=[4e-5, 1.5e-4])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, help="of training, whatever the epochs: the rate falls with the time")
    parser.add_argument("--batch_queries", type=int, default=16, help="lists in a step, and queries of our own stages")
    parser.add_argument("--batch_rows", type=int, default=64, help="triplets, pairs or texts in a step")
    parser.add_argument("--max_passages", type=int, default=30, help="in a list")
    parser.add_argument("--max_length", type=int, default=128, help="tokens while training; 256 for the teacher")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/peers"))
    parser.add_argument("--repeat", action="store_true", help="also do again what is there")
    parser.add_argument("--store", action="store_true", help="keep the figures in benchmarks/results/peers-<set>.json")
    args = parser.parse_args()
    if args.elsewhere is None:
        args.elsewhere = [name for name in SETS if name != args.set and (args.data / name).is_dir()]
    learns_vectors = {name for name in args.ways if WAYS[name].rows == "vectors"}
    if not args.teacher:
        print(f"no --teacher, so no {', '.join(sorted(learns_vectors))}", file=sys.stderr)  # noqa: T201
        args.ways = [name for name in args.ways if name not in learns_vectors]
    return args


def settle(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Keep what decides all results of a folder, and refuse to mix them with those of other settings."""
    if not (args.teacher or args.teacher_scores):
        raise UsageError("there is neither a --teacher nor its scores", "Pass --teacher or --teacher_scores")
    names = ("queries", "test_queries", "epochs", "minutes", "batch_queries", "batch_rows", "max_passages")
    settings = {name: getattr(args, name) for name in (*names, "max_length", "elsewhere")}
    settings["student"] = {args.student.name: describe_model(str(args.student)).identity}
    settings = json.loads(json.dumps(settings))
    path = folder / "settings.json"
    if path.exists() and (there := json.loads(path.read_text(encoding="utf-8"))) != settings:
        differs = ", ".join(f"--{name}" for name in settings if settings[name] != there.get(name))
        raise UsageError(f"{folder} has results of other settings ({differs})", "Choose another --run_dir")
    with atomic_write(path) as file:
        file.write(json.dumps(settings, indent=1).encode())
    return settings


def prepare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score, hold out and derive; return the files that every job reads."""
    splits = {args.set: ("train", "dev", "test")} | dict.fromkeys(args.elsewhere, ("dev", "test"))
    wanted = {f"{name}_{split}": args.data / name / f"{split}.jsonl" for name in splits for split in splits[name]}
    scores = args.teacher_scores or folder / "scores"
    if not args.teacher_scores:
        _score(args, folder, wanted)
    found = {name: scores / f"{name}_logits.jsonl" for name in wanted if (scores / f"{name}_logits.jsonl").exists()}
    for needed in (f"{args.set}_train", f"{args.set}_test"):
        if needed not in found:
            raise DataError(f"has no {needed}_logits.jsonl", "Check --data, --set or --teacher_scores", path=scores)
    groups = {name: read_groups(path, ScoredPair) for name, path in found.items()}
    train, dev = f"{args.set}_train", f"{args.set}_dev"
    if dev not in groups:
        found[dev] = found[train]
        cut = len(groups[train][: args.queries]) * 9 // 10
        groups[train], groups[dev] = groups[train][:cut], groups[train][cut : args.queries]
    kept = {
        name: _keep(some[: args.queries if name == train else args.test_queries], found[name], folder / f"{name}.jsonl")
        for name, some in groups.items()
    }
    stage(f"reranker_distillation.create_triplets --input_files {kept[train]}")
    stage(f"embedding_distillation.generate_scores --input_files {kept[train]} --max_passages {args.max_passages}")
    return {
        "triplets": str(folder / f"{train}_triplets.jsonl"),
        "lists": str(folder / f"{train}_scores.jsonl"),
        "dev": str(kept[dev]),
        "dev_elsewhere": [str(kept[f"{name}_dev"]) for name in args.elsewhere if f"{name}_dev" in kept],
        "tests": {name: str(kept[f"{name}_test"]) for name in splits if f"{name}_test" in kept},
        "vectors": str(folder / "teacher_vectors.npy"),
    }


def _score(args: argparse.Namespace, folder: Path, wanted: dict[str, Path]) -> None:
    files = []
    for name, path in wanted.items():
        source = path if path.exists() else path.with_name(f"{path.name}.gz")
        if source.exists():
            count = args.queries if name.endswith("_train") else args.test_queries
            files.append(folder / "data" / f"{name}.jsonl")
            write_records(files[-1], read_samples(source)[:count])
    if not files:
        raise DataError("has no file of the set", "Check --data and --set", path=args.data / args.set)
    flags = f"--teacher {args.teacher} --max_length 256 --output_dir {folder}/scores"
    stage(f"embedding_distillation.generate_logits {flags} --input_files {' '.join(map(str, files))}")


def _keep(groups: Groups, source: Path, output: Path) -> Path:
    rows = write_records(output, chain.from_iterable(groups))
    unit = (read_manifest(source) or UNKNOWN).score_unit or "cosine"
    recipe = Recipe(stage="benchmarks.peers", flags={}, inputs={str(source): sha256(source)})
    write_manifest(output, recipe, rows=rows, score_unit=unit)
    return output


def make_jobs(args: argparse.Namespace, folder: Path, files: dict[str, Any]) -> list[peer_task.Job]:
    """Return the jobs, by turns: all ways of a seed before the next."""
    (folder / "results").mkdir(exist_ok=True)
    shared = files | {"student": str(args.student), "teacher": args.teacher and str(args.teacher)}
    for name in ("epochs", "minutes", "batch_queries", "batch_rows", "max_length"):
        shared[name] = getattr(args, name)

    def job(way: str, rate: float, seed: int, output: Path) -> peer_task.Job:
        return shared | {"way": way, "rate": rate, "seed": seed, "output": str(output), "log": f"{output}.log"}

    jobs = [job(BEFORE, 0.0, 0, folder / "results" / f"{BEFORE}.json")]
    if any(WAYS[name].rows == "vectors" for name in args.ways):
        jobs.append(job("vectors", 0.0, 0, Path(files["vectors"])))
    first = [way for kind in ("embedder", "reranker") if (way := reference(kind)) in args.ways]
    ways = [*first, *(way for way in args.ways if way not in first)]
    jobs += [
        job(way, rate, seed, folder / "results" / f"{way}-{rate:g}-{seed}.json")
        for seed in args.seeds
        for rate in args.rates
        for way in ways
    ]
    return jobs


def do(jobs: Sequence[peer_task.Job]) -> list[str]:
    """Do jobs one after another, each in a process of its own; return the names of those that failed.

    With many cores the next process already imports its libraries while one trains.
    """
    context = multiprocessing.get_context("spawn")
    ahead, waiting, left, failed = (2 if (os.cpu_count() or 1) >= 8 else 1), deque[Any](), deque(jobs), []
    with tqdm(total=len(jobs), unit="run") as bar:
        while left or waiting:
            while left and len(waiting) < ahead:
                ours, theirs = context.Pipe()
                process = context.Process(target=peer_task.run, args=(left[0], theirs), daemon=True)
                process.start()
                waiting.append((left.popleft(), process, ours))
            job, process, gate = waiting.popleft()
            name = Path(job["output"]).stem
            bar.set_postfix_str(name)
            gate.send("go")
            process.join()
            if process.exitcode:
                failed.append(name)
                bar.write(f"failed: {name}, see {job['log']}", file=sys.stderr)
            bar.update()
    return failed


if __name__ == "__main__":
    sys.exit(main())
