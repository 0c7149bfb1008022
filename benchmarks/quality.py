"""What each technique is worth: distillation with it and without, on real sets, in-domain and out.

DATA_DIR=path/to/data bash scripts/benchmark.sh [--runs NAME ...] [--run_dir runs/quality] [--list]

DATA_DIR holds wikiqa/, semeval_cqa_b/ and scifact/ (RankingSample files of the original splits; scifact also in the
layout of BEIR). all-mpnet-base-v2 teaches all-MiniLM-L6-v2, or a cross-encoder grown from it. A run that is finished is
not done again, one that was stopped goes on. Reports go to benchmarks/results/<name>-<seed>.json, from which tables.py
makes the tables of README and docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from quality_runs import CROSS_ENCODER, RUNS, Run
from tables import RESULTS, ROOT, store

from rag_core.files.jsonl import read_samples


def main() -> int:
    """Do what is not done yet, in the order of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", nargs="+", metavar="NAME", default=list(RUNS), help="as --list has them (default: all)"
    )
    parser.add_argument("--seeds", type=int, help="at most (default: as many as the table says for each)")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/quality"))
    parser.add_argument("--list", action="store_true", help="say what there is, and what is done")
    args = parser.parse_args()
    unknown = [name for name in args.runs if name not in RUNS]
    if unknown:
        parser.error(f"no run {unknown[0]}: see --list")
    wanted = [(name, seed) for name in args.runs for seed in range(1, min(RUNS[name].seeds, args.seeds or 9) + 1)]
    if args.list:
        for name, seed in wanted:
            done = "done" if result(name, seed).exists() else "    "
            print(f"{done}  {name}-{seed}: {RUNS[name].technique}")  # noqa: T201
        return 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bench = Bench(Path(os.environ.get("DATA_DIR") or parser.error("set DATA_DIR")), args.run_dir)
    todo = [(name, seed) for name, seed in wanted if not result(name, seed).exists()]
    if todo:
        bench.prepare()
    for name, seed in todo:
        bench.run(name, seed)
    return 0


def result(name: str, seed: int) -> Path:
    """Return where the figures of a run are kept."""
    return RESULTS / f"{name}-{seed}.json"


