"""Train a small cross-encoder on a teacher's score margins, or on its scores of whole lists.

Triplet (--loss margin_mse, ranknet) or SoftLabels (all other losses) -> sentence-transformers CrossEncoder folder

python -m reranker_distillation.train --train_file data/train_logits_triplets.jsonl --output_dir models/student

Every field of sentence-transformers' CrossEncoderTrainingArguments is also a flag, under its own name, e.g.
--num_train_epochs 2 --learning_rate 5e-5 --report_to wandb. Batch sizes count queries, not triplets. To go on with a
run that was stopped, give the same command again: it starts from the last checkpoint.
--learning_rate auto tries three rates on a part of the queries first; --num_train_epochs auto depends on their number.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_core.base.flags import flag
from rag_core.base.stage import run_stage
from rag_core.distillation.train_stage import Pipeline, train_student
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Manifest
from reranker_distillation.loss_settings import (
    LossArgs,
    LossSettings,
    TrainingData,
    check_loss_flags,
    read_training_data,
    settle_loss,
)

if TYPE_CHECKING:
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainingArguments

    from rag_core.distillation.student import StudentSettings
    from rag_core.distillation.trainer import TrainingRun


@dataclasses.dataclass(kw_only=True)
class Args(LossArgs):
    """Flags of the stage."""

    train_file: Path = flag(
        "Triplet records, made by create_triplets, or SoftLabels records, made by generate_scores", decides=False
    )
    student: str = flag(
        "cross-encoder to train, or a bi-encoder, which gets a fresh scoring head",
        "BAAI/bge-reranker-v2-m3",
        decides=False,
    )
    max_length: int = flag(
        "tokens of query and passage together while training; the passage is cut to fit. Afterwards a cross-encoder "
        "reads as much as before training, and one that was grown from a bi-encoder as much as this",
        4096,
        least=1,
    )


class _Reranker(Pipeline[Args, TrainingData, LossSettings]):
    stage = "reranker_distillation.train"
    kind = "cross-encoder"

    def arguments_type(self) -> type[CrossEncoderTrainingArguments]:
        from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

        return CrossEncoderTrainingArguments  # type: ignore[no-any-return]

    def read(self, args: Args, bad_rows: BadRows) -> TrainingData:
        return read_training_data(args, bad_rows)

    def settle(self, args: Args, data: TrainingData, source: Manifest) -> LossSettings:
        return settle_loss(args, data.train, source.score_unit)

    def load(self, student: StudentSettings) -> CrossEncoder:
        from reranker_distillation.training import load_student

        return load_student(student)

    def train(self, args: Args, data: TrainingData, loss: LossSettings, run: TrainingRun) -> dict[str, Any]:
        from reranker_distillation.training import train

        return train(data, loss, run)


def run(args: Args) -> Path:
    """Train the student; return its folder."""
    check_loss_flags(args)
    return train_student(args, _Reranker())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
