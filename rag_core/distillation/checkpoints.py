"""Checkpoints: which of them a training goes on from, and whose weights are kept (last, best on dev files, or mean).

The mean: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima", arXiv:1803.05407; Wortsman et al. 2022,
"Model soups", arXiv:2203.05482 (uniform soup).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_core.base.errors import DataError, UsageError
from rag_core.distillation.dev_set import DevSet
from rag_core.distillation.measuring import measure_all
from rag_core.files.inputs import read_json

_CHECKPOINT = re.compile(r"checkpoint-[0-9]+")

PRIMARY = "dev"  # the trainer logs it as eval_dev

_IN_METRIC_NAMES = {"MAP": "MAP", "Kendall's tau": "tau", "NDCG@10": "NDCG@10"}


@dataclass(frozen=True)
class Selection:
    """Which weights the flags ask for.

    Attributes:
        dev_sets: measured at each evaluation.
        early_stopping_patience: training ends after this many evaluations without a new best; `None` for never.
        average_checkpoints: the mean of this many of the last checkpoints is kept; `None` for the last one.
    """

    dev_sets: Sequence[DevSet] = ()
    early_stopping_patience: int | None = None
    average_checkpoints: int | None = None

    def metric_names(self) -> list[str]:
        """Return the names of the values that `DevEvaluator` measures."""
        files = [f"{name}_{_IN_METRIC_NAMES[of]}" for name, dev_set in self._by_name() for of in dev_set.measures]
        return [PRIMARY, *files] if files else []

    def _by_name(self) -> list[tuple[str, DevSet]]:
        return [(dev_set.path.name.partition(".")[0], dev_set) for dev_set in self.dev_sets]

    def evaluator(self, batch_size: int) -> DevEvaluator | None:
        """Return what measures the dev sets, `None` where there are none."""
        return DevEvaluator(self, batch_size) if self.dev_sets else None

    def check(self, arguments: TrainingArguments, *, eval_loss: bool) -> None:
        """Refuse flags that contradict each other, before there are models.

        Args:
            eval_loss: whether the loss on unseen data is measured.

        Raises:
            UsageError: they do.
        """
        count, patience = self.average_checkpoints, self.early_stopping_patience
        known = [*(["loss"] if eval_loss else []), *self.metric_names()]
        if arguments.eval_strategy != "no" and not known:
            what = f"--eval_strategy {arguments.eval_strategy.value} has nothing to evaluate"
            raise UsageError(what, "Pass --dev_files or --eval_file")
        if len(known) != len(set(known)):
            raise UsageError("two dev files have the same name", "Rename one: the name tells their values apart")
        metric = (arguments.metric_for_best_model or "").removeprefix("eval_")
        if metric and metric not in known:
            raise UsageError(f"--metric_for_best_model {metric} is not measured", f"Pass one of {', '.join(known)}")
        if patience is not None and patience < 1:
            raise UsageError(f"--early_stopping_patience is {patience}", "Pass 1 or more, or leave it out")
        if patience is not None and not arguments.load_best_model_at_end:
            raise UsageError("--early_stopping_patience keeps the best", "Leave out --load_best_model_at_end false")
        saved = arguments.save_strategy
        apart = saved == "steps" and arguments.save_steps != arguments.eval_steps
        if arguments.load_best_model_at_end and apart:
            raise UsageError("the best weights may be in no checkpoint", "Pass --save_steps equal to --eval_steps")
        if count is None:
            return
        if count < 2:
            raise UsageError(f"--average_checkpoints is {count}", "Pass 2 or more, or leave it out")
        if arguments.load_best_model_at_end:
            raise UsageError(
                "--load_best_model_at_end keeps one checkpoint, and --average_checkpoints the mean of several",
                "Pass one of them",
            )
        if saved not in ("steps", "epoch"):
            raise UsageError(f"--save_strategy {saved.value} leaves no checkpoints to average", "Pass steps or epoch")


NO_SELECTION = Selection()


class DevEvaluator(BaseEvaluator):  # type: ignore[misc]  # untyped base
    """Measure dev sets while training: `dev` is the mean of `DevSet.measure` over all of their queries.

    The means of each file stand beside it by name, e.g. `dev_logits_MAP`.
    """

    def __init__(self, selection: Selection, batch_size: int) -> None:
        super().__init__()
        self.primary_metric = PRIMARY
        self._selection = selection
        self._batch_size = batch_size

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        measured = measure_all(self._selection.dev_sets, model, self._batch_size, "dev files")
        chosen = [by[dev_set.measure] for by, dev_set in zip(measured, self._selection.dev_sets, strict=True)]
        means = [np.concatenate(chosen).mean(), *(values.mean() for by in measured for values in by.values())]
        return dict(zip(self._selection.metric_names(), map(float, means), strict=True))


class EnoughCheckpoints(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Refuse a training that will not save as many checkpoints as are to be averaged."""

    def __init__(self, count: int) -> None:
        self._count = count

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epochs = args.save_strategy == "epoch"
        saved = state.num_train_epochs if epochs else math.ceil(state.max_steps / state.save_steps)
        if saved < self._count:
            raise UsageError(f"--average_checkpoints is {self._count}, and {saved} will be saved", "Lower --save_steps")


