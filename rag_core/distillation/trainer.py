"""What both train stages share: the trainer's own flags, its log, resumption, and a model that is saved as a whole."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from sentence_transformers.base.training_args import BaseTrainingArguments
from transformers import (
    EarlyStoppingCallback,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rag_core.base.errors import EngineError, UsageError
from rag_core.distillation.checkpoints import (
    NO_SELECTION,
    PRIMARY,
    EnoughCheckpoints,
    Selection,
    average_checkpoints,
    dev_values,
)
from rag_core.engines.precision import resolve_dtype

T = TypeVar("T", bound=BaseTrainingArguments)

# What both train stages start from; batch sizes count queries. For a reranker 16 queries of 8 x 4 triplets are the
# public recipe's batch of 512 triplets.
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

# Settings of the trainer that have no say in the weights that come out.
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

# In each checkpoint: what the loss learned, which the trainer does not keep.
_LOSS_STATE = "loss_state.pt"
# With adapters, what is trained: the other weights are those of the student.
_TRAINED = "trained.safetensors"

logger = logging.getLogger(__name__)


def parse_training_arguments(
    arguments_type: type[T],
    flags: Sequence[str],
    defaults: dict[str, Any],
    *,
    seed: int,
    evaluates: bool,
    selection: Selection = NO_SELECTION,
) -> T:
    """Parse the trainer's own flags over our defaults.

    Args:
        evaluates: whether there is unseen data for the loss.

    Raises:
        UsageError: a flag is unknown, or values contradict each other.
    """
    parser = HfArgumentParser(arguments_type, allow_abbrev=False)
    parser.set_defaults(
        **defaults,
        bf16=resolve_dtype("auto") == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),
        eval_strategy="steps" if evaluates or selection.dev_sets else "no",
        eval_steps=0.1 if evaluates or selection.dev_sets else None,
        metric_for_best_model=PRIMARY if selection.dev_sets else None,
        load_best_model_at_end=selection.early_stopping_patience is not None,
        restore_callback_states_from_checkpoint=selection.early_stopping_patience is not None,
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
    )
    try:
        (arguments,) = parser.parse_args_into_dataclasses(["--output_dir", "unused", "--seed", str(seed), *flags])
    except argparse.ArgumentError as error:
        raise UsageError(str(error), f"See the {arguments_type.__name__} of sentence-transformers") from error
    except ValueError as error:
        raise UsageError(str(error).splitlines()[0], "Change the training flags") from error
    selection.check(arguments, eval_loss=evaluates)
    if selection.average_checkpoints and arguments.save_total_limit:
        arguments.save_total_limit = max(arguments.save_total_limit, selection.average_checkpoints)
    return arguments  # type: ignore[no-any-return]


def decisive_settings(arguments: BaseTrainingArguments, selection: Selection) -> dict[str, Any]:
    """Return the settings that have a say in the weights that come out."""
    settings = arguments.to_dict()
    decisive = {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_SAY)}
    if arguments.load_best_model_at_end or selection.average_checkpoints:
        decisive |= {name: settings[name] for name in ("save_strategy", "save_steps")}
    return decisive


def card_settings(arguments: BaseTrainingArguments) -> dict[str, Any]:
    """Return the settings that a model card names."""
    names = ("num_train_epochs", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "seed")
    return {name: getattr(arguments, name) for name in names}


def longest_first(features: Mapping[str, Any]) -> list[int]:
    """Return the order of a model's inputs by their number of tokens: like lengths together pad little."""
    order: list[int] = features["attention_mask"].sum(dim=1).argsort(descending=True, stable=True).tolist()
    return order


def attention_settings() -> dict[str, str]:
    """Return the `model_kwargs` that make training fastest: PyTorch's fused attention is the slower one on a CPU."""
    return {} if torch.cuda.is_available() else {"attn_implementation": "eager"}


def run_trainer(trainer: Trainer, checkpoints: Path, selection: Selection) -> dict[str, Any]:
    """Train to the end, going on from the last whole checkpoint in `checkpoints`; leave the model with what is kept.

    Returns:
        `steps`, `seconds`; the `dev` values by step; `best_step` or `averaged_steps` (with `averaged_dev`), where
        other weights than the last are kept.

    Raises:
        EngineError: the loss is not finite.
        UsageError: fewer checkpoints are saved than are to be averaged.
    """
    if selection.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(selection.early_stopping_patience))
    if selection.average_checkpoints is not None:
        trainer.add_callback(EnoughCheckpoints(selection.average_checkpoints))
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which is for results
    trainer.add_callback(_LogCallback())
    trainer.accelerator.wait_for_everyone()  # the first process may have dropped checkpoints of other settings
    checkpoint = next(reversed(_whole_checkpoints(checkpoints)), None)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint.name)
        if (checkpoint / _LOSS_STATE).exists():
            learned = torch.load(checkpoint / _LOSS_STATE, map_location=trainer.args.device, weights_only=True)
            trainer.loss.load_state_dict(learned, strict=False)
    ended = checkpoint and TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if ended and ended.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
        trainer.state = ended  # after an early stop the trainer would go on
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return {
        "steps": trainer.state.global_step,
        "seconds": round(trainer.state.log_history[-1]["seconds"], 1),
        **({"dev": dev_values(trainer.state.log_history, selection.metric_names())} if selection.dev_sets else {}),
        **_select(trainer, checkpoints, selection),
    }


