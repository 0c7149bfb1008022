"""Training a reranker on triplets: one by one, as sentence-transformers' MarginMSELoss does, or grouped, as here.

OMP_NUM_THREADS=1 python benchmarks/training.py [--queries 32] [--batch_queries 8] [--dtype float32]

Same student (a cross-encoder grown from the model, no dropout, the same fresh head), same triplets in the same steps,
same precision. The plain way has the triplets of one query in a batch, and accumulates as many batches as a step
here has queries. The teacher is BM25: its scores have no say in what it costs to learn them.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measurement import by_turns, fill_in, finish, make_parser, row
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import MarginMSELoss
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, set_seed

from rag_core.base.errors import DataError
from rag_core.base.records import ScoredPair, Triplet
from rag_core.distillation.student import StudentSettings
from rag_core.distillation.train_args import parse_training_arguments
from rag_core.distillation.trainer import TrainingRun
from rag_core.engines.identity import describe_model
from rag_core.files.jsonl import read_samples
from rag_core.retrieval.bm25 import bm25_scores
from reranker_distillation import create_triplets
from reranker_distillation.loss_settings import LossSettings, TrainingData
from reranker_distillation.training import load_student, train
from reranker_distillation.triplets import make_triplets

MAX_LENGTH = 512


@dataclasses.dataclass
class Training:
    """What a training took and did: the losses of its steps, and what went through the student."""

    seconds: float = 0.0
    losses: list[float] = dataclasses.field(default_factory=list)
    passes: int = 0
    padded_tokens: int = 0


def main() -> int:
    """Measure, print and write."""
    triplet_flags = {field.name: field.default for field in dataclasses.fields(create_triplets.Args)}
    parser = make_parser(__doc__, "training")
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--batch_queries", type=int, default=8, help="queries in a step")
    parser.add_argument("--top_k", type=int, default=triplet_flags["top_k"])
    parser.add_argument("--num_negatives", type=int, default=int(str(triplet_flags["num_negatives"])))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    settings = fill_in(args)
    groups = read_triplets(args.input_file, args.queries, args.top_k, args.num_negatives)
    per_query = len(groups[0])
    student = StudentSettings(describe_model(str(args.model)), MAX_LENGTH, dropout=0.0)

    def arguments(batch: int, accumulated: int) -> CrossEncoderTrainingArguments:
        flags = f"--per_device_train_batch_size {batch} --gradient_accumulation_steps {accumulated} --logging_steps 1"
        found = parse_training_arguments(
            CrossEncoderTrainingArguments,
            f"{flags} --learning_rate 2e-4 --save_strategy no --bf16 {args.dtype == 'bfloat16'}".split(),
            {"report_to": "none", "num_train_epochs": 1.0},
            seed=args.seed,
            evaluates=False,
        )
        found.batch_sampler = in_order
        return found

    ways = {
        "plain": lambda: plain(student, groups, arguments(per_query, args.batch_queries)),
        "grouped": lambda: grouped(student, groups, arguments(args.batch_queries, 1)),
    }
    runs = {
        name: [dataclasses.replace(run, seconds=run.value.seconds) for run in taken]
        for name, taken in by_turns(ways, args.repeats).items()
    }
    theirs, ours = (runs[name][0].value for name in ("plain", "grouped"))
    apart = max(abs(one - other) / one for one, other in zip(theirs.losses, ours.losses, strict=True))
    found = row(
        f"train a reranker, {args.dtype}",
        ("MarginMSELoss, triplet by triplet", runs["plain"]),
        ("grouped by query", runs["grouped"]),
        per_query * len(groups),
        "triplets",
    )
    found["result"] = (
        f"losses of {len(ours.losses)} steps differ by at most {apart:.1e} of their value; "
        f"{theirs.passes:,} passes, {ours.passes:,} grouped"
    )
    found["losses_theirs"], found["losses_ours"] = theirs.losses, ours.losses
    found["padded_tokens_theirs"], found["padded_tokens_ours"] = theirs.padded_tokens, ours.padded_tokens
    finish(args.output, settings, [found])
    return 0


def read_triplets(path: Path, queries: int, top_k: int, num_negatives: int) -> list[list[Triplet]]:
    """Return the triplets of the first queries that have them all."""
    samples = read_samples(path)
    groups = []
    for number, (sample, scores) in enumerate(zip(samples, bm25_scores(samples), strict=True)):
        pairs = [
            ScoredPair(str(number), sample.query, passage, score)
            for (passage, _), score in zip(sample.passages(), scores, strict=True)
        ]
        triplets = make_triplets(
            pairs,
            top_k=top_k,
            num_negatives=num_negatives,
            sampling="next",
            min_margin=0.0,
            generator=random.Random(0),
        )
        groups.append(list(triplets))
    whole = [group for group in groups if len(group) == top_k * num_negatives][:queries]
    if len(whole) < queries:
        raise DataError(f"has {len(whole)} queries with enough candidates", f"Pass --queries {len(whole)}", path=path)
    return whole


def plain(student: StudentSettings, groups: list[list[Triplet]], arguments: CrossEncoderTrainingArguments) -> Training:
    """Train as the documentation of sentence-transformers has it: one row per triplet, two passes each."""
    set_seed(arguments.seed)
    model = load_student(student)
    triplets = [triplet for group in groups for triplet in group]
    columns = {name: [getattr(t, name) for t in triplets] for name in ("query", "positive", "negative", "score")}
    with tempfile.TemporaryDirectory() as folder, counted() as training:
        arguments.output_dir = folder
        trainer = CrossEncoderTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=MarginMSELoss(model)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    log = trainer.state.log_history
    training.losses, training.seconds = losses_of(log), log[-1]["train_runtime"]
    return training


def grouped(
    student: StudentSettings, groups: list[list[Triplet]], arguments: CrossEncoderTrainingArguments
) -> Training:
    """Train as the stage does."""
    with tempfile.TemporaryDirectory() as folder, counted() as training:
        arguments.output_dir = str(Path(folder) / "checkpoints")
        run = TrainingRun(student, arguments, Path(folder) / "model")
        train(TrainingData(groups), LossSettings("margin_mse"), run)
        log = json.loads((Path(folder) / "model" / "training_log.json").read_text())
    training.losses, training.seconds = losses_of(log), log[-1]["seconds"]  # the facts have tenths only
    return training


@contextmanager
def counted() -> Iterator[Training]:
    """Count what goes through any cross-encoder."""
    training = Training()

    def count(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, CrossEncoder):
            training.passes += len(inputs[0]["input_ids"])
            training.padded_tokens += inputs[0]["input_ids"].numel()

    handle = register_module_forward_pre_hook(count)
    try:
        yield training
    finally:
        handle.remove()


def losses_of(log: list[dict[str, float]]) -> list[float]:
    """Return the losses in a trainer's log, in the order of their steps."""
    return [entry["loss"] for entry in log if "loss" in entry]


def in_order(dataset: Dataset, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
    """Return the batches of a file from its beginning to its end."""
    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)


if __name__ == "__main__":
    sys.exit(main())
