"""The jobs of studies.py: which sets, which ways, and the commands of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Pipeline = Literal["embedding", "reranker"]

# Tokens of a text (embedder) or of a pair (cross-encoder).
SETS = {"wikiqa": 128, "semeval": 256, "scifact": 256, "docs": 128}
SOURCES = {"wikiqa": "wikiqa", "semeval": "semeval_cqa_b", "scifact": "scifact", "docs": "docs"}
QUERIES = {"wikiqa": 856, "semeval": 228, "scifact": 685, "docs": 1500}  # to train on

_BATCHES = "--mini_batch_size 128 --per_device_eval_batch_size 128"
_EMBEDDER = f"--dropout 0 {_BATCHES}"
_QUIET = "--eval_strategy no"  # dev files choose the merge; only an automatic rate is watched on the way
_RERANKER = f"--dropout 0 {_BATCHES} --per_device_train_batch_size 8 --loss kl"
CANDIDATES = 30  # of the studies that mine them

# Flags of `prepare` that mine candidates out of the corpus, for the queries that are trained on.
MINED = {
    "bm25": "",
    "student": "--dense_model {student}",
    "both": "--dense_model {student} {teacher}",
    "both_random": "--dense_model {student} {teacher} --random_share 0.25",
    "disagreement": "--dense_model {student} {teacher} --prefer disagreement",
}
# Of 30 candidates the teacher scores so many of the best and so many others.
PRESCREENED = {"all": "", "half": "11 4", "quarter": "6 2", "half_random": "1 14", "quarter_random": "1 7"}


@dataclass(frozen=True)
class Places:
    """Where everything is."""

    given: Path
    models: Path
    work: Path

    @property
    def student(self) -> Path:
        """Return the folder of the 22M embedder."""
        return self.models / "all-MiniLM-L6-v2"

    @property
    def teacher(self) -> Path:
        """Return the folder of the 110M embedder."""
        return self.models / "all-mpnet-base-v2"

    def data(self, name: str, split: str) -> Path:
        """Return samples."""
        return self.work / "data" / name / f"{name}_{split}.jsonl"

    def scores(self, name: str, split: str) -> Path:
        """Return the teacher's scores of them."""
        return self.work / "scores" / f"{name}_{split}_logits.jsonl"

    def lists(self, name: str) -> Path:
        """Return the soft labels of a training file."""
        return self.work / "lists" / f"{name}_logits_scores.jsonl"


@dataclass(frozen=True)
class Job:
    """A training and its evaluation.

    Attributes:
        folder: of the trained `model` and its `report`.
        commands: stages in their order, as after `python -m`.
    """

    study: str
    trained_on: str
    pipeline: Pipeline
    way: str
    seed: int
    folder: Path
    commands: list[str]

    @property
    def name(self) -> str:
        """Return a name that no other job has."""
        return f"{self.study}-{self.pipeline}-{self.trained_on}-{self.way}-{self.seed}"


def epochs(queries: int) -> int:
    """Return the epochs of `--num_train_epochs auto`, for the ways whose rate is fixed."""
    return min(5, max(1, math.ceil(1500 / queries)))


def recipes(places: Places, seed: int) -> Iterator[Job]:
    """Yield the one default beside recipes that were tuned on one of the sets, and fixed rates."""
    anchor = places.data("docs", "train")
    for name in SETS:
        anchors = f"--anchor_files {places.data('wikiqa', 'train') if name == 'docs' else anchor}"
        ways = {
            "auto": "--learning_rate auto --num_train_epochs auto",
            "tuned": f"--learning_rate 4e-5 --num_train_epochs 2 {anchors}",
            "quickstart": "--learning_rate 1.5e-4 --num_train_epochs 1",
            **{
                f"rate_{rate}": f"--learning_rate {rate} --num_train_epochs {epochs(QUERIES[name])}"
                for rate in ("2e-5", "6e-5", "2e-4")
            },
        }
        for way, flags in ways.items():
            yield _job(places, "recipes", name, "embedding", way, seed, f"{_EMBEDDER} {flags}")
        ways = {
            "auto": "--learning_rate auto --num_train_epochs auto",
            "tuned": "--learning_rate 1.5e-4 --num_train_epochs 2",
            "quickstart": "--learning_rate 2e-4 --num_train_epochs 1",
        }
        for way, flags in ways.items():
            yield _job(places, "recipes", name, "reranker", way, seed, f"{_RERANKER} {flags}")


def candidates(places: Places, seed: int) -> Iterator[Job]:
    """Yield ways to mine the same number of candidates."""
    for name in ("scifact", "wikiqa"):
        for way in MINED:
            flags = f"{_EMBEDDER} --learning_rate 6e-5 --num_train_epochs {epochs(QUERIES[name])}"
            yield _job(places, "candidates", name, "embedding", way, seed, flags, lists=f"{name}_{way}")


def prescreen(places: Places, seed: int) -> Iterator[Job]:
    """Yield shares of the candidates that the teacher scored."""
    for name in ("scifact", "wikiqa"):
        pipelines: dict[Pipeline, str] = {
            "embedding": f"{_EMBEDDER} --learning_rate 6e-5 --num_train_epochs {epochs(QUERIES[name])}",
            "reranker": f"{_RERANKER} --learning_rate 1.5e-4 --num_train_epochs 1",
        }
        for pipeline, flags in pipelines.items():
            for way in PRESCREENED:
                yield _job(places, "prescreen", name, pipeline, way, seed, flags, lists=f"{name}_both_{way}")


