"""The losses of a reranker: what each of them reads, and which flags belong to it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.records import SoftLabels, Triplet
from rag_core.distillation.soft_labels import choose_temperature, read_soft_labels
from rag_core.distillation.train_args import TrainArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups
from rag_core.retrieval.fusion import standardise

LossName = Literal["margin_mse", "margin_mse+mse", "ranknet", "kl", "listnet", "plistmle", "adr_mse", "lambda"]
Weighting = Literal["none", "margin"]
ScoreScaling = Literal["none", "standardise"]
Groups = list[list[Triplet]] | list[SoftLabels]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Queries that are trained on, and others for the loss on unseen data."""

    train: Groups
    eval: Groups | None = None


# These are means over triplets. All others are means over queries: a list is learned as a whole.
PAIRWISE: frozenset[LossName] = frozenset({"margin_mse", "ranknet"})

# Factors that bring a teacher's margins near 1: cosines differ by tenths, fused reciprocal ranks by thousandths.
_MARGIN_SCALES = {"cosine": 20.0, "reciprocal rank": 1000.0}

_FLAGS_OF: dict[str, tuple[LossName, ...]] = {
    "margin_scale": ("margin_mse", "margin_mse+mse"),
    "weighting": ("margin_mse", "ranknet"),
    "mse_weight": ("margin_mse+mse",),
    "score_scaling": ("margin_mse+mse", "kl", "listnet"),
    "teacher_temperature": ("kl", "listnet"),
    "student_temperature": ("kl",),
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class LossArgs(TrainArgs):
    """Flags of the stage that are about the loss."""

    loss: LossName = flag(
        "what is learned. Of Triplet records: the margins (margin_mse), or which of two is better (ranknet). Of "
        "SoftLabels records: margins and level of the scores (margin_mse+mse), their distribution (kl, listnet), or "
        "their order (plistmle, adr_mse, lambda)",
        "margin_mse",
    )
    margin_scale: float | None = flag(
        "margin_mse, margin_mse+mse: factor on the teacher's margins (default: 20 for cosines, which differ by tenths, "
        "1000 for fused reciprocal ranks, else 1)",
        None,
    )
    weighting: Weighting = flag(
        "margin_mse, ranknet: all triplets count the same (none), or in proportion to the teacher's margin (margin)",
        "none",
    )
    mse_weight: float = flag("margin_mse+mse: weight of the squared error of single scores", 0.1, least=0)
    score_scaling: ScoreScaling = flag(
        "margin_mse+mse, kl, listnet: the teacher's scores as they are (none), or with mean 0 and standard deviation 1 "
        "in each query (standardise); for triplets, run merge_scores before create_triplets",
        "none",
    )
    teacher_temperature: float | None = flag(
        "kl, listnet: what the teacher's scores are divided by (default: a share of their spread)", None
    )
    student_temperature: float = flag("kl: what the student's scores are divided by", 1.0)


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """The flags of `LossArgs`, with nothing left open; those of other losses have no effect."""

    loss: LossName
    margin_scale: float = 1.0
    weighting: Weighting = "none"
    mse_weight: float = 0.1
    score_scaling: ScoreScaling = "none"
    teacher_temperature: float = 1.0
    student_temperature: float = 1.0

    def own(self) -> dict[str, Any]:
        """Return the loss and the settings that have an effect on it."""
        settings = dataclasses.asdict(self)
        return {name: settings[name] for name in settings if self.loss in _FLAGS_OF.get(name, (self.loss,))}


def check_loss_flags(args: LossArgs) -> None:
    """Refuse values that make no sense, and flags of another loss.

    Raises:
        UsageError: there is such a flag.
    """
    for name in ("margin_scale", "mse_weight", "teacher_temperature", "student_temperature"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name} is {value:g}", "Pass a number above 0, or leave it out")
    defaults = {field.name: field.default for field in dataclasses.fields(LossArgs)}
    for name, losses in _FLAGS_OF.items():
        if args.loss not in losses and getattr(args, name) != defaults[name]:
            raise UsageError(
                f"--{name} has no effect on --loss {args.loss}", f"Leave it out, or choose {' or '.join(losses)}"
            )


def read_training_data(args: LossArgs, bad_rows: BadRows) -> TrainingData:
    """Read what the loss learns from: Triplet records grouped by query, or SoftLabels, one row per query.

    Raises:
        DataError: as `read_groups` and `read_soft_labels`; the records are of the other kind.
    """
    return TrainingData(
        train=_read(args.train_file, args, bad_rows),
        eval=_read(args.eval_file, args, bad_rows) if args.eval_file else None,
    )


def _read(path: Path, args: LossArgs, bad_rows: BadRows) -> Groups:
    if args.loss in PAIRWISE:
        return read_groups(path, Triplet, bad_rows=bad_rows)
    groups = read_soft_labels(path, bad_rows)
    if args.score_scaling == "standardise":
        return [dataclasses.replace(group, scores=standardise(group.scores).tolist()) for group in groups]
    return groups


def settle_loss(args: LossArgs, groups: Groups, score_unit: str | None) -> LossSettings:
    """Choose the factor on margins and the teacher's temperature where they were left open.

    Args:
        groups: of the training file.
        score_unit: of the file's scores, `None` where unknown.

    Raises:
        DataError: as `choose_temperature`.
    """
    unit = "standard deviations" if args.score_scaling == "standardise" else score_unit or "unknown unit"
    margin_scale, temperature = 1.0, 1.0
    if args.loss in _FLAGS_OF["margin_scale"]:
        margin_scale = args.margin_scale or _MARGIN_SCALES.get(unit, 1.0)
        logger.info("margins of %s times %g", unit, margin_scale)
    if args.loss in _FLAGS_OF["teacher_temperature"]:
        lists = [group for group in groups if isinstance(group, SoftLabels)]
        temperature = choose_temperature(lists, args.teacher_temperature, unit, args.train_file, as_distribution=True)
    return LossSettings(
        loss=args.loss,
        margin_scale=margin_scale,
        weighting=args.weighting,
        mse_weight=args.mse_weight,
        score_scaling=args.score_scaling,
        teacher_temperature=temperature,
        student_temperature=args.student_temperature,
    )