class Bench:
    """A folder with models, data and scores, and the runs in it."""

    def __init__(self, data: Path, folder: Path) -> None:
        self._given, self._folder = data, folder
        self._teacher = folder / "models" / "all-mpnet-base-v2"
        self._student = folder / "models" / "all-MiniLM-L6-v2"

    def prepare(self) -> None:
        """Make what all runs share: data, and scores of both teachers."""
        folder, given = self._folder, self._given
        stage(f"rag_core.demo_models --output_dir {folder}/models")
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        for name, source in (("wikiqa", "wikiqa"), ("semeval", "semeval_cqa_b"), ("scifact", "scifact")):
            for split in ("train", "dev", "test"):
                if (given / source / f"{split}.jsonl.gz").exists() and (name, split) != ("scifact", "train"):
                    shutil.copyfile(given / source / f"{split}.jsonl.gz", data / f"{name}_{split}.jsonl.gz")
        # The training lists of scifact are short: they are made again, from its corpus.
        beir = f"--source beir --input {given}/scifact --num_candidates 8 --drop_leaks --output_dir {folder}/scifact"
        stage(f"rag_core.prepare {beir}")
        own = f"--input {folder}/scifact/train.jsonl --splits scifact_train=0.85 scifact_dev=0.15"
        stage(f"rag_core.prepare --source jsonl {own} --output_dir {data}")
        corpus = f"{given}/scifact/corpus.jsonl.gz --num_queries 1700 --num_candidates 10 --dense_model {self._student}"
        splits = "corpus_train=0.9 corpus_dev=0.1"
        stage(f"rag_core.prepare --source corpus --input {corpus} --splits {splits} --output_dir {data}")
        # Questions are compared with questions, so those that were found may ask, too.
        archive = folder / "semeval_archive.jsonl"
        samples = read_samples(data / "semeval_train.jsonl.gz")
        asked = dict.fromkeys(passage for sample in samples for passage, _ in sample.passages())
        archive.write_text("".join(json.dumps({"text": text}) + "\n" for text in asked), encoding="utf-8")
        dense = f"--num_candidates 10 --dense_model {self._student}"
        splits = f"--splits archive_train=1 --output_dir {data}"
        stage(f"rag_core.prepare --source corpus --input {archive} --queries {archive} {dense} {splits}")
        # The anchors are of neither domain: docs of the installed packages.
        docs = "--source apidocs --num_candidates 8 --splits train=1 --limit train=500"
        stage(f"rag_core.prepare {docs} --output_dir {folder}/apidocs")
        for length, names in ((128, ("wikiqa",)), (256, ("semeval", "archive", "scifact", "corpus"))):
            found = [path for name in names for path in sorted(data.glob(f"{name}_*.jsonl*"))]
            files = " ".join(str(path) for path in found if path.suffix != ".json")  # without manifests
            flags = f"--teacher {self._teacher} --max_length {length} --output_dir {folder}/scores"
            stage(f"embedding_distillation.generate_logits {flags} --input_files {files}")

    def run(self, name: str, seed: int) -> None:
        """Distil, evaluate, and keep the figures."""
        run, folder = RUNS[name], self._folder
        model, report = self._train(name, seed), folder / "reports" / f"{name}-{seed}"
        # What the student was before is the same in every report of a pipeline.
        (report / "scores").mkdir(parents=True, exist_ok=True)
        for path in (folder / "reports").glob(f"{run.pipeline}-*/scores/*_before.jsonl*"):
            if not (report / "scores" / path.name).exists():
                shutil.copy(path, report / "scores")
        tests = [f"{folder}/data/{name}_test.jsonl.gz" for name in (run.tested_on, *_others(run))]
        teacher = [self._scores(run, "test"), *(f"{folder}/scores/{name}_test_logits.jsonl" for name in _others(run))]
        stage(
            f"{run.pipeline}_distillation.evaluate --before {self._student} --after {model} --dtype auto "
            f"--max_length 256 --seed {seed} --in_domain {tests[0]} --out_of_domain {tests[1]} {tests[2]} "
            f"--teacher_scores {' '.join(teacher)} --output_dir {report}"
        )
        store(f"{name}-{seed}", report / "report.json")

    def _train(self, name: str, seed: int) -> Path:
        run, folder = RUNS[name], self._folder
        model = folder / f"{name}-{seed}"
        flags = f"--student {self._student} --train_file {self._training_data(name)} --output_dir {model} --seed {seed}"
        if run.pipeline == "embedding" and "--merge off" not in run.train:
            flags += f" --dev_files {self._scores(run, 'dev')} --out_of_domain_dev_files"
            flags += "".join(f" {folder}/scores/{other}_dev_logits.jsonl" for other in _others(run))
            flags += f" --anchor_files {folder}/apidocs/train.jsonl" if run.anchors else ""
        stage(f"{run.pipeline}_distillation.train {flags} {run.train}")
        return model

    def _scores(self, run: Run, split: str) -> str:
        """Return the file of the run's teacher, made where it is not mpnet's; dev files are mpnet's or labelled."""
        name = {"train": run.trained_on, "dev": run.developed_on, "test": run.tested_on}[split]
        scores = f"{self._folder}/scores/{name}_{split}_logits.jsonl"
        if run.teacher == "ensemble":
            merged = scores.replace("_logits", "_ensemble")
            stage(f"rag_core.merge_scores --input_files {scores} --bm25 --weights 1 0.3 --output_file {merged}")
            return merged
        if run.teacher == "cross-encoder" and split == "train":
            teacher = self._train(CROSS_ENCODER, 1)
            flags = f"--teacher {teacher} --max_length 128 --output_suffix _reranker"
            data = f"{self._folder}/data/{run.trained_on}_{split}.jsonl.gz --output_dir {self._folder}/scores"
            stage(f"reranker_distillation.generate_logits {flags} --input_files {data}")
            return scores.replace("_logits", "_reranker")
        return scores

    def _training_data(self, name: str) -> Path:
        run = RUNS[name]
        output, scores = self._folder / "training", Path(self._scores(run, "train"))
        if name == "embedding-wikiqa_original":
            output.mkdir(exist_ok=True)
            pairs = output / "wikiqa_pairs.jsonl"
            subprocess.run([sys.executable, ROOT / "benchmarks" / "original_pairs.py", scores, pairs], check=True)
            return pairs
        suffix = f"_{name.replace('-', '_')}"
        listed = run.listed or run.pipeline == "embedding"
        module = "embedding_distillation.generate_scores" if listed else "reranker_distillation.create_triplets"
        stage(f"{module} --input_files {scores} --output_dir {output} --output_suffix {suffix} {run.derive}")
        return output / f"{scores.stem}{suffix}.jsonl"


def _others(run: Run) -> list[str]:
    return [name for name in ("semeval", "scifact", "wikiqa") if name != run.tested_on]


def stage(command: str) -> None:
    """Run a stage in a process of its own."""
    print("==", command, file=sys.stderr)  # noqa: T201
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True)


if __name__ == "__main__":
    sys.exit(main())
