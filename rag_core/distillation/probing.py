"""What `--learning_rate auto` and `--num_train_epochs auto` come to: which rates are tried, and which one is taken.

A rate that is too low leaves most of the teacher's lead where it is, one that is too high makes a student forget. Which
is which depends on the student and on the data, so that short trainings on a part of the queries try some. `probes`
runs them. Here are numbers only: the same values always choose the same rate.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import EngineError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.metrics.significance import as_good

if TYPE_CHECKING:
    from sentence_transformers.base.training_args import BaseTrainingArguments

    from rag_core.distillation.checkpoints import Selection

Values = npt.NDArray[np.float64]

AUTO = "auto"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeSettings:
    """What decides which rates are tried, on what, and which one is taken.

    Attributes:
        middle_rate, middle_parameters, exponent: the rate in the middle is middle_rate * (middle_parameters /
            parameters) ** exponent. Good rates of a student of 22 million parameters were 4e-5 to 2e-4, those of large
            ones 1e-5 to 4e-5.
        lowest_middle, highest_middle: its bounds, since nothing was measured beyond.
        lora_factor: on the middle where adapters are trained: they start at zero, and want higher rates.
        factors: the rates that are tried over the one in the middle, ascending. Steps of three: what lies between
            differs by less than dev files of some hundred queries can tell.
        share: of the training queries, and of the run's steps, in each probe. All probes together cost at most one
            run more.
        least_steps: with fewer a probe moves no student, and tells nothing; the rate in the middle is taken.
        most_held_out: training queries to measure on where there is no dev file; more only take longer.
        standard_errors: how far below the best, in standard errors of the difference paired over queries, is as good.
            One is the rule of Breiman et al. 1984, by which `weight_merging` chooses, too.
        epoch_queries: epochs x queries is to be this much: with less a student is not done learning.
        most_epochs: a small set repeated more often is learned by heart.
    """

    middle_rate: float = 6e-5
    middle_parameters: float = 22e6
    exponent: float = 0.5
    lowest_middle: float = 1e-5
    highest_middle: float = 1e-4
    lora_factor: float = 10.0
    factors: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    share: float = 0.25
    least_steps: int = 4
    most_held_out: int = 300
    standard_errors: float = 1.0
    epoch_queries: int = 1500
    most_epochs: int = 5


PROBES = ProbeSettings()


@dataclass(frozen=True)
class Auto:
    """Which of the trainer's settings are left to the data."""

    learning_rate: bool = False
    num_train_epochs: bool = False

    @classmethod
    def take(cls, flags: Sequence[str]) -> tuple[Auto, list[str]]:
        """Return what is auto, and the flags without those: the trainer takes them for numbers.

        As in all of its flags, the last of several values counts.

        Raises:
            UsageError: one is neither auto nor a number.
        """
        left: list[str] = []
        last: dict[str, bool] = {}
        words = iter(flags)
        for word in words:
            flag, equals, value = word.partition("=")
            name = flag.removeprefix("--").replace("-", "_")
            if not flag.startswith("--") or name not in cls.__dataclass_fields__:
                left.append(word)
                continue
            given = [word] if equals else [word, *([found] if (found := next(words, None)) is not None else [])]
            value = value if equals else given[-1]
            if value not in (AUTO, word) and not _is_number(value):
                raise UsageError(f"--{name} is {quoted(value)}", f"Pass a number or {AUTO}")
            last[name] = value == AUTO
            if not last[name]:
                left += given
        return cls(**last), left

    def defaults(self, selection: Selection) -> dict[str, Any]:
        """Return the trainer's flags that have another default: what a long training spoils is not kept."""
        keeps_best = self.num_train_epochs and selection.dev_sets and selection.average_checkpoints is None
        return {"load_best_model_at_end": True} if keeps_best else {}

    def settle_epochs(self, arguments: BaseTrainingArguments, queries: int) -> None:
        """Set the number of epochs, where it is auto.

        Raises:
            UsageError: what is auto does not go with the other flags, or with several processes.
        """
        if self.learning_rate and arguments.world_size > 1:
            raise UsageError(
                f"--learning_rate auto tries rates in one process, and there are {arguments.world_size}",
                "Start one process, or pass the rate as a number",
            )
        if not self.num_train_epochs:
            return
        if arguments.max_steps > 0:
            raise UsageError("--num_train_epochs auto has no effect beside --max_steps", "Leave one of them out")
        arguments.num_train_epochs = float(auto_epochs(queries))
        logger.info("epochs: %g, for %d queries", arguments.num_train_epochs, queries)

    def settled(self, arguments: BaseTrainingArguments) -> dict[str, float]:
        """Return the numbers that auto came to, for manifest and log."""
        return {name: getattr(arguments, name) for name in self.recipe()}

    def recipe(self) -> dict[str, str]:
        """Return what stands in a recipe in the place of the numbers, which follow from its inputs."""
        return {name: AUTO for name in self.__dataclass_fields__ if getattr(self, name)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def auto_epochs(queries: int, settings: ProbeSettings = PROBES) -> int:
    """Return over how many epochs so many training queries are learned."""
    return min(max(math.ceil(settings.epoch_queries / queries), 1), settings.most_epochs)


def rates_to_try(parameters: int, *, lora: bool = False, settings: ProbeSettings = PROBES) -> list[float]:
    """Return learning rates, ascending, with two digits each, around that of a student of so many parameters."""
    scaled = settings.middle_rate * (settings.middle_parameters / parameters) ** settings.exponent
    middle = min(max(scaled, settings.lowest_middle), settings.highest_middle)
    return [float(f"{middle * factor * (settings.lora_factor if lora else 1):.1e}") for factor in settings.factors]


def steps_of(arguments: BaseTrainingArguments, queries: int) -> int:
    """Return how many steps the trainer takes over so many queries."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batch: int = arguments.train_batch_size * arguments.world_size
    batches = queries // batch if arguments.dataloader_drop_last else math.ceil(queries / batch)
    steps: int = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))  # of an epoch
    total: int = math.ceil(arguments.num_train_epochs * steps)
    return total


@dataclass(frozen=True)
class Plan:
    """On what each probe is trained, and on what it is measured where there is no dev file.

    Attributes:
        steps: of one probe; 0 where the run is too short for any.
        run_steps: of the run itself. The probes together take at most as many.
        queries, held_out: indices of training queries, without a common one.
    """

    steps: int
    run_steps: int
    queries: Sequence[int]
    held_out: Sequence[int]


def plan_probes(queries: int, run_steps: int, seed: int, settings: ProbeSettings = PROBES) -> Plan:
    """Draw the queries of the probes; all of them learn from the same."""
    share = min(settings.share, 1 / len(settings.factors))
    count = max(1, int(queries * share))
    order = random.Random(seed).sample(range(queries), queries)
    steps = int(run_steps * share)
    held_out = order[count : count + settings.most_held_out]
    return Plan(steps if steps >= settings.least_steps else 0, run_steps, sorted(order[:count]), sorted(held_out))


def choose_rate(
    measured: Mapping[float, Values], untouched: Values, settings: ProbeSettings = PROBES
) -> tuple[float, str]:
    """Return the learning rate to take, and the reason.

    It is the lowest that is not worse than the best: their mean difference, paired over queries, is at most a standard
    error. Where even the best is not better than the student before training, it is the lowest of all.

    Args:
        measured: by rate the value of each query after its probe, higher is better; shape (queries,). Without the
            rates at which the probe diverged.
        untouched: the same of the student before training.

    Raises:
        EngineError: there is no rate.
    """
    if not measured:
        raise EngineError(
            "the training diverged at every learning rate that was tried",
            "Pass a lower --learning_rate, or soften the teacher's scores",
        )
    rates = sorted(measured)
    best = max(rates, key=lambda rate: (measured[rate].mean(), -rate))
    if measured[best].mean() <= untouched.mean():
        return rates[0], "the lowest: no probe was better than the student before training"
    chosen = next(rate for rate in rates if as_good(measured[best] - measured[rate], settings.standard_errors))
    if chosen == best:
        return best, "the best, and no lower rate is within a standard error of it"
    return chosen, f"the lowest within a standard error of the best, {best:g}"
