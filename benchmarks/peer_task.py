"""One training of peers.py, in a process of its own: train one way with one rate and seed, measure, keep the figures.

All ways start from the same weights (a cross-encoder's head is drawn from the same seed), without dropout, in the same
precision, with the trainer's flags that our stages have by default. A list is a batch's row for both sides; lists of
sentence-transformers' embedders have a fixed number of columns, so there is one dataset for each length of list.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
import transformers.trainer
from datasets import Dataset, DatasetDict
from peer_ways import BEFORE, WAYS, Way
from sentence_transformers import CrossEncoder, SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder import losses as reranker_losses
from sentence_transformers.sentence_transformer import losses as embedder_losses
from transformers import PrinterCallback, TrainerCallback, set_seed

import embedding_distillation.train
import embedding_distillation.training
import reranker_distillation.train
import reranker_distillation.training
from rag_core.base.records import ScoredPair, SoftLabels, Triplet
from rag_core.distillation.dev_set import DevSet
from rag_core.distillation.soft_labels import choose_temperature, read_soft_labels
from rag_core.distillation.student import StudentSettings, in_training
from rag_core.distillation.train_args import DEFAULTS, parse_training_arguments
from rag_core.engines.identity import describe_model
from rag_core.files.atomic import atomic_write
from rag_core.files.jsonl import read_groups, read_records
from rag_core.files.manifest import UNKNOWN, read_manifest
from reranker_distillation.loss_settings import settle_loss

Job = dict[str, Any]
Model = SentenceTransformer | CrossEncoder
_WARM_UP = 0.05  # of the minutes; as DEFAULTS has it of the steps
_MANY_EPOCHS = 100_000


def run(job: Job, gate: Connection) -> None:
    """Do a job when the gate says so; what is printed goes to its log."""
    gate.recv()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        work = _embed if job["way"] == "vectors" else _measure_before if job["way"] == BEFORE else _train_and_measure
        with atomic_write(Path(job["output"])) as output:
            work(job, output)
    except BaseException:  # noqa: BLE001  # told in the log, and by the exit code
        traceback.print_exc()
        sys.exit(1)


class Watch(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Times a training, counts what goes through the student, and ends it after some minutes.

    With a limit the rate falls with the time instead of with the steps, so that it ends at 0 for slow ways, too:
    Li et al. 2020, "Budgeted Training", arXiv:1905.04753.
    """

    def __init__(self, rate: float, minutes: float | None) -> None:
        self._rate, self._limit = rate, minutes and 60 * minutes
        self.facts: dict[str, float] = {"passes": 0, "padded_tokens": 0}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._hook = model.register_forward_pre_hook(self._count)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = time.perf_counter()

    def _count(self, module: Any, inputs: Any) -> None:
        if module.training:
            self.facts["passes"] += len(inputs[0]["input_ids"])
            self.facts["padded_tokens"] += inputs[0]["input_ids"].numel()

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        if self._limit:
            share = min(1.0, (time.perf_counter() - self._started) / self._limit)
            for group in optimizer.param_groups:
                group["lr"] = self._rate * min(1.0, share / _WARM_UP) * (1 - share)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._limit and time.perf_counter() - self._started >= self._limit:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.facts["cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
        self.facts["seconds"] = time.perf_counter() - self._started
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert found is not None
        self.facts["rss_mib"] = int(found[1]) / 1024
        self.facts["steps"] = state.global_step
        self.facts["epochs"] = state.epoch
        self._hook.remove()


def _train_and_measure(job: Job, output: Any) -> None:
    way = WAYS[job["way"]]
    watch = Watch(job["rate"], job["minutes"])
    transformers.trainer.DEFAULT_CALLBACKS.append(watch)  # so that our stages have it, too
    started = time.perf_counter()
    model = _theirs(job, way) if way.loss else _ours(job, way)
    facts = watch.facts | {"wall_seconds": time.perf_counter() - started}
    _write(output, job, model, facts)


def _flags(job: Job, way: Way) -> list[str]:
    batch = job["batch_queries"] if way.rows == "lists" or not way.loss else job["batch_rows"]
    epochs = _MANY_EPOCHS if job["minutes"] else job["epochs"]
    return shlex.split(
        f"--num_train_epochs {epochs} --learning_rate {job['rate']} --per_device_train_batch_size {batch} "
        "--save_strategy no --eval_strategy no"
    )


def _ours(job: Job, way: Way) -> Model:
    folder = Path(job["output"]).with_suffix(".model")
    shutil.rmtree(folder, ignore_errors=True)
    stage = embedding_distillation.train if way.kind == "embedder" else reranker_distillation.train
    argv = ["--student", job["student"], "--train_file", job[way.rows], "--output_dir", str(folder), "--dropout", "0"]
    argv += ["--max_length", str(job["max_length"]), "--seed", str(job["seed"]), "--overwrite", *way.flags.split()]
    if way.merged:
        argv += ["--dev_files", job["dev"]]
        argv += ["--out_of_domain_dev_files", *job["dev_elsewhere"]] if job["dev_elsewhere"] else []
    code = stage.main([*argv, *_flags(job, way)])
    if code:
        raise SystemExit(code)
    model = _load(way.kind, str(folder), job)
    shutil.rmtree(folder)
    folder.with_name(f"{folder.name}.manifest.json").unlink(missing_ok=True)
    return model


def _load(kind: str, name: str, job: Job) -> Model:
    student = StudentSettings(describe_model(name), job["max_length"], dropout=0.0)
    stage = embedding_distillation.training if kind == "embedder" else reranker_distillation.training
    return stage.load_student(student)


def _theirs(job: Job, way: Way) -> Model:
    """Train as sentence-transformers' documentation has it."""
    embeds = way.kind == "embedder"
    arguments = parse_training_arguments(
        sentence_transformers.SentenceTransformerTrainingArguments if embeds else CrossEncoderTrainingArguments,
        _flags(job, way),
        DEFAULTS,
        seed=job["seed"],
        evaluates=False,
    )
    arguments.output_dir = str(Path(job["output"]).with_suffix(".checkpoints"))  # of which there are none
    set_seed(job["seed"])
    student = StudentSettings(describe_model(job["student"]), job["max_length"], dropout=0.0)
    model = _load(way.kind, job["student"], job)
    dataset = {"triplets": _triplets, "lists": _lists, "pairs": _pairs, "vectors": _vectors}[way.rows](job, way)
    settled = {"ours": _temperature, "teacher": _dimensions}
    settings = {name: settled[value](job) if value in settled else value for name, value in way.settings.items()}
    loss = getattr(embedder_losses if embeds else reranker_losses, way.loss)(model, **settings)
    with in_training(model, student):
        trainer = (SentenceTransformerTrainer if embeds else CrossEncoderTrainer)(
            model=model, args=arguments, train_dataset=dataset, loss=loss
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    shutil.rmtree(arguments.output_dir, ignore_errors=True)
    return model


def _triplets(job: Job, way: Way) -> Dataset:
    rows = list(read_records(Path(job["triplets"]), Triplet))
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in ("query", "positive", "negative")
    }
    return Dataset.from_dict(columns | {"score": _labels(job, way)([row.score for row in rows])})


def _lists(job: Job, way: Way) -> Dataset | DatasetDict:
    groups, labels = read_soft_labels(Path(job["lists"])), _labels(job, way)
    if way.kind == "reranker":
        columns = {"query": [group.query for group in groups], "docs": [group.passages for group in groups]}
        return Dataset.from_dict(columns | {"labels": [labels(group.scores) for group in groups]})
    by_length: defaultdict[int, list[SoftLabels]] = defaultdict(list)
    for group in groups:
        by_length[len(group.passages)].append(group)
    return DatasetDict(
        {
            f"lists_of_{length}": Dataset.from_dict(
                {
                    "query": [group.query for group in some],
                    **{f"passage_{place}": [group.passages[place] for group in some] for place in range(length)},
                    "label": [labels(group.scores) for group in some],
                }
            )
            for length, some in sorted(by_length.items())
        }
    )


def _pairs(job: Job, way: Way) -> Dataset:
    groups = read_soft_labels(Path(job["lists"]))
    pairs = [(group.query, passage) for group in groups for passage in group.passages]
    scores = _labels(job, way)([score for group in groups for score in group.scores])
    return Dataset.from_dict({"query": [q for q, _ in pairs], "passage": [p for _, p in pairs], "score": scores})


def _vectors(job: Job, way: Way) -> Dataset:
    return Dataset.from_dict({"text": _texts(job), "label": list(np.load(job["vectors"]))})


def _texts(job: Job) -> list[str]:
    groups = read_soft_labels(Path(job["lists"]))
    return list(dict.fromkeys(text for group in groups for text in (group.query, *group.passages)))


def _labels(job: Job, way: Way) -> Callable[[list[float]], list[float]]:
    """Return what makes labels of the teacher's scores, or margins."""
    low, factor = 0.0, 1.0
    if way.labels == "scaled":
        args = reranker_distillation.train.Args(train_file=Path(job["triplets"]), output_dir=Path())
        factor = settle_loss(args, [], _unit(job)).margin_scale
    elif way.labels == "sharp":
        factor = 1 / _temperature(job)
    elif way.labels == "unit":
        scores = [score for group in read_soft_labels(Path(job["lists"])) for score in group.scores]
        low, factor = min(scores), 1 / (max(scores) - min(scores))
    return lambda scores: [(score - low) * factor for score in scores]


def _unit(job: Job) -> str:
    return (read_manifest(Path(job["lists"])) or UNKNOWN).score_unit or "cosine"


def _temperature(job: Job) -> float:
    path = Path(job["lists"])
    return choose_temperature(read_soft_labels(path), None, _unit(job), path, as_distribution=True)


def _dimensions(job: Job) -> int:
    return int(np.load(job["vectors"], mmap_mode="r").shape[1])


def _embed(job: Job, output: Any) -> None:
    """Write the teacher's vectors of the training texts; their time and memory are not the student's."""
    teacher = _load("embedder", job["teacher"], job)
    np.save(output, teacher.encode(_texts(job), batch_size=64, normalize_embeddings=True, convert_to_numpy=True))


def _measure_before(job: Job, output: Any) -> None:
    tests = {name: _labelled(Path(path)) for name, path in job["tests"].items()}
    facts: dict[str, Any] = {"teacher": {}}
    for name, groups in tests.items():
        dev_set = DevSet.read(Path(job["tests"][name]))
        values = dev_set.reference.measure([np.array([pair.score for pair in group]) for group in groups])
        facts["teacher"][name] = [round(float(value), 4) for value in values["MAP"]]
    _write(output, job, _load("embedder", job["student"], job), facts)


def _labelled(path: Path) -> list[list[ScoredPair]]:
    """Return the groups of which a DevSet measures MAP, in its order."""
    groups = read_groups(path, ScoredPair)
    return [group for group in groups if {1, 0} <= {pair.label for pair in group}]


def _write(output: Any, job: Job, model: Model, facts: dict[str, Any]) -> None:
    model.eval()
    values = {
        name: DevSet.read(Path(path)).values(model, 64) for name, path in {"dev": job["dev"], **job["tests"]}.items()
    }
    on_gpu = torch.cuda.is_available()
    result = {
        **{name: job[name] for name in ("way", "rate", "seed")},
        "facts": facts,
        "dev": round(float(values.pop("dev").mean()), 6),
        "MAP": {name: [round(float(value), 4) for value in found] for name, found in values.items()},
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
    }
    output.write(json.dumps(result).encode())
