"""What auto comes to: the flags that ask for it, which rates are tried, and which one is taken, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from rag_core.base.errors import EngineError, UsageError
from rag_core.distillation.checkpoints import NO_SELECTION, Selection
from rag_core.distillation.probing import (
    Auto,
    ProbeSettings,
    auto_epochs,
    choose_rate,
    plan_probes,
    rates_to_try,
    steps_of,
)

LOW, MIDDLE, HIGH = 2e-5, 6e-5, 1.8e-4
UNTOUCHED = [0.4, 0.5, 0.6, 0.5]


@pytest.mark.parametrize(
    ("low", "middle", "high", "expected"),
    [
        # Always .1 better than the next lower one: no standard error, so that nothing else is as good.
        ([0.5, 0.6, 0.7, 0.6], [0.6, 0.7, 0.8, 0.7], [0.7, 0.8, 0.9, 0.8], HIGH),
        # high - middle is .2, 0, 0, 0: mean .05, standard error .0433. high - low is .2, .1, .1, .1.
        ([0.7, 0.7, 0.7, 0.7], [0.7, 0.8, 0.8, 0.8], [0.9, 0.8, 0.8, 0.8], HIGH),
        # high - middle is .1, -.1, .1, -.05: mean .0125, standard error .0455. middle - low is .3 each.
        ([0.4, 0.5, 0.5, 0.55], [0.7, 0.8, 0.8, 0.85], [0.8, 0.7, 0.9, 0.8], MIDDLE),
        # Of equal ones the lowest.
        ([0.7, 0.7, 0.7, 0.7], [0.7, 0.7, 0.7, 0.7], [0.7, 0.7, 0.7, 0.7], LOW),
        # The best has a mean of .5, as the untouched student, and is the highest beyond an error.
        ([0.3, 0.3, 0.3, 0.3], [0.4, 0.4, 0.4, 0.4], [0.5, 0.5, 0.5, 0.5], LOW),
    ],
)
def test_the_lowest_rate_that_is_as_good_as_the_best(low, middle, high, expected):
    measured = {HIGH: np.array(high), LOW: np.array(low), MIDDLE: np.array(middle)}
    assert choose_rate(measured, np.array(UNTOUCHED))[0] == expected


def test_what_is_as_good_is_a_setting():
    # The second row above: .05 is 1.15 standard errors.
    measured = {MIDDLE: np.array([0.7, 0.8, 0.8, 0.8]), HIGH: np.array([0.9, 0.8, 0.8, 0.8])}
    rates = [choose_rate(measured, np.zeros(4), ProbeSettings(standard_errors=errors))[0] for errors in (1, 1.2)]
    assert rates == [HIGH, MIDDLE]


def test_rates_that_diverged_are_none():
    assert choose_rate({LOW: np.array([0.6, 0.7])}, np.array([0.5, 0.5]))[0] == LOW
    with pytest.raises(EngineError, match=r"diverged at every learning rate that was tried\. Pass a lower"):
        choose_rate({}, np.array([0.5, 0.5]))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (22_000_000, [2e-5, 6e-5, 1.8e-4]),
        (88_000_000, [1e-5, 3e-5, 9e-5]),  # four times the size, half the rate
        (10_000, [3.3e-5, 1e-4, 3e-4]),  # bounded
        (8_000_000_000, [3.3e-6, 1e-5, 3e-5]),
    ],
)
def test_a_large_student_is_tried_at_lower_rates(parameters, expected):
    assert rates_to_try(parameters) == expected
    assert rates_to_try(parameters, lora=True) == pytest.approx([10 * rate for rate in expected])


@pytest.mark.parametrize(("queries", "epochs"), [(100, 5), (400, 4), (750, 2), (1500, 1), (10_000, 1)])
def test_a_small_set_is_repeated(queries, epochs):
    assert auto_epochs(queries) == epochs


@pytest.mark.parametrize("run_steps", [1, 15, 16, 100, 999])
@pytest.mark.parametrize("factors", [(1.0, 3.0), (0.1, 0.3, 1.0, 3.0, 10.0)])
def test_all_probes_cost_at_most_one_run_more(run_steps, factors):
    settings = ProbeSettings(factors=factors, most_held_out=5)
    plan = plan_probes(40, run_steps, 1, settings)
    assert len(factors) * plan.steps <= run_steps
    assert plan.steps == 0 or plan.steps >= 4
    assert len(plan.queries) == (10 if len(factors) == 2 else 8)
    assert len(plan.held_out) == 5
    assert set(plan.queries).isdisjoint(plan.held_out)
    assert plan == plan_probes(40, run_steps, 1, settings)
    assert plan != plan_probes(40, run_steps, 2, settings)


def arguments(**given):
    usual = {"max_steps": -1, "train_batch_size": 4, "world_size": 1, "dataloader_drop_last": False}
    return SimpleNamespace(**usual | {"gradient_accumulation_steps": 2, "num_train_epochs": 3.0} | given)


def test_steps_are_counted_as_the_trainer_does():
    assert steps_of(arguments(), 17) == 9  # 5 batches are 3 steps
    assert steps_of(arguments(num_train_epochs=0.5), 17) == 2
    assert steps_of(arguments(dataloader_drop_last=True), 17) == 6
    assert steps_of(arguments(max_steps=7), 17) == 7


def test_auto_is_taken_out_of_the_trainers_flags():
    both = Auto(learning_rate=True, num_train_epochs=True)
    rest = ["--bf16", "false", "--seed=1"]
    assert Auto.take([*rest, "--learning_rate", "auto", "--num-train-epochs=auto"]) == (both, rest)
    assert Auto.take(["--learning_rate=2e-5", *rest]) == (Auto(), ["--learning_rate=2e-5", *rest])
    # The last one counts, as with all flags.
    assert Auto.take(["--learning_rate", "auto", "--learning_rate", "1e-3"]) == (Auto(), ["--learning_rate", "1e-3"])
    assert Auto.take(["--learning_rate", "1", "--learning_rate", "auto"])[0] == Auto(learning_rate=True)
    assert Auto.take(["--learning_rate"]) == (Auto(), ["--learning_rate"])
    assert both.recipe() == {"learning_rate": "auto", "num_train_epochs": "auto"}
    assert Auto().recipe() == {}


def test_auto_epochs_keep_the_best_where_there_are_dev_files(dev_sets):
    best = {"load_best_model_at_end": True}
    epochs = Auto(num_train_epochs=True)
    assert epochs.defaults(Selection(dev_sets)) == best
    assert epochs.defaults(Selection(dev_sets, average_checkpoints=2)) == {}
    assert epochs.defaults(NO_SELECTION) == Auto(learning_rate=True).defaults(Selection(dev_sets)) == {}


def test_what_does_not_go_with_auto():
    Auto().settle_epochs(arguments(world_size=2, max_steps=3), 10)
    with pytest.raises(UsageError, match=r"auto tries rates in one process, and there are 2\. Start one process"):
        Auto(learning_rate=True).settle_epochs(arguments(world_size=2), 10)
    with pytest.raises(UsageError, match=r"auto has no effect beside --max_steps\. Leave one of them out"):
        Auto(num_train_epochs=True).settle_epochs(arguments(max_steps=3), 10)
    settled = arguments(world_size=2)
    Auto(num_train_epochs=True).settle_epochs(settled, 400)
    assert settled.num_train_epochs == 4.0
