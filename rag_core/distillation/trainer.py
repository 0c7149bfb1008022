"""The run of a training: it goes on where it stopped, keeps the weights that were asked for, and logs what it does."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from sentence_transformers.base.training_args import BaseTrainingArguments
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rag_core.base.errors import EngineError
from rag_core.distillation.checkpoints import (
    NO_SELECTION,
    EnoughCheckpoints,
    Selection,
    average_checkpoints,
    dev_values,
    step_of,
    whole_checkpoints,
)
from rag_core.distillation.measuring import Measured
from rag_core.distillation.student import StudentSettings
from rag_core.distillation.weight_merging import Domain
from rag_core.engines.identity import ModelInfo
from rag_core.engines.special_tokens import as_saved
from rag_core.files.unfinished import save_whole

# In each checkpoint: the weights of the loss, which the trainer does not keep.
_LOSS_STATE = "loss_state.pt"
# In each checkpoint with adapters: the trained weights. All others are the student's.
_TRAINED = "trained.safetensors"

logger = logging.getLogger(__name__)


class DivergedError(EngineError):
    """The loss of a training, or its weights, are not finite."""


@dataclass(frozen=True)
class TrainingRun:
    """Who is trained, how, and where it is kept.

    Attributes:
        arguments: of the trainer; checkpoints go to their `output_dir`.
        output_dir: folder of the finished model.
        teacher: the embedder whose vectors a loss needs or can use; `None` where its scores are enough.
        selection: which weights are kept, with the in-domain dev sets.
        dev_sets: all of them, out-of-domain ones and searches over a corpus too.
        write_card: writes the card of the model into its folder, from the facts of the training.
        found: facts from before the training, for the log.
        vectors: folder of embeddings that the loss needs; `None` for that of the checkpoints.
        measure: of a probe: gets the trained model, its weights before training, and the points between them that may
            be kept (1 is the trained model). Nothing is merged or saved then.
    """

    student: StudentSettings
    arguments: BaseTrainingArguments
    output_dir: Path
    teacher: ModelInfo | None = None
    selection: Selection = NO_SELECTION
    dev_sets: Sequence[tuple[Domain, Measured]] = ()
    write_card: Callable[[Path, dict[str, Any]], None] = lambda folder, facts: None
    found: Mapping[str, Any] = field(default_factory=dict)
    vectors: Path | None = None
    measure: Callable[[Any, Mapping[str, torch.Tensor], Sequence[float]], None] | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished work."""
        return Path(self.arguments.output_dir)

    @property
    def vectors_folder(self) -> Path:
        """The folder of embeddings."""
        return self.vectors or self.checkpoints

    def save(self, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
        """Let `write` fill a folder, add the card, and put it where the finished model belongs."""

        def write_all(folder: Path) -> None:
            write(folder)
            self.write_card(folder, facts)

        save_whole(self.output_dir, self.checkpoints / "model", write_all)


def run_trainer(trainer: Trainer, selection: Selection) -> dict[str, Any]:
    """Train to the end, from the last whole checkpoint if there is one; leave the model with the weights to keep.

    Returns:
        `steps` and `seconds`; `dev`, the dev values by step; `best_step`, or `averaged_steps` with `averaged_dev`,
        if other weights than the last are kept.

    Raises:
        DivergedError: the loss is not finite.
        UsageError: fewer checkpoints are saved than are to be averaged.
    """
    checkpoints = Path(trainer.args.output_dir)
    if selection.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(selection.early_stopping_patience))
    if selection.average_checkpoints is not None:
        trainer.add_callback(EnoughCheckpoints(selection.average_checkpoints))
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which is for results
    trainer.add_callback(_LogCallback())
    trainer.accelerator.wait_for_everyone()  # the first process may have dropped checkpoints of other settings
    checkpoint = next(reversed(whole_checkpoints(checkpoints)), None)
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
    # Three times the weights, which nothing needs any more: gradients, and two means of each.
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.accelerator.free_memory()
    trainer.model.zero_grad(set_to_none=True)
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
    folders = whole_checkpoints(checkpoints)[-selection.average_checkpoints :]
    average_checkpoints(trainer, folders)
    facts: dict[str, Any] = {"averaged_steps": [step_of(folder) for folder in folders]}
    if selection.dev_sets and trainer.is_world_process_zero():
        facts["averaged_dev"] = trainer.evaluator(trainer.model)
    logger.info("kept: the mean of %s", facts)
    return facts


