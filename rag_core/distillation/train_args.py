"""The flags of both train stages: their own, and those of sentence-transformers' trainer."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rag_core.base.errors import UsageError
from rag_core.base.flags import check_number, flag
from rag_core.base.outside_text import first_line
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs

if TYPE_CHECKING:
    from sentence_transformers.base.training_args import BaseTrainingArguments

    from rag_core.distillation.checkpoints import Selection
    from rag_core.distillation.student import LoraSettings

T = TypeVar("T", bound="BaseTrainingArguments")

# The trainer's flags where they are not given; batch sizes count queries. For a reranker 16 queries of 8 x 4 triplets
# are the public recipe's batch of 512 triplets.
DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 1.0,
    "learning_rate": 2e-5,
    "warmup_steps": 0.05,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "logging_steps": 0.02,
    "save_steps": 0.1,
    "save_total_limit": 2,
    "report_to": "none",
}

# The trainer's settings, by the beginning of their names, that do not change the weights.
_WITHOUT_SAY = (
    "output_dir",
    "logging",
    "log_",
    "report_to",
    "run_name",
    "disable_tqdm",
    "save_",
    "dataloader_",
    "hub_",
    "ddp_",
    "local_rank",
)

_LEAST = {
    "learning_rate": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0,
    "max_grad_norm": 0,
}


@dataclasses.dataclass(kw_only=True)
class TrainArgs(SeedArgs, OverwriteArgs, BadRowsArgs):
    """Flags of a train stage; each pipeline adds those of its losses.

    Attributes:
        train_file, student, max_length: each pipeline declares them with its own help and default.
    """

    takes_further_flags: ClassVar[bool] = True

    train_file: Path
    output_dir: Path = flag("folder of the trained model", decides=False)
    student: str
    eval_file: Path | None = flag(
        "records of other queries, of the same kind as in --train_file, for the loss on unseen data",
        None,
        decides=False,
    )
    max_length: int
    dropout: float | None = flag(
        "dropout while training (default: as the student's own configuration says)", None, least=0, most=1
    )
    mini_batch_size: int = flag(
        "pairs (reranker) or texts (embedder) in one forward pass; those of a batch are sorted by length", 32, least=1
    )
    init_layers: int | None = flag(
        "start with only this many of the student's layers, evenly spaced, the first and the last among them "
        "(default: all)",
        None,
    )
    lora_rank: int | None = flag(
        "train low-rank adapters of this rank on all linear layers instead of the weights, and merge them before "
        "saving (default: train the weights)",
        None,
    )
    lora_alpha: float | None = flag(
        "the adapters' factor is this over the rank (default: twice the rank)", None, least=0
    )
    dev_files: list[Path] = flag(
        "ScoredPair records of in-domain queries that are not trained on, measured at every --eval_steps: MAP where "
        "there are labels, else agreement with the teacher; --load_best_model_at_end keeps the best checkpoint",
        [],
        decides=False,
    )
    early_stopping_patience: int | None = flag(
        "stop after this many evaluations without a new best, and keep the best (default: never)", None
    )
    average_checkpoints: int | None = flag(
        "keep the mean of this many of the last checkpoints (default: the last one)", None
    )

    def lora(self) -> LoraSettings | None:
        """Return the settings of the adapters, `None` where there are to be none.

        Raises:
            UsageError: the flags contradict each other.
        """
        from rag_core.distillation.student import LoraSettings

        if self.lora_rank is None:
            if self.lora_alpha is not None:
                raise UsageError("--lora_alpha has no effect without --lora_rank", "Pass both, or neither")
            return None
        if self.lora_rank < 1:
            raise UsageError(f"--lora_rank is {self.lora_rank}", "Pass 1 or more, or leave it out")
        if self.average_checkpoints is not None:
            raise UsageError(
                "adapters have no mean: the product of mean factors is not the mean of their products",
                "Pass --average_checkpoints or --lora_rank, not both",
            )
        return LoraSettings(self.lora_rank, 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha)


def parse_training_arguments(
    arguments_type: type[T],
    flags: Sequence[str],
    defaults: dict[str, Any],
    *,
    seed: int,
    evaluates: bool,
    selection: Selection | None = None,
) -> T:
    """Parse the trainer's own flags over our defaults.

    Args:
        defaults: take the place of what is settled here.
        evaluates: whether there is unseen data for the loss.

    Raises:
        UsageError: a flag is unknown, or values contradict each other.
    """
    import torch
    from transformers import HfArgumentParser

    from rag_core.distillation.checkpoints import NO_SELECTION, PRIMARY
    from rag_core.engines.precision import resolve_dtype

    selection = selection or NO_SELECTION
    parser = HfArgumentParser(arguments_type, allow_abbrev=False)
    ours = {
        "bf16": resolve_dtype("auto") == "bfloat16",
        "use_cpu": not torch.accelerator.is_available(),
        "eval_strategy": "steps" if evaluates or selection.dev_sets else "no",
        "eval_steps": 0.1 if evaluates or selection.dev_sets else None,
        "metric_for_best_model": PRIMARY if selection.dev_sets else None,
        "load_best_model_at_end": selection.early_stopping_patience is not None,
        "restore_callback_states_from_checkpoint": selection.early_stopping_patience is not None,
        "disable_tqdm": not sys.stderr.isatty(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,
    }
    parser.set_defaults(**ours | defaults)
    try:
        (arguments,) = parser.parse_args_into_dataclasses(["--output_dir", "unused", "--seed", str(seed), *flags])
    except argparse.ArgumentError as error:
        raise UsageError(str(error), f"See the {arguments_type.__name__} of {_library(arguments_type)}") from error
    except ValueError as error:
        raise UsageError(first_line(error, 1000), "Change the training flags") from error
    _check_numbers(arguments)
    selection.check(arguments, eval_loss=evaluates)
    if selection.average_checkpoints and arguments.save_total_limit:
        arguments.save_total_limit = max(arguments.save_total_limit, selection.average_checkpoints)
    return arguments  # type: ignore[no-any-return]


def _library(arguments_type: type[Any]) -> str:
    return arguments_type.__module__.partition(".")[0].replace("_", "-")


def _check_numbers(arguments: BaseTrainingArguments) -> None:
    """Check the trainer's own numbers, which it takes as they are.

    Raises:
        UsageError: one is not finite, or out of bounds.
    """
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if isinstance(value, int | float):
            check_number(field.name, value, _LEAST.get(field.name))
    if arguments.max_steps < 1 and arguments.num_train_epochs <= 0:
        raise UsageError(f"--num_train_epochs is {arguments.num_train_epochs:g}", "Pass a number above 0")


def decisive_settings(arguments: BaseTrainingArguments, selection: Selection) -> dict[str, Any]:
    """Return the trainer's settings that have a say in the weights."""
    settings = arguments.to_dict()
    decisive = {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_SAY)}
    if arguments.load_best_model_at_end or selection.average_checkpoints:
        decisive |= {name: settings[name] for name in ("save_strategy", "save_steps")}
    return decisive


def card_settings(arguments: BaseTrainingArguments) -> dict[str, Any]:
    """Return the trainer's settings that a model card names."""
    names = ("num_train_epochs", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "seed")
    return {name: getattr(arguments, name) for name in names}
