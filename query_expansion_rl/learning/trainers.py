"""The trainers of trl for this pipeline: SFT, DPO and GRPO, each measured by what it writes for the dev queries.

SFT on chosen samples is rejection sampling (RAFT, arXiv:2304.06767). DPO: Rafailov et al. 2023, arXiv:2305.18290, with
an SFT term, without which the chosen text loses probability, too (Pang et al. 2024, arXiv:2404.19733). GRPO: Shao et
al. 2024, arXiv:2402.03300.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from datasets import Dataset
from transformers import Trainer

from query_expansion_rl.learning.dev_queries import DevQueries, distinct_1
from query_expansion_rl.learning.policy import LoraSettings, Policy
from query_expansion_rl.learning.watch import Watch
from query_expansion_rl.records import Demonstration, Preference, Topic
from query_expansion_rl.rewards.reward import Reward, Sample
from query_expansion_rl.writing.forms import Form

Method = Literal["rft", "dpo", "grpo"]


def arguments_type(method: Method) -> Any:
    """Return the type of a method's training arguments."""
    with _quiet_about_vllm():
        if method == "rft":
            from trl import SFTConfig as Config
        elif method == "dpo":
            from trl import DPOConfig as Config
        else:
            from trl import GRPOConfig as Config
    return Config


def _trainer_type(method: Method) -> Any:
    with _quiet_about_vllm():  # of the three, only GRPO's imports vLLM, which takes its time
        if method == "rft":
            from trl import SFTTrainer as Base
        elif method == "dpo":
            from trl import DPOTrainer as Base
        else:
            from trl import GRPOTrainer as Base
    return type("MeasuredTrainer", (_MeasuredByDevQueries, Base), {})


@contextmanager
def _quiet_about_vllm() -> Iterator[None]:
    """Let trl be imported without a word on the version of a vLLM that may not be used; `check_vllm` says it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
        yield


class _MeasuredByDevQueries:
    """Mix into a trainer: an evaluation measures the dev queries, step 0 competes, and no card is written."""

    dev: DevQueries

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the dev queries in the place of a loss."""
        trainer: Any = self
        metrics = {
            f"eval_{name}": value for name, value in self.dev.measure(trainer.model, trainer.processing_class).items()
        }
        trainer.log(dict(metrics))
        callbacks = trainer.callback_handler
        trainer.control = callbacks.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        if trainer.state.global_step == 0:
            trainer.state.best_metric, trainer.state.best_global_step = metrics["eval_dev"], 0
        trainer.model.train()
        return metrics

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the pipeline has its own."""

    def _load_best_model(self) -> None:
        """Do nothing: `run_trainer` takes the best checkpoint, and there is none of step 0."""

    def _send_telemetry(self) -> None:
        """Send nothing."""


def make_trainer(
    method: Method,
    policy: Policy,
    arguments: Any,
    rows: Sequence[Demonstration | Preference | Topic],
    *,
    lora: LoraSettings,
    dev: DevQueries,
) -> Trainer:
    """Return the trainer of a method.

    Args:
        arguments: of the type that `arguments_type` names.
        rows: demonstrations for SFT, preferences for DPO, train topics for GRPO.
        dev: GRPO also rewards by its reward, in its form.
    """
    keywords: dict[str, Any] = {}
    if method == "grpo":
        keywords["reward_funcs"] = [grpo_reward(dev.reward, dev.form, policy.tokenizer)]
    dataset = Dataset.from_list([_example(row, dev.form) for row in rows])
    trainer = _trainer_type(method)(
        model=policy.model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset.select([0]),  # the trainer asks for one, and `evaluate` does not
        processing_class=policy.tokenizer,
        peft_config=lora.config(),
        callbacks=[Watch()],
        **keywords,
    )
    trainer.dev = dev
    return trainer


def _example(row: Demonstration | Preference | Topic, form: Form) -> dict[str, str]:
    if isinstance(row, Demonstration):
        return {"prompt": row.prompt, "completion": f" {row.completion}"}
    if isinstance(row, Preference):
        return {"prompt": row.prompt, "chosen": f" {row.chosen}", "rejected": f" {row.rejected}"}
    return {"prompt": form.text(row.query), "query_id": row.query_id, "query": row.query}


def grpo_reward(reward: Reward, form: Form, tokenizer: Any) -> Callable[..., list[float]]:
    """Return the reward of completions as GRPOTrainer asks for it; an answer without an end is a cut one."""

    def expansion(
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        query_id: Sequence[str],
        query: Sequence[str],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        cut = [not ids or ids[-1] not in ends for ids in completion_ids]
        read = zip(completions, query, cut, strict=True)
        texts = [form.read(completion, asked, cut=was) for completion, asked, was in read]
        log_metric("distinct_1", distinct_1(texts))
        log_metric("empty", sum(not text for text in texts) / len(texts))
        samples = [Sample(key, text, was) for key, text, was in zip(query_id, texts, cut, strict=True)]
        return [worth.reward for worth in reward.score_all(samples)]

    return expansion
