"""The short trainings of `--learning_rate auto`: each is measured, kept in the unfinished folder, and done once."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from rag_core.base.errors import DataError, UsageError
from rag_core.base.markdown import code
from rag_core.base.records import SoftLabels, Triplet
from rag_core.distillation.checkpoints import NO_SELECTION
from rag_core.distillation.dev_set import DevSet
from rag_core.distillation.probing import Plan, choose_rate, plan_probes, rates_to_try, steps_of
from rag_core.distillation.trainer import DivergedError, TrainingRun
from rag_core.distillation.weight_merging import interpolate
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_json
from rag_core.metrics.significance import standard_error

if TYPE_CHECKING:
    from rag_core.distillation.measuring import Student

# Trains on some of the groups, by their indices, as a run says.
Train = Callable[[Sequence[int], TrainingRun], object]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tried:
    """A student's value of each query: as it is, or after a probe.

    Attributes:
        alpha: at which point from the weights before to those after it was measured, the better one of several.
        values: shape (queries,); empty where the training diverged.
    """

    alpha: float
    values: list[float]


@dataclass(frozen=True)
class Probing:
    """The rate that was chosen, and what it was chosen by.

    Attributes:
        measure: of the values; `None` where there were no probes.
        untouched: of the student before training; `None` where there were no probes.
        probes: by rate.
    """

    rate: float
    reason: str
    plan: Plan
    measure: str | None = None
    untouched: Tried | None = None
    probes: Mapping[float, Tried] = dataclasses.field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what stands in manifest and log: the means."""
        rows = [_row(rate, probe) for rate, probe in self.probes.items()]
        known = {"chosen": self.rate, "reason": self.reason, "run_steps": self.plan.run_steps}
        if self.untouched is None:
            return known
        dev = {"measure": self.measure, "queries": len(self.untouched.values), "steps": self.plan.steps}
        return known | dev | {"untouched": float(np.mean(self.untouched.values)), "probes": rows}

    def write(self, folder: Path) -> None:
        """Write `probes.json` into a model's folder: the facts with the values of all queries, for other rules."""
        values = {f"{rate:g}": probe.values for rate, probe in self.probes.items()}
        untouched = self.untouched.values if self.untouched else []
        content = self.facts() | {"values": {"untouched": untouched, **values}}
        (folder / "probes.json").write_text(json.dumps(content), encoding="utf-8")

    def section(self) -> str:
        """Return the section of the model's card."""
        lines = ["## Learning rate", "", f"`--learning_rate auto` took {code(f'{self.rate:g}')}: {self.reason}."]
        if self.untouched:
            what = f"{self.measure} of {len(self.untouched.values)} queries, after {self.plan.steps} steps on a part of"
            lines += [f"{what} the training data:", "", f"| learning rate | alpha | {self.measure} |", "|---|---|---|"]
            lines += [f"| before training | | {np.mean(self.untouched.values):.4f} |"]
            lines += [
                f"| {rate:g} | {probe.alpha:g} | {np.mean(probe.values):.4f} |"
                if probe.values
                else f"| {rate:g} | | diverged |"
                for rate, probe in self.probes.items()
            ]
        return "\n".join(lines)


def _row(rate: float, probe: Tried) -> dict[str, Any]:
    if not probe.values:
        return {"learning_rate": rate, "diverged": True}
    values = np.array(probe.values)
    return {
        "learning_rate": rate,
        "alpha": probe.alpha,
        "dev": float(values.mean()),
        "standard_error": standard_error(values),
    }


