"""What goes wrong in training, said while it happens: no variance, cut answers, a reward that nobody else believes.

Every one was seen by users of GRPO: groups without variance teach nothing, a cap that cuts every answer makes all
rewards alike, and a reward that rises while held-out queries get worse is being cheated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_FLAT = 0.8  # share of groups without variance that teaches too little
_FLAT_STEPS = 20  # in a row, after which training stops
_CUT = 0.5
_SHOWN = {
    "reward": "reward",
    "rewards/margins": "margin",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "cut",
    "frac_reward_zero_std": "flat",
    "distinct_1": "distinct-1",
    "kl": "KL",
    "entropy": "entropy",
    "eval_dev_truth": "dev by qrels",
    "eval_dev_tokens": "dev tokens",
    "eval_dev_cut": "dev cut",
    "eval_dev_empty": "dev empty",
}

logger = logging.getLogger(__name__)


class Watch(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Show what a trainer logs of rewards, warn, and stop where nothing can be learned any more."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure the last step, too, wherever it falls."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show, warn and stop."""
        shown = [f"{name} {logs[key]:.4g}" for key, name in _SHOWN.items() if logs and logs.get(key) is not None]
        if shown and state.is_world_process_zero:
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, ", ".join(shown))
        for warning in warnings_of(state.log_history):
            if warning not in self._told and state.is_world_process_zero:
                self._told.add(warning)
                logger.warning("WARNING: %s", warning)
        if is_flat(state.log_history):
            logger.warning(
                "WARNING: training stops: in %d steps, %.0f%% of the groups had no variance. Raise --temperature or "
                "--rank_shaping, or lower --query_weight.",
                _FLAT_STEPS,
                100 * _FLAT,
            )
            control.should_training_stop = True


def is_flat(log: Sequence[Mapping[str, float]]) -> bool:
    """Tell whether nearly no group had any variance for so long that training should stop."""
    flat = [entry["frac_reward_zero_std"] for entry in log if entry.get("frac_reward_zero_std") is not None]
    return len(flat) >= _FLAT_STEPS and min(flat[-_FLAT_STEPS:]) > _FLAT


def warnings_of(log: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what a trainer's log gives reason to warn of; each sentence is the same whenever it is due."""
    found = []
    cut = [entry["completions/clipped_ratio"] for entry in log if entry.get("completions/clipped_ratio") is not None]
    cut += [entry["eval_dev_cut"] for entry in log if "eval_dev_cut" in entry and not cut]
    if cut and cut[-1] > _CUT:
        found.append(
            "more than half of the answers are cut by the cap on their tokens, and teach nothing. Train with --method "
            "rft first, or raise --max_new_tokens."
        )
    rewards = [entry["reward"] for entry in log if entry.get("reward") is not None]
    dev = [entry for entry in log if "eval_dev" in entry]
    third = len(rewards) // 3
    rises = third > 0 and sum(rewards[-third:]) > sum(rewards[:third])
    if rises and len(dev) > 1 and dev[-1]["eval_dev"] < dev[0]["eval_dev"] - dev[0]["eval_dev_error"]:
        found.append(
            "the reward rises and that of the dev queries has fallen by more than a standard error: the policy learns "
            "the train queries by heart, or how to cheat the judge."
        )
    if (
        len(dev) > 1
        and dev[-1]["eval_dev"] > dev[0]["eval_dev"]
        and dev[-1]["eval_dev_truth"] < dev[0]["eval_dev_truth"]
    ):
        found.append("the judge likes the dev queries' rankings better than before training, and the qrels do not.")
    if len(dev) > 1 and dev[-1]["eval_dev_empty"] > _CUT:
        found.append("more than half of the answers are empty: the policy has learned to add nothing.")
    return found
