"""Train a small bi-encoder on a teacher's soft labels, without making it forget what it knew.

SoftLabels -> sentence-transformers SentenceTransformer folder

python -m embedding_distillation.train --train_file data/train_logits_scores.jsonl --output_dir models/student

Every field of sentence-transformers' SentenceTransformerTrainingArguments is a flag under its own name, too, e.g.
--num_train_epochs 2 --learning_rate 5e-5 --report_to wandb. Batch sizes count queries. A run that was stopped goes
on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.processes import is_main_process
from rag_core.base.stage import run_stage
from rag_core.distillation.soft_labels import choose_temperature, read_soft_labels
from rag_core.distillation.train_args import TrainArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_samples
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

if TYPE_CHECKING:
    from embedding_distillation.losses import LossSettings
    from rag_core.distillation.weight_merging import Domain

logger = logging.getLogger(__name__)


def _merge(text: str) -> float | str:
    if text in ("auto", "off"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number, auto nor off") from error


@dataclasses.dataclass(kw_only=True)
class Args(TrainArgs):
    """Flags of the stage."""

    train_file: Path = flag("SoftLabels records, made by generate_scores", decides=False)
    output_dir: Path = flag("folder of the trained model", decides=False)
    student: str = flag("bi-encoder to train", "BAAI/bge-m3", decides=False)
    eval_file: Path | None = flag(
        "SoftLabels records of other queries, for the loss on unseen data", None, decides=False
    )
    loss: Literal["kl", "margin_mse", "mse", "kl+contrastive"] = flag(
        "what is learned: the teacher's distribution over the candidates, its margins, its vectors, or the first with "
        "in-batch negatives",
        "kl",
    )
    temperature: float | None = flag("temperature of both teacher and student", None, decides=False)
    teacher_temperature: float | None = flag(
        "what the teacher's scores are divided by (default: a share of their spread)", None
    )
    student_temperature: float = flag("what the student's cosines are divided by", 0.05)
    contrastive_weight: float = flag("kl+contrastive: weight of the contrastive term", 0.1)
    teacher: str | None = flag(
        "the embedder that made the scores: needed for mse; kl+contrastive then also masks false negatives among other "
        "queries' passages",
        None,
        decides=False,
    )
    anchor_files: list[Path] = flag(
        "RankingSample records from elsewhere (labels unused): their embeddings are held where they are",
        [],
        decides=False,
    )
    # On WikiQA (rate 4e-5, 2 epochs, one seed) weights of 0, 10 and 30 took the MAP of 362 dev queries from 0.694 to
    # 0.721, 0.718 and 0.718, and that of 400 queries of scifact from 0.685 to 0.668, 0.680 and 0.682.
    anchor_weight: float = flag("weight of the penalty on the anchors' drift, 1 - cosine of new and old", 30.0)
    anchors_per_query: int = flag("anchor texts beside each training query", 2)
    merge: str = flag(
        "interpolate with the student before training (with --init_layers: the shallow one): auto (chosen on the dev "
        "files; without any 0.5, and 1 with --init_layers), off, or the weight of the trained one; above 1 goes beyond "
        "it, as auto may where there are --out_of_domain_dev_files",
        "auto",
        type=_merge,
    )
    out_of_domain_dev_files: list[Path] = flag(
        "ScoredPair records on which the student must not get worse", [], decides=False
    )
    matryoshka_dims: list[int] | None = flag(
        "sizes to which embeddings may be cut: the loss is the mean over vectors cut to each (default: whole vectors)",
        None,
    )
    max_length: int = flag("tokens of a text while training; the model that comes out reads what it read before", 512)
    dropout: float | None = flag("dropout while training (default: as the student's own configuration says)", None)
    mini_batch_size: int = flag("texts in one forward pass; the texts of a batch are sorted by length", 32)


def run(args: Args) -> Path:
    """Train the student; return its folder."""
    _check_flags(args)
    hashes = check_inputs(
        [
            args.train_file,
            *filter(None, [args.eval_file]),
            *args.anchor_files,
            *args.dev_files,
            *args.out_of_domain_dev_files,
        ]
    )
    bad_rows = BadRows(skip=args.skip_bad_rows)
    groups = read_soft_labels(args.train_file, bad_rows)
    eval_groups = read_soft_labels(args.eval_file, bad_rows) if args.eval_file else None
    anchor_samples = [sample for path in args.anchor_files for sample in read_samples(path, bad_rows=bad_rows)]
    source = read_manifest(args.train_file) or UNKNOWN
    asked = args.teacher_temperature or args.temperature
    unit = source.score_unit or "unknown unit"
    distribution = args.loss.startswith("kl")
    temperature = choose_temperature(groups, asked, unit, args.train_file, as_distribution=distribution)

    from sentence_transformers import SentenceTransformerTrainingArguments

    from embedding_distillation.collator import draw_anchors
    from embedding_distillation.losses import LossSettings
    from embedding_distillation.training import Anchors, MergeSettings, StudentSettings, train
    from rag_core.distillation.checkpoints import Selection
    from rag_core.distillation.dev_set import DevSet
    from rag_core.distillation.trainer import DEFAULTS, card_settings, decisive_settings, parse_training_arguments
    from rag_core.engines.identity import describe_model

    domain_of: dict[Path, Domain] = dict.fromkeys(args.dev_files, "in-domain")
    domain_of |= dict.fromkeys(args.out_of_domain_dev_files, "out-of-domain")
    dev_sets = [(domain, DevSet.read(path, bad_rows=bad_rows)) for path, domain in domain_of.items()]
    selection = Selection(
        [dev_set for domain, dev_set in dev_sets if domain == "in-domain"],
        args.early_stopping_patience,
        args.average_checkpoints,
    )
    lora = args.lora()
    training_arguments = parse_training_arguments(
        SentenceTransformerTrainingArguments,
        args.further_flags,
        DEFAULTS,
        seed=args.seed,
        evaluates=args.eval_file is not None,
        selection=selection,
    )
    loss = LossSettings(
        loss=args.loss,
        teacher_temperature=temperature,
        student_temperature=args.temperature or args.student_temperature,
        contrastive_weight=args.contrastive_weight,
        anchor_weight=args.anchor_weight if args.anchor_files else 0.0,
        matryoshka_dims=tuple(args.matryoshka_dims or ()),
    )
    recipe = Recipe(
        stage="embedding_distillation.train",
        flags=decisive(args) | _named(loss) | decisive_settings(training_arguments, selection),
        inputs=hashes,
        model={
            **describe_model(args.student).identity,
            **({"teacher": describe_model(args.teacher).identity} if args.teacher else {}),
        },
    )
    check_output_folder(args.output_dir, [*hashes, args.student, *filter(None, [args.teacher])])
    if not args.overwrite and is_made(args.output_dir, recipe):
        logger.info("%s is finished already", args.output_dir)
        return args.output_dir
    with UnfinishedWork(args.output_dir, recipe, overwrite=args.overwrite) as work:
        facts = train(
            StudentSettings(args.student, args.max_length, args.dropout, args.mini_batch_size, args.init_layers, lora),
            groups,
            eval_groups,
            loss=loss,
            teacher=args.teacher,
            anchors=Anchors(draw_anchors(anchor_samples, args.seed), args.anchors_per_query),
            merge=MergeSettings(args.merge, dev_sets),  # type: ignore[arg-type]  # parsed by _merge
            selection=selection,
            training_arguments=training_arguments,
            checkpoints=work.directory,
            output_dir=args.output_dir,
        )
        if is_main_process():
            teacher = source.teacher
            settings = _named(loss) | card_settings(training_arguments)
            write_model_card(
                args.output_dir,
                command=shown_command("embedding_distillation.train", args),
                kind="bi-encoder",
                base_model=args.student,
                teacher=teacher,
                settings=settings,
                facts=facts,
            )
            write_manifest(args.output_dir, recipe, teacher=teacher, skipped={"bad_rows": len(bad_rows)}, **facts)
            work.remove()
    return args.output_dir


def _check_flags(args: Args) -> None:
    for name in ("temperature", "teacher_temperature", "student_temperature"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name} is {value:g}", "Pass a number above 0, or leave it out")
    if args.temperature and args.teacher_temperature:
        raise UsageError("both --temperature and --teacher_temperature are given", "Pass one of them")
    if args.loss == "mse" and args.matryoshka_dims:
        raise UsageError("--loss mse learns whole vectors", "Choose another loss for --matryoshka_dims")
    if args.loss == "mse" and not args.teacher:
        raise UsageError("--loss mse learns the teacher's vectors", "Pass --teacher, the embedder")
    if args.teacher and args.loss not in ("mse", "kl+contrastive"):
        raise UsageError(f"--loss {args.loss} needs the teacher's scores only", "Leave out --teacher")
    if isinstance(args.merge, float) and not 0 <= args.merge < math.inf:
        raise UsageError(f"--merge is {args.merge:g}", "Pass a weight of 0 or more, auto or off")
    if args.out_of_domain_dev_files and args.merge != "auto":
        raise UsageError(
            "--out_of_domain_dev_files are for --merge auto", f"Leave out --merge {args.merge}, or the files"
        )


def _named(loss: LossSettings) -> dict[str, Any]:
    """Return the settings by name; sizes only where there are any."""
    return {name: value for name, value in dataclasses.asdict(loss).items() if value != ()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