def grown(places: Places, seed: int) -> Iterator[Job]:
    """Yield ways to a cross-encoder beside the embedder that was distilled from the same lists, which it reorders."""
    for name in ("wikiqa", "semeval", "docs"):
        for way in ("plain", "distilled", "warm"):
            folder = places.work / "grown" / f"reranker-{name}-{way}-{seed}"
            embedder, cheap = folder / "embedder", folder / "cheap"
            lists = places.lists(f"{name}_train")
            common = f"--seed {seed} --max_length {SETS[name]}"
            dev = " ".join(str(places.scores(other, "dev")) for other in _others(name))
            rate = f"--learning_rate 6e-5 --num_train_epochs {epochs(QUERIES[name])}"
            learn = (
                f"reranker_distillation.train {common} {_RERANKER} {_QUIET} --learning_rate 1.5e-4 --num_train_epochs 1"
            )
            commands = [
                f"embedding_distillation.train --student {places.student} --train_file {lists} --output_dir {embedder} "
                f"{common} {_EMBEDDER} {_QUIET} {rate} --dev_files {places.scores(name, 'dev')} "
                f"--out_of_domain_dev_files {dev}",
            ]
            start = {"plain": places.student, "distilled": embedder, "warm": folder / "warm"}[way]
            if way == "warm":
                mined = f"{places.work}/mined/{name}_bm25.jsonl"
                commands += [
                    f"embedding_distillation.generate_logits --teacher {embedder} --max_length {SETS[name]} "
                    f"--input_files {mined} --output_dir {cheap}",
                    f"embedding_distillation.generate_scores --input_files {cheap}/{name}_bm25_logits.jsonl "
                    f"--output_dir {cheap}",
                    f"{learn} --student {places.student} --train_file {cheap}/{name}_bm25_logits_scores.jsonl "
                    f"--output_dir {folder}/warm",
                ]
            commands += [
                f"{learn} --student {start} --train_file {lists} --output_dir {folder}/model",
                f"reranker_distillation.evaluate --before {embedder} --after {folder}/model --first_stage {embedder} "
                f"--mix auto --mix_dev {places.data(name, 'dev')} --dtype auto --max_length 256 "
                f"--in_domain {places.data(name, 'test')} --teacher_scores {places.scores(name, 'test')} "
                f"--output_dir {folder}/report",
            ]
            yield Job("grown", name, "reranker", way, seed, folder, commands)


STUDIES: dict[str, Callable[[Places, int], Iterator[Job]]] = {
    "recipes": recipes,
    "candidates": candidates,
    "prescreen": prescreen,
    "grown": grown,
}


def _job(  # noqa: PLR0917  # what makes a job's name, and its flags
    places: Places, study: str, name: str, pipeline: Pipeline, way: str, seed: int, flags: str, *, lists: str = ""
) -> Job:
    folder = places.work / study / f"{pipeline}-{name}-{way}-{seed}"
    others = _others(name)
    flags += "" if "auto" in flags else f" {_QUIET}"
    train = (
        f"{pipeline}_distillation.train --student {places.student} --output_dir {folder}/model --seed {seed} "
        f"--train_file {places.lists(lists or f'{name}_train')} --max_length {SETS[name]} {flags}"
    )
    if pipeline == "embedding":
        dev = " ".join(str(places.scores(other, "dev")) for other in others)
        train += f" --dev_files {places.scores(name, 'dev')} --out_of_domain_dev_files {dev}"
    elif "auto" in flags:
        train += f" --dev_files {places.scores(name, 'dev')}"
    tests = [places.data(other, "test") for other in (name, *others)]
    scores = " ".join(str(places.scores(other, "test")) for other in (name, *others))
    evaluate = (
        f"{pipeline}_distillation.evaluate --before {places.student} --after {folder}/model --dtype auto "
        f"--batch_size 128 --max_length 256 --in_domain {tests[0]} --out_of_domain {tests[1]} {tests[2]} "
        f"--teacher_scores {scores} --output_dir {folder}/report"
    )
    if pipeline == "reranker" and study == "recipes":
        evaluate += f" --first_stage {places.student} --mix auto --mix_dev {places.data(name, 'dev')}"
    if pipeline == "embedding" and study in ("candidates", "recipes"):
        evaluate += _searches(places, name)
    return Job(study, name, pipeline, way, seed, folder, [train, evaluate])


def _others(name: str) -> list[str]:
    return [other for other in ("wikiqa", "semeval", "scifact") if other != name][:2]


def _searches(places: Places, name: str) -> str:
    """Return the flags that measure search over the corpus of a set, and over that of another."""
    other = "wikiqa" if name == "scifact" else "scifact"
    flags = f" --corpus_teacher {places.teacher} --score_store {places.work}/store"
    for prefix, corpus in (("", name), ("out_of_domain_", other)):
        if corpus == "scifact":
            beir = places.given / "scifact"
            flags += f" --{prefix}corpus {beir}/corpus.jsonl.gz --{prefix}qrels {beir}/qrels/test.tsv"
        else:
            files = " ".join(str(places.data(corpus, split)) for split in ("test", "train"))
            flags += f" --{prefix}corpus {files}"
    return flags
