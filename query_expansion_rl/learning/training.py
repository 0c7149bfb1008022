"""The training of a language model: from the last whole checkpoint on, to the best one on the dev queries."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from query_expansion_rl.learning.dev_queries import DevQueries
from query_expansion_rl.learning.policy import LoraSettings, count_parameters, load_policy, save_policy, training_dtype
from query_expansion_rl.learning.trainers import Method, arguments_type, make_trainer
from query_expansion_rl.records import Demonstration, Preference, Topic
from query_expansion_rl.writing.forms import Form
from rag_core.base.errors import UsageError
from rag_core.distillation.checkpoints import PRIMARY, Selection, dev_values, whole_checkpoints
from rag_core.distillation.train_args import parse_training_arguments
from rag_core.distillation.trainer import run_trainer, write_training_log
from rag_core.files.unfinished import save_whole

_SMALL = 400_000_000  # parameters

# On SmolLM2-135M these learned; at 5e-5 and above, models of 0.5B and more have collapsed for others. DPO on 92 pairs,
# one epoch at 1e-4: no margin; on 100 pairs, three epochs at 2e-4: a margin of 1 to 2.
_RATES: dict[Method, float] = {"rft": 5e-4, "dpo": 2e-4, "grpo": 1e-4}
_RATE_OF_LARGER: dict[Method, float] = {"rft": 1e-4, "dpo": 1e-5, "grpo": 1e-5}

_OWN: dict[Method, dict[str, Any]] = {
    "rft": {"num_train_epochs": 2.0, "per_device_train_batch_size": 16},
    "dpo": {
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "beta": 0.1,
        "loss_type": ["sigmoid", "sft"],
        "loss_weights": [1.0, 0.2],
    },
    "grpo": {
        "max_steps": 60,
        "per_device_train_batch_size": 16,
        "num_generations": 8,
        "temperature": 1.0,
        "mask_truncated_completions": True,
    },
}

logger = logging.getLogger(__name__)


class DevSelection(Selection):
    """The checkpoint whose greedy expansions are worth most on the dev queries."""

    def metric_names(self) -> list[str]:
        """Return the one that is chosen by."""
        return [PRIMARY]


@dataclass(frozen=True)
class LearnerSettings:
    """How a language model is trained, but for what the trainer's own arguments say."""

    method: Method
    model: str
    form: Form
    lora: LoraSettings


def parse_arguments(
    settings: LearnerSettings, flags: Sequence[str], *, seed: int, dev_every: int, patience: int | None, use_vllm: str
) -> Any:
    """Parse the trainer's own flags over our defaults.

    Args:
        patience: as of `train`.

    Raises:
        UsageError: a flag is unknown, or values contradict each other.
    """
    method = settings.method
    parameters = count_parameters(settings.model)
    small = parameters is not None and parameters < _SMALL
    defaults: dict[str, Any] = {
        "learning_rate": (_RATES if small else _RATE_OF_LARGER)[method],
        "bf16": training_dtype() == "bfloat16",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "eval_steps": dev_every,
        "save_steps": dev_every,
        "save_total_limit": 2,
        "per_device_eval_batch_size": 8,
        "metric_for_best_model": PRIMARY,
        "greater_is_better": True,
        "report_to": "none",
        **_OWN[method],
    }
    if method == "grpo":
        defaults |= {"max_completion_length": settings.form.max_new_tokens, "num_generations_eval": 8}
        if use_vllm != "no":
            defaults |= {"use_vllm": True, "vllm_mode": use_vllm, "vllm_gpu_memory_utilization": 0.3}
    elif use_vllm != "no":
        raise UsageError(f"--method {method} draws no samples while it trains", "Leave out --use_vllm")
    arguments = parse_training_arguments(
        arguments_type(method), flags, defaults, seed=seed, evaluates=True, selection=DevSelection((), patience)
    )
    if method == "grpo" and arguments.max_completion_length != settings.form.max_new_tokens:
        raise UsageError("--max_completion_length is --max_new_tokens here", "Pass --max_new_tokens alone")
    return arguments


def check_vllm(use_vllm: str) -> None:
    """Warn of what may not fit, since trl reaches into vLLM for the weights.

    Raises:
        UsageError: vLLM is not installed.
    """
    import importlib.metadata

    if use_vllm == "no":
        return
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(f"--use_vllm {use_vllm} needs vLLM", 'Run: pip install "rag-optimization[vllm]"') from error
    logger.warning(
        "WARNING: vLLM %s is here; trl %s supports 0.22.0 to 0.31.0, and only warns of others. Run two steps "
        "(--max_steps 2) before a long training.",
        version,
        importlib.metadata.version("trl"),
    )


def train(
    settings: LearnerSettings,
    arguments: Any,
    rows: Sequence[Demonstration | Preference | Topic],
    dev: DevQueries,
    output_dir: Path,
    *,
    patience: int | None,
) -> dict[str, Any]:
    """Train, from the last whole checkpoint if there is one; save the best, and return facts for the manifest.

    Args:
        arguments: of the trainer; checkpoints go to their `output_dir`.
        patience: measurements without a new best, after which it ends with the best; `None` keeps the last step.
    """
    from transformers import set_seed

    checkpoints = Path(arguments.output_dir)
    arguments.eval_on_start = not whole_checkpoints(checkpoints)
    set_seed(arguments.seed)  # before adapters are drawn
    policy = load_policy(settings.model)
    trainer: Any = make_trainer(settings.method, policy, arguments, rows, lora=settings.lora, dev=dev)
    selection = DevSelection((), patience)
    facts = run_trainer(trainer, selection)
    measured = dev_values(trainer.state.log_history, selection.metric_names())
    best = trainer.state.global_step if patience is None else trainer.state.best_global_step or 0
    facts |= {"dev": measured, "best_step": best, "examples": len(rows)}
    if best == 0:
        logger.warning(
            "WARNING: no step is better on the dev queries than the start (%.4f). The folder has the start's weights.",
            trainer.state.best_metric if trainer.state.best_metric is not None else math.nan,
        )

    def write(folder: Path) -> None:
        trained = type(policy)(trainer.accelerator.unwrap_model(trainer.model), policy.tokenizer)
        save_policy(trained, settings.form, folder, trained=best > 0)
        write_training_log(folder, trainer.state)

    if trainer.is_world_process_zero():
        save_whole(output_dir, checkpoints / "model", write)
    return facts
