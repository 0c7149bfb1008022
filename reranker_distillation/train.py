"""Train a small cross-encoder on a teacher's score margins, or on its scores of whole lists.

Triplet (--loss margin_mse, ranknet) or SoftLabels (all other losses) -> sentence-transformers CrossEncoder folder

python -m reranker_distillation.train --train_file data/train_logits_triplets.jsonl --output_dir models/student

Every field of sentence-transformers' CrossEncoderTrainingArguments is a flag under its own name, too, e.g.
--num_train_epochs 2 --learning_rate 5e-5 --report_to wandb. Batch sizes count queries, not triplets. A run
that was stopped goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.flags import decisive, flag
from rag_core.base.processes import is_main_process
from rag_core.base.stage import run_stage
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import (
    UNKNOWN,
    Recipe,
    check_inputs,
    check_output_folder,
    is_made,
    read_manifest,
    write_manifest,
)
from rag_core.files.unfinished import UnfinishedWork
from rag_core.release.model_card import shown_command, write_model_card
from reranker_distillation.loss_settings import LossArgs, check_loss_flags, read_training_data, settle_loss

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(LossArgs):
    """Flags of the stage."""

    train_file: Path = flag(
        "Triplet records, made by create_triplets, or SoftLabels records, made by generate_scores", decides=False
    )
    output_dir: Path = flag("folder of the trained model", decides=False)
    student: str = flag(
        "cross-encoder to train; an encoder without a scoring head gets a fresh one",
        "BAAI/bge-reranker-v2-m3",
        decides=False,
    )
    eval_file: Path | None = flag("records of other queries, for the loss on unseen data", None, decides=False)
    max_length: int = flag(
        "tokens of query and passage together while training, the passage cut to fit; afterwards a cross-encoder reads "
        "as much as before, and one that is grown from a bi-encoder as much as this",
        4096,
    )
    dropout: float | None = flag("dropout while training (default: as the student's own configuration says)", None)
    mini_batch_size: int = flag("pairs in one forward pass; the pairs of a batch are sorted by length", 32)


def run(args: Args) -> Path:
    """Train the student; return its folder."""
    check_loss_flags(args)
    hashes = check_inputs([args.train_file, *filter(None, [args.eval_file]), *args.dev_files])
    bad_rows = BadRows(skip=args.skip_bad_rows)
    groups = read_training_data(args.train_file, args, bad_rows)
    eval_groups = read_training_data(args.eval_file, args, bad_rows) if args.eval_file else None
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    from rag_core.distillation.checkpoints import Selection
    from rag_core.distillation.dev_set import DevSet
    from rag_core.distillation.trainer import DEFAULTS, card_settings, decisive_settings, parse_training_arguments
    from rag_core.engines.identity import describe_model
    from reranker_distillation.training import train

    lora = args.lora()
    dev_sets = [DevSet.read(path, bad_rows=bad_rows) for path in args.dev_files]
    selection = Selection(dev_sets, args.early_stopping_patience, args.average_checkpoints)
    training_arguments = parse_training_arguments(
        CrossEncoderTrainingArguments,
        args.further_flags,
        DEFAULTS,
        seed=args.seed,
        evaluates=args.eval_file is not None,
        selection=selection,
    )
    source = read_manifest(args.train_file) or UNKNOWN
    loss = settle_loss(args, groups, args.train_file, source.score_unit)
    recipe = Recipe(
        stage="reranker_distillation.train",
        flags=decisive(args) | loss.own() | decisive_settings(training_arguments, selection),
        inputs=hashes,
        model=describe_model(args.student).identity,
    )
    check_output_folder(args.output_dir, [*hashes, args.student])
    if not args.overwrite and is_made(args.output_dir, recipe):
        logger.info("%s is finished already", args.output_dir)
        return args.output_dir
    with UnfinishedWork(args.output_dir, recipe, overwrite=args.overwrite) as work:
        facts = train(
            args.student,
            groups,
            eval_groups,
            loss=loss,
            max_length=args.max_length,
            dropout=args.dropout,
            init_layers=args.init_layers,
            lora=lora,
            selection=selection,
            mini_batch_size=args.mini_batch_size,
            training_arguments=training_arguments,
            checkpoints=work.directory,
            output_dir=args.output_dir,
        )
        if is_main_process():
            write_model_card(
                args.output_dir,
                command=shown_command("reranker_distillation.train", args),
                kind="cross-encoder",
                base_model=args.student,
                teacher=source.teacher,
                settings=loss.own() | card_settings(training_arguments),
                facts=facts,
            )
            write_manifest(
                args.output_dir, recipe, teacher=source.teacher, skipped={"bad_rows": len(bad_rows)}, **facts
            )
            work.remove()
    return args.output_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