def average_checkpoints(trainer: Trainer, folders: Sequence[Path]) -> None:
    """Set the weights of a trainer's model to the mean of checkpoints; what is not a float comes from the last one."""
    mean: dict[str, torch.Tensor] = {}
    for number, folder in enumerate(folders, start=1):
        trainer._load_from_checkpoint(str(folder))
        for name, value in trainer.model.state_dict().items():
            if name in mean and value.is_floating_point():
                mean[name] += (value.float() - mean[name]) / number
            else:
                mean[name] = value.float().clone() if value.is_floating_point() else value.clone()
    trainer.model.load_state_dict(mean)


def dev_values(log: Sequence[dict[str, float]], names: Sequence[str]) -> list[dict[str, float]]:
    """Return what `DevEvaluator` measured, from a trainer's log: one dict per evaluation, with its `step`."""
    return [
        {"step": entry["step"], **{name: entry[f"eval_{name}"] for name in names}}
        for entry in log
        if f"eval_{PRIMARY}" in entry
    ]


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that are complete, oldest first: the trainer writes its state last."""
    found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _state(path) is not None]
    return sorted((path for path in found if _CHECKPOINT.fullmatch(path.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _state(path: Path) -> dict[str, Any] | None:
    """Return what a trainer wrote of its state; `None` where it did not come to the end of it."""
    try:
        found = read_json(path, "")
    except DataError:
        return None
    return found if isinstance(found, dict) else None


def other_processes(folder: Path, arguments: TrainingArguments) -> list[str]:
    """Describe how the processes (and GPUs of each) that wrote the checkpoints differ from those of now.

    A step reads a batch for each of them. With other ones the trainer counts on from the old step to another total,
    so that it leaves queries out, or reads them again. What is not known differs in nothing.
    """
    checkpoints = whole_checkpoints(folder)
    if not checkpoints:
        return []
    known = {}
    # One process writes rng_state.pth; of several, each writes rng_state_<its number>.pth, the first one maybe first.
    numbers = [path.stem.removeprefix("rng_state") for one in checkpoints for path in one.glob("rng_state*.pth")]
    last = max((int(number[1:]) for number in numbers if number), default=0)
    if "" in numbers or last:
        known["processes"] = (last + 1, arguments.world_size)
    batch = (_state(checkpoints[-1] / "trainer_state.json") or {}).get("train_batch_size")
    if isinstance(batch, int) and batch and not arguments.auto_find_batch_size:
        gpus = batch // arguments.per_device_train_batch_size
        known["GPUs of a process"] = (gpus, arguments.train_batch_size // arguments.per_device_train_batch_size)
    return [f"the number of {of} (was {was}, is {now})" for of, (was, now) in known.items() if was != now]
