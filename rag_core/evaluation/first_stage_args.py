"""The flags of `evaluate` about what orders the candidates before the reranker, and how the two are mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import StageArgs

BM25_NAME = "bm25"
"""What stands for BM25 where a model may be named."""

AUTO = "auto"

_SCORES = (".jsonl", ".jsonl.gz")


@dataclasses.dataclass(kw_only=True)
class FirstStageArgs(StageArgs):
    """Flags of such a stage."""

    first_stage: list[str] = flag(
        "what orders the candidates before --after: bm25, a model, or ScoredPair files, one per evaluated file", [],
        decides=False,
    )  # fmt: skip
    mix: str | None = flag(
        "weight of --after in its mix with the first stage, 0 to 1, or auto: the best on --mix_dev (default: no mix)",
        None,
        decides=False,
        metavar="auto|WEIGHT",
    )
    mix_dev: Path | None = flag(
        "--mix auto: labelled samples that choose the weight; none of the evaluated files", None, decides=False
    )
    mix_dev_first_stage: Path | None = flag(
        "--mix auto, where --first_stage is files: the ScoredPair file of --mix_dev", None, decides=False
    )

    @property
    def first_stage_files(self) -> list[Path]:
        """The ScoredPair files of the first stage; none where it is BM25 or a model."""
        given = self.first_stage
        are_files = len(given) > 1 or any(name.endswith(_SCORES) or _is_no_folder(Path(name)) for name in given)
        return [Path(name) for name in given] if are_files else []

    @property
    def first_stage_model(self) -> str | None:
        """The model that is the first stage; `None` where it is BM25 or files."""
        return None if self.first_stage in ([], [BM25_NAME]) or self.first_stage_files else self.first_stage[0]

    @property
    def fixed_weight(self) -> float | None:
        """The weight that is asked for, `None` where there is none or it is to be chosen.

        Raises:
            UsageError: it is no number from 0 to 1.
        """
        if self.mix in (None, AUTO):
            return None
        try:
            weight = float(self.mix)
        except ValueError:
            weight = -1
        if not 0 <= weight <= 1:
            raise UsageError(f"--mix is {self.mix!r}", "Pass auto, or a number from 0 (first stage) to 1 (reranker)")
        return weight

    def mixing_inputs(self) -> list[Path]:
        """Return the files that these flags name."""
        return [*self.first_stage_files, *filter(None, [self.mix_dev, self.mix_dev_first_stage])]

    def mixing_recipe(self) -> dict[str, Any]:
        """Return what of these flags decides a report; nothing where there is no first stage."""
        return {"mix": self.mix} if self.first_stage else {}


def _is_no_folder(path: Path) -> bool:
    return path.exists() and not path.is_dir()  # a model is a folder; what is no regular file either is told later


def check_first_stage_flags(args: FirstStageArgs, files: Sequence[Path]) -> None:
    """Check that the flags go together.

    Args:
        files: that are evaluated.

    Raises:
        UsageError: they do not.
    """
    if not args.first_stage:
        for name in ("mix", "mix_dev", "mix_dev_first_stage"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} needs a first stage", "Pass --first_stage bm25, a model or files, too")
        return
    scores, fixed = args.first_stage_files, args.fixed_weight
    if scores and len(scores) != len(files):
        raise UsageError(
            f"{len(scores)} files of first-stage scores for {len(files)} files",
            "Pass --first_stage with one file per file of --in_domain and --out_of_domain, in their order",
        )
    if args.mix == AUTO:
        _check_auto(args, files)
    elif args.mix_dev or args.mix_dev_first_stage:
        given = "without --mix" if fixed is None else f"with the weight {args.mix}"
        raise UsageError(f"--mix_dev chooses a weight, and is given {given}", "Pass --mix auto, or leave it out")


def _check_auto(args: FirstStageArgs, files: Sequence[Path]) -> None:
    if args.mix_dev is None:
        raise UsageError("--mix auto needs labelled samples to choose by", "Pass --mix_dev FILE, or --mix WEIGHT")
    if bool(args.first_stage_files) != bool(args.mix_dev_first_stage):
        if args.mix_dev_first_stage:
            raise UsageError(
                "--mix_dev_first_stage is for a first stage of files", "Leave it out: the first stage scores --mix_dev"
            )
        raise UsageError(
            "--first_stage is files, which do not score --mix_dev", "Pass --mix_dev_first_stage FILE, or --mix WEIGHT"
        )
    if args.mix_dev.name in {path.name for path in files}:
        raise UsageError(
            f"--mix_dev and an evaluated file are both named {args.mix_dev.name}",
            "Pass another file, or rename it: a weight must not be chosen on what it is measured on",
        )
