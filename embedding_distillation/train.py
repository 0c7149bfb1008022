"""Train a small bi-encoder on a teacher's soft labels, without making it forget what it knew.

SoftLabels -> sentence-transformers SentenceTransformer folder

python -m embedding_distillation.train --train_file data/train_logits_scores.jsonl --output_dir models/student

Every field of sentence-transformers' SentenceTransformerTrainingArguments is also a flag, under its own name, e.g.
--num_train_epochs 2 --learning_rate 5e-5 --report_to wandb. Batch sizes count queries. To go on with a run that was
stopped, give the same command again: it starts from the last checkpoint.
--learning_rate auto tries three rates on a part of the queries first; --num_train_epochs auto depends on their number.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_distillation.loss_settings import (
    LossArgs,
    LossSettings,
    TrainingData,
    check_loss_flags,
    read_training_data,
    settle_loss,
)
from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import run_stage
from rag_core.distillation.retrieval_dev_set import RetrievalDevArgs
from rag_core.distillation.train_stage import Pipeline, train_student
from rag_core.engines.role_prompts import PromptNames
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Manifest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from rag_core.distillation.measuring import Measured
    from rag_core.distillation.student import StudentSettings
    from rag_core.distillation.trainer import TrainingRun
    from rag_core.distillation.weight_merging import Domain


def _merge(text: str) -> float | str:
    if text in ("auto", "off"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number, auto nor off") from error


_MOST_MERGE = 10  # beyond three times the way, weights are of no use


@dataclasses.dataclass(kw_only=True)
class Args(LossArgs, RetrievalDevArgs):
    """Flags of the stage."""

    train_file: Path = flag("SoftLabels records, made by generate_scores", decides=False)
    student: str = flag("bi-encoder to train", "BAAI/bge-m3", decides=False)
    max_length: int = flag("tokens of a text while training; the trained model reads as many as before", 512, least=1)
    merge: str = flag(
        "weight of the trained student beside the one before training (with --init_layers: the shallow one); above 1 "
        "goes beyond the trained one. auto chooses it on the dev files, and goes beyond 1 only with "
        "--out_of_domain_dev_files; without dev files it is 0.5, or 1 with --init_layers. off is 1",
        "auto",
        type=_merge,
    )
    out_of_domain_dev_files: list[Path] = flag(
        "ScoredPair records on which the student must not get worse", [], decides=False
    )


class _Embedder(Pipeline[Args, TrainingData, LossSettings]):
    stage = "embedding_distillation.train"
    kind = "bi-encoder"

    def inputs(self, args: Args) -> list[Path]:
        searched = [path for files in args.corpora() for path in files.all]
        return [*super().inputs(args), *args.anchor_files, *args.out_of_domain_dev_files, *searched]

    def dev_files(self, args: Args) -> list[tuple[Domain, Path]]:
        domains: dict[Path, Domain] = dict.fromkeys(args.dev_files, "in-domain")
        domains |= dict.fromkeys(args.out_of_domain_dev_files, "out-of-domain")
        return [(domain, path) for path, domain in domains.items()]

    def searched(self, args: Args, bad_rows: BadRows) -> Sequence[tuple[Domain, Measured]]:
        return args.retrieval_dev_sets(args.seed, bad_rows)

    def teacher(self, args: Args) -> str | None:
        return args.teacher

    def prompt_names(self, args: Args) -> PromptNames:
        return args.prompt_names()

    def arguments_type(self) -> type[SentenceTransformerTrainingArguments]:
        from sentence_transformers import SentenceTransformerTrainingArguments

        return SentenceTransformerTrainingArguments  # type: ignore[no-any-return]

    def read(self, args: Args, bad_rows: BadRows) -> TrainingData:
        return read_training_data(args, bad_rows)

    def settle(self, args: Args, data: TrainingData, source: Manifest) -> LossSettings:
        return settle_loss(args, data.train, source.score_unit)

    def load(self, student: StudentSettings) -> SentenceTransformer:
        from embedding_distillation.training import load_student

        return load_student(student)

    def train(self, args: Args, data: TrainingData, loss: LossSettings, run: TrainingRun) -> dict[str, Any]:
        from embedding_distillation.collator import Anchors
        from embedding_distillation.training import train

        anchors = Anchors.draw(data.anchors, args.anchors_per_query, args.seed)
        return train(data, loss, anchors, args.merge, run)


def run(args: Args) -> Path:
    """Train the student; return its folder."""
    check_loss_flags(args)
    if isinstance(args.merge, float) and not 0 <= args.merge <= _MOST_MERGE:
        raise UsageError(f"--merge is {args.merge:g}", f"Pass a weight from 0 to {_MOST_MERGE}, auto or off")
    if args.out_of_domain_dev_files and args.merge != "auto":
        raise UsageError(
            "--out_of_domain_dev_files are for --merge auto", f"Leave out --merge {args.merge}, or the files"
        )
    if args.corpora() and args.merge != "auto":
        raise UsageError("corpora to search are for --merge auto", f"Leave out --merge {args.merge}, or the corpora")
    return train_student(args, _Embedder())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