def write_training_log(folder: Path, state: TrainerState, found: Mapping[str, Any] | None = None) -> None:
    """Write `training_log.json` into a model's folder: what the trainer logged, one dict per logged step.

    What was found before the training stands first, as of step 0.

    Its last word is left out, the mean loss of the steps since the training was last stopped.
    """
    log = [entry for entry in state.log_history if "train_loss" not in entry]
    log = [*([{"step": 0, **found}] if found else []), *log]
    (folder / "training_log.json").write_text(json.dumps(log, indent=2, sort_keys=True), encoding="utf-8")


class PipelineTrainer:
    """Mix into a trainer: a step's loss is one mean, checkpoints keep what the loss learned, no card quotes texts."""

    loss: torch.nn.Module
    accelerator: Accelerator
    model: torch.nn.Module

    def count_terms(self, batch: dict[str, Any]) -> int:
        """Return how many terms a batch's loss is the mean of."""
        raise NotImplementedError

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Weight the batches of a step by their terms, over all processes.

        Otherwise the trainer takes the mean of their means, where a term of a large batch counts less.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        counts = [sum(map(self.count_terms, batch.get("parts", [batch]))) for batch in batches]
        terms = torch.tensor(counts, dtype=torch.float32, device=device)
        mean = self.accelerator.reduce(terms.mean(), "mean")
        for batch, weight in zip(batches, terms / mean, strict=True):
            batch["weight"] = weight
        return batches, items

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *further: Any) -> torch.Tensor:
        """Learn from a batch part by part: activations of one part are in memory at a time.

        The sum of the parts' gradients is that of the batch, since each part has its share of the terms as weight.
        """
        if "parts" not in inputs:
            return super().training_step(model, inputs, *further)  # type: ignore[misc, no-any-return]
        parts, weight = inputs["parts"], inputs.get("weight", 1.0)
        shares = self._shares(parts)
        losses = []
        for place, (part, share) in enumerate(zip(parts, shares, strict=True)):
            # Processes may have different numbers of parts, and wait for each other once.
            last = place == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                step = super().training_step  # type: ignore[misc]  # the trainer's
                losses.append(step(model, {**part, "weight": weight * share}, *further))
        return torch.stack(losses).sum()

    def _shares(self, parts: Sequence[dict[str, Any]]) -> list[float]:
        counts = [self.count_terms(part) for part in parts]
        return [count / sum(counts) for count in counts]

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """Return the loss of a batch times its weight in the step."""
        if "parts" in inputs:  # of unseen data, which leaves no activations
            shares = self._shares(inputs["parts"])  # before labels are taken out
            losses = [self.compute_loss(model, part, **kwargs) for part in inputs["parts"]]
            loss = sum(share * one for share, one in zip(shares, losses, strict=True))
            return (loss, {}) if return_outputs else loss
        weight = inputs.pop("weight", 1.0)
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)  # type: ignore[misc]
        return (weight * found[0], found[1]) if return_outputs else weight * found

    def _load_best_model(self) -> None:
        """Do nothing: the trainer keeps the last weights where it finds no best ones. `run_trainer` fails then."""

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        trained = Path(checkpoint_path) / _TRAINED
        if trained.exists():
            self.model.load_state_dict(load_file(trained), strict=False)
        else:
            super()._load_from_checkpoint(checkpoint_path)  # type: ignore[misc]  # the trainer's

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add nothing: the pipeline writes its own card."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        if any("lora_" in name for name in trained) and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in trained.items()}, Path(output_dir) / _TRAINED)
        else:
            with as_saved(self.model):
                super()._save(output_dir, state_dict)  # type: ignore[misc]  # the trainer's
        learned = {name: value for name, value in self.loss.state_dict().items() if not name.startswith("model.")}
        if learned and output_dir is not None:
            torch.save(learned, Path(output_dir) / _LOSS_STATE)


class _LogCallback(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Show the log, and add to it the seconds since training began, with those before it was stopped."""

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
            raise DivergedError(
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
