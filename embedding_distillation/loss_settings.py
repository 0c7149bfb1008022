"""The losses of an embedder: what each of them learns from, and which flags belong to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.records import RankingSample, SoftLabels
from rag_core.distillation.soft_labels import choose_temperature, read_soft_labels
from rag_core.distillation.train_args import TrainArgs
from rag_core.engines.role_prompts import PromptArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_samples

LossName = Literal["kl", "margin_mse", "mse", "kl+contrastive"]


@dataclasses.dataclass(kw_only=True)
class LossArgs(TrainArgs, PromptArgs):
    """Flags of the stage that are about the loss."""

    loss: LossName = flag(
        "what is learned: the teacher's distribution over the candidates (kl), its margins (margin_mse), its vectors "
        "(mse), or the distribution and in-batch negatives (kl+contrastive)",
        "kl",
    )
    temperature: float | None = flag("temperature of both teacher and student", None, decides=False)
    teacher_temperature: float | None = flag(
        "what the teacher's scores are divided by (default: a share of their spread)", None
    )
    student_temperature: float = flag("what the student's cosines are divided by", 0.05)
    contrastive_weight: float = flag("kl+contrastive: weight of the contrastive term", 0.1, least=0)
    teacher: str | None = flag(
        "the embedder that made the scores: mse needs it; kl+contrastive then also masks false negatives among the "
        "passages of other queries",
        None,
        decides=False,
    )
    anchor_files: list[Path] = flag(
        "RankingSample records from elsewhere (labels unused): training keeps their embeddings where they are",
        [],
        decides=False,
    )
    # On WikiQA (rate 4e-5, 2 epochs, one seed) weights of 0, 10 and 30 took the MAP of 362 dev queries from 0.694 to
    # 0.721, 0.718 and 0.718, and that of 400 queries of scifact from 0.685 to 0.668, 0.680 and 0.682.
    anchor_weight: float = flag("weight of the penalty on the anchors' drift, 1 - cosine of new and old", 30.0, least=0)
    anchors_per_query: int = flag("anchor texts beside each training query", 2, least=0)
    matryoshka_dims: list[int] | None = flag(
        "sizes to which embeddings may be cut: the loss is the mean over vectors cut to each (default: whole vectors)",
        None,
    )


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What a `losses.DistillationLoss` adds up.

    Attributes:
        teacher_temperature, student_temperature: what scores are divided by.
        contrastive_weight: of the contrastive term beside the KL divergence (`kl+contrastive`).
        anchor_weight: of the penalty on drift of the anchor texts' embeddings; 0 where there are none.
        matryoshka_dims: the loss is the mean over these numbers of first dimensions; all dimensions where empty.
    """

    loss: LossName
    teacher_temperature: float
    student_temperature: float
    contrastive_weight: float
    anchor_weight: float
    matryoshka_dims: tuple[int, ...] = ()

    @property
    def is_of_lists(self) -> bool:
        """Whether it is a mean over queries, each with its own candidates: the others compare all texts of a batch."""
        return self.loss in ("kl", "margin_mse")

    def own(self) -> dict[str, Any]:
        """Return the settings by name; sizes only where there are any."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != ()}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Queries that are trained on, others for the loss on unseen data, and samples whose embeddings are to stay."""

    train: list[SoftLabels]
    eval: list[SoftLabels] | None = None
    anchors: list[RankingSample] = dataclasses.field(default_factory=list)


def check_loss_flags(args: LossArgs) -> None:
    """Refuse values that make no sense, and flags that contradict each other.

    Raises:
        UsageError: there is such a flag.
    """
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


def read_training_data(args: LossArgs, bad_rows: BadRows) -> TrainingData:
    """Read the soft labels and the samples of the anchors.

    Raises:
        DataError: as `read_soft_labels` and `read_samples`.
    """
    return TrainingData(
        train=read_soft_labels(args.train_file, bad_rows),
        eval=read_soft_labels(args.eval_file, bad_rows) if args.eval_file else None,
        anchors=[sample for path in args.anchor_files for sample in read_samples(path, bad_rows=bad_rows)],
    )


def settle_loss(args: LossArgs, groups: list[SoftLabels], score_unit: str | None) -> LossSettings:
    """Choose the teacher's temperature where it was left open.

    Args:
        groups: of the training file.
        score_unit: of the file's scores, `None` where unknown.

    Raises:
        DataError: as `choose_temperature`.
    """
    return LossSettings(
        loss=args.loss,
        teacher_temperature=choose_temperature(
            groups,
            args.teacher_temperature or args.temperature,
            score_unit or "unknown unit",
            args.train_file,
            as_distribution=args.loss.startswith("kl"),
        ),
        student_temperature=args.temperature or args.student_temperature,
        contrastive_weight=args.contrastive_weight,
        anchor_weight=args.anchor_weight if args.anchor_files else 0.0,
        matryoshka_dims=tuple(args.matryoshka_dims or ()),
    )