def find_rate(
    run: TrainingRun,
    groups: Sequence[SoftLabels | Sequence[Triplet]],
    train_file: Path,
    load: Callable[[], Student],
    train: Train,
) -> Probing:
    """Try some learning rates, and choose one as `choose_rate` does.

    Tried are the in-domain dev files, or, where there are none, training queries that no probe learns from. What
    each probe gave is kept in the run's folder.

    Args:
        groups: one for each training query.
        load: loads the student as it is before training.
        train: trains it on some of the groups, by their indices, as a run says.

    Raises:
        EngineError: the student cannot be trained, or diverges at every rate.
        UsageError: it is a static embedder, of which no rates are known.
    """
    plan = plan_probes(len(groups), steps_of(run.arguments, len(groups)), run.arguments.seed)
    dev_sets = run.selection.dev_sets or DevSet.held_out(train_file, [groups[i] for i in plan.held_out])
    probes = _Probes(run, plan, dev_sets if plan.steps else [])
    parameters, untouched = probes.before_training(load)
    rates = rates_to_try(parameters, lora=run.student.lora is not None)
    if not probes.dev_sets:
        rate = rates[len(rates) // 2]
        reason = f"a run of {plan.run_steps} steps over {len(groups)} queries is too short for probes"
        logger.info("learning rate: %g (that of a student of %.3g parameters; %s)", rate, parameters, reason)
        return Probing(rate, reason, plan)
    where = "of the dev files" if run.selection.dev_sets else "that they do not learn from"
    logger.info(
        "probes: %d x %d steps of the run's %d, on %d of %d queries; measured on %d queries %s",
        *(len(rates), plan.steps, plan.run_steps, len(plan.queries), len(groups), len(untouched.values), where),
    )
    measure, measured = dev_sets[0].measure, {}
    logger.info("before training: %s %.4f", measure, np.mean(untouched.values))
    for number, rate in enumerate(rates, start=1):
        logger.info("probe %d of %d: learning rate %g", number, len(rates), rate)
        found = measured[rate] = probes.probe(number, rate, train)
        shown = f"{measure} {np.mean(found.values):.4f} at alpha {found.alpha:g}" if found.values else "diverged"
        logger.info("probe %d of %d: learning rate %g: %s", number, len(rates), rate, shown)
    rate, reason = choose_rate(
        {rate: np.array(found.values) for rate, found in measured.items() if found.values}, np.array(untouched.values)
    )
    logger.info("learning rate: %g (%s)", rate, reason)
    return Probing(rate, reason, plan, measure, untouched, measured)


@dataclass(frozen=True)
class _Probes:
    """The probes of a run.

    Attributes:
        dev_sets: what is measured; none where nothing is probed.
    """

    run: TrainingRun
    plan: Plan
    dev_sets: Sequence[DevSet]

    def before_training(self, load: Callable[[], Student]) -> tuple[int, Tried]:
        """Return the student's number of parameters, and its values before training."""
        file, of = self.run.checkpoints / "probe-untouched.json", self._describe()
        if kept := _kept(file, of):
            return kept["parameters"], Tried(0.0, kept["values"])
        set_seed(self.run.arguments.seed)  # before a fresh head is drawn, which shall be that of the training
        model = load()
        if model.transformers_model is None:
            raise UsageError(
                f"--learning_rate auto knows no rates for a static embedder, as {self.run.student.model.name} is",
                "Pass the rate as a number",
            )
        parameters = sum(value.numel() for value in model.parameters())
        model.to(self.run.arguments.device)
        values = self._values(model)
        _keep(file, of, {"parameters": parameters, "values": values})
        return parameters, Tried(0.0, values)

    def probe(self, number: int, rate: float, train: Train) -> Tried:
        """Train at a rate for some steps, and measure, unless that is done already."""
        file, folder = self.run.checkpoints / f"probe-{number}.json", self.run.checkpoints / "probe"
        of = self._describe() | {"learning_rate": rate}
        if kept := _kept(file, of):
            return Tried(kept["alpha"], kept["values"])
        if not _kept(folder / "of.json", of):  # what is left of another one
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _keep(folder / "of.json", of, {})
        found: list[Tried] = []
        probe = dataclasses.replace(
            self.run,
            arguments=_arguments(self.run, self.plan, rate, folder),
            selection=NO_SELECTION,
            vectors=self.run.vectors_folder,
            measure=lambda model, before, alphas: found.extend(self._measured(model, before, alphas)),
        )
        try:
            train(self.plan.queries, probe)
        except DivergedError as error:
            logger.info("%s", error.what)
            found = [Tried(1.0, [])]
        best = max(found, key=lambda measured: np.mean(measured.values) if measured.values else -math.inf)
        _keep(file, of, dataclasses.asdict(best))
        shutil.rmtree(folder)
        gc.collect()  # the trainer and its model hold each other, and the next one wants their memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return best

    def _measured(self, model: Student, before: Mapping[str, torch.Tensor], alphas: Sequence[float]) -> Iterator[Tried]:
        if not all(bool(value.isfinite().all()) for value in model.parameters()):
            raise DivergedError("the weights are not finite after training", "Lower --learning_rate")
        moves = any(alpha != 1 for alpha in alphas)
        after = {name: value.detach().clone() for name, value in model.state_dict().items()} if moves else {}
        for alpha in alphas:
            if moves:
                interpolate(model, before, after, alpha)
            yield Tried(alpha, self._values(model))

    def _values(self, model: Student) -> list[float]:
        size = self.run.student.mini_batch_size
        return [float(value) for dev_set in self.dev_sets for value in dev_set.values(model, size)]

    def _describe(self) -> dict[str, Any]:
        """Return what decides a probe beside the recipe of the run: settings of a later version may differ."""
        return {
            "steps": self.plan.steps,
            "run_steps": self.plan.run_steps,
            "queries": list(self.plan.queries),
            "measured": sum(dev_set.queries for dev_set in self.dev_sets),
        }


def _arguments(run: TrainingRun, plan: Plan, rate: float, folder: Path) -> Any:
    """Return the run's arguments for a probe: fewer steps of the same schedule, and nothing on the way but saving."""
    whole = run.arguments
    probe = copy.copy(whole)
    probe.output_dir = str(folder)
    probe.learning_rate = rate
    probe.max_steps = plan.steps
    if probe.warmup_steps >= 1:  # steps; below it is a share of them
        probe.warmup_steps = max(1, round(whole.warmup_steps * plan.steps / plan.run_steps))
    probe.eval_strategy, probe.do_eval = IntervalStrategy.NO, False
    probe.load_best_model_at_end = probe.restore_callback_states_from_checkpoint = False
    probe.metric_for_best_model = None
    if whole.save_strategy == SaveStrategy.STEPS:  # as often as the run, in steps
        probe.save_steps = whole.save_steps if whole.save_steps >= 1 else math.ceil(whole.save_steps * plan.run_steps)
    else:
        probe.save_strategy = SaveStrategy.NO
    probe.save_total_limit = 1
    probe.report_to, probe.push_to_hub = [], False
    return probe


def _kept(file: Path, of: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what is kept, `None` where there is nothing, or that of other settings."""
    try:
        found = read_json(file, "") if file.exists() else None
    except DataError:
        return None
    return found if isinstance(found, dict) and found.get("of") == of else None


def _keep(file: Path, of: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    with atomic_write(file) as out:
        out.write(json.dumps({"of": of, **found}).encode())