def _select(trainer: Trainer, checkpoints: Path, selection: Selection) -> dict[str, Any]:
    best = trainer.state.best_global_step
    if trainer.args.load_best_model_at_end and best:
        trainer._load_from_checkpoint(str(checkpoints / f"checkpoint-{best}"))
        logger.info("kept: step %d, %s %.4f", best, trainer.args.metric_for_best_model, trainer.state.best_metric)
        return {"best_step": best}
    if selection.average_checkpoints is None:
        return {}
    folders = _whole_checkpoints(checkpoints)[-selection.average_checkpoints :]
    average_checkpoints(trainer, folders)
    facts: dict[str, Any] = {"averaged_steps": [_step(folder) for folder in folders]}
    if selection.dev_sets and trainer.is_world_process_zero():
        facts["averaged_dev"] = trainer.evaluator(trainer.model)
    logger.info("kept: the mean of %s", facts)
    return facts


def write_training_log(folder: Path, state: TrainerState) -> None:
    """Write `training_log.json` into a model's folder: what the trainer logged, a dict a step."""
    (folder / "training_log.json").write_text(json.dumps(state.log_history, indent=2), encoding="utf-8")


class PipelineTrainer:
    """Mixed into a trainer: a step's loss is one mean, checkpoints keep what the loss learned, no card quotes texts."""

    loss: torch.nn.Module
    accelerator: Accelerator
    model: torch.nn.Module

    def count_terms(self, batch: dict[str, Any]) -> int:
        """Return how many terms the mean that is a batch's loss has."""
        raise NotImplementedError

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Weight the batches of a step, which may be of different size, over all processes.

        Without it the trainer takes the mean of their means, and a term counts less in a large batch.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        terms = torch.tensor([self.count_terms(batch) for batch in batches], dtype=torch.float32, device=device)
        mean = self.accelerator.reduce(terms.mean(), "mean")
        for batch, weight in zip(batches, terms / mean, strict=True):
            batch["weight"] = weight
        return batches, items

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """Return the loss of a batch times its weight in the step."""
        weight = inputs.pop("weight", 1.0)
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)  # type: ignore[misc]
        return (weight * found[0], found[1]) if return_outputs else weight * found

    def _load_best_model(self) -> None:
        """Do nothing: `run_trainer` does, and fails where it cannot, instead of keeping the last weights."""

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        trained = Path(checkpoint_path) / _TRAINED
        if trained.exists():
            self.model.load_state_dict(load_file(trained), strict=False)
        else:
            super()._load_from_checkpoint(checkpoint_path)  # type: ignore[misc]  # the trainer's

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add nothing: the pipeline writes a card of its own."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        if any("lora_" in name for name in trained) and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in trained.items()}, Path(output_dir) / _TRAINED)
        else:
            super()._save(output_dir, state_dict)  # type: ignore[misc]  # the trainer's
        learned = {name: value for name, value in self.loss.state_dict().items() if not name.startswith("model.")}
        if learned and output_dir is not None:
            torch.save(learned, Path(output_dir) / _LOSS_STATE)


class _LogCallback(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Shows the log, and counts in it the seconds since training began, also before it was stopped and went on."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        before = state.log_history[-1].get("seconds", 0.0) if state.log_history else 0.0
        self._began = time.monotonic() - before

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise EngineError(
                f"the training loss is not finite at step {state.global_step}",
                "Lower --learning_rate, or soften the teacher's scores (--margin_scale, --teacher_temperature)",
            )
        state.log_history[-1]["seconds"] = time.monotonic() - self._began
        shown = {
            name: value
            for name, value in (logs or {}).items()
            if name in ("loss", "eval_loss", "eval_dev", "learning_rate")
        }
        if shown and state.is_world_process_zero:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, figures)


def _whole_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that were saved to their end, oldest first: the trainer writes its state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return sorted(whole, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
