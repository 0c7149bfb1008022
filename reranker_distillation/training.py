"""The training itself: sentence-transformers' trainer with the grouped collator and a grouped loss."""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import (
    HfArgumentParser,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from rag_core.engines.identity import model_kind
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.sentence_transformers_engine import keep_head_in_float32
from rag_core.errors import EngineError, UsageError
from rag_core.jsonl import sync_directory
from rag_core.records import Triplet
from reranker_distillation.losses import GroupedCollator, GroupedMarginMSE, group_triplets

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
)

logger = logging.getLogger(__name__)


def parse_training_arguments(
    flags: Sequence[str], defaults: dict[str, Any], *, seed: int, evaluates: bool
) -> CrossEncoderTrainingArguments:
    """Parse the trainer's own flags over our defaults.

    Raises:
        UsageError: a flag is unknown, or values contradict each other.
    """
    parser = HfArgumentParser(CrossEncoderTrainingArguments, allow_abbrev=False)
    parser.set_defaults(
        **defaults,
        bf16=resolve_dtype("auto") == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),
        eval_strategy="steps" if evaluates else "no",
        eval_steps=0.1 if evaluates else None,
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
    )
    try:
        (arguments,) = parser.parse_args_into_dataclasses(["--output_dir", "unused", "--seed", str(seed), *flags])
    except argparse.ArgumentError as error:
        raise UsageError(str(error), "See the CrossEncoderTrainingArguments of sentence-transformers") from error
    except ValueError as error:
        raise UsageError(str(error).splitlines()[0], "Change the training flags") from error
    if arguments.eval_strategy != "no" and not evaluates:
        raise UsageError(f"--eval_strategy {arguments.eval_strategy.value} has nothing to evaluate", "Pass --eval_file")
    return arguments


def decisive_settings(arguments: CrossEncoderTrainingArguments) -> dict[str, Any]:
    """Return the settings that have a say in the weights that come out."""
    return {name: value for name, value in arguments.to_dict().items() if not name.startswith(_WITHOUT_SAY)}


def train(
    student: str,
    train_groups: Sequence[Sequence[Triplet]],
    eval_groups: Sequence[Sequence[Triplet]] | None,
    *,
    margin_scale: float,
    max_length: int,
    dropout: float | None,
    mini_batch_size: int,
    training_arguments: CrossEncoderTrainingArguments,
    checkpoints: Path,
    output_dir: Path,
) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `checkpoints`; save the model; return counts for its manifest.

    Raises:
        EngineError: the student cannot be loaded, or its loss is not finite.
    """
    set_seed(training_arguments.seed)  # before a fresh head is drawn
    model = load_student(student, max_length, dropout)
    training_arguments.output_dir = str(checkpoints)
    trainer = _Trainer(
        model=model,
        args=training_arguments,
        train_dataset=group_triplets(train_groups, margin_scale),
        eval_dataset=group_triplets(eval_groups, margin_scale) if eval_groups else None,
        data_collator=GroupedCollator(preprocess_fn=model.preprocess, mini_batch_size=mini_batch_size),
        loss=GroupedMarginMSE(model),
        callbacks=[_LogCallback()],
    )
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which is for results
    checkpoint = _last_whole_checkpoint(checkpoints)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint.name)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if trainer.is_world_process_zero():
        _save(model, trainer.state, checkpoints / "model", output_dir)
    return {
        "queries": len(train_groups),
        "triplets": sum(map(len, train_groups)),
        "steps": trainer.state.global_step,
        "seconds": round(sum(log.get("train_runtime", 0.0) for log in trainer.state.log_history), 1),
    }


def load_student(name: str, max_length: int, dropout: float | None) -> CrossEncoder:
    """Load a cross-encoder, or grow one from a bi-encoder: its transformer, its pooling, and a fresh linear head.

    The head of a grown one gives raw scores (no sigmoid), whose differences are what is learned.

    Raises:
        EngineError: the model cannot be loaded, has more than one output, or is an LLM.
    """
    kind, evidence = model_kind(name)
    config = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    # PyTorch's fused attention is the slower one on a CPU, forward and backward.
    attention = {} if torch.cuda.is_available() else {"attn_implementation": "eager"}
    try:
        if kind == "cross-encoder":
            model = CrossEncoder(name, model_kwargs=attention, config_kwargs=config)
        elif kind == "bi-encoder":
            encoder = SentenceTransformer(name, model_kwargs=attention, config_kwargs=config)
            pooling = next(module for module in encoder if isinstance(module, Pooling))
            head = Dense(pooling.get_embedding_dimension(), 1, activation_function=nn.Identity(), **_SCORES)
            model = CrossEncoder(modules=[encoder[0], pooling, head], activation_fn=nn.Identity())
            logger.info("%s is a bi-encoder: a cross-encoder with a fresh head is grown from it", name)
        else:
            raise EngineError(f"{name} is a {kind} ({evidence})", "Choose a cross-encoder or a bi-encoder as student")
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot load the student {name!r} ({str(error).splitlines()[0]})", "Check the name or folder"
        ) from error
    if model.num_labels != 1:
        raise EngineError(f"{name} has {model.num_labels} outputs, a reranker has 1", "Choose another student")
    keep_head_in_float32(model)
    longest = model[0].auto_model.config.max_position_embeddings
    model.max_seq_length = min(max_length, longest)
    return model


_SCORES = {"module_output_name": "scores"}  # the name under which CrossEncoder looks for them


class _Trainer(CrossEncoderTrainer):  # type: ignore[misc]  # untyped base
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave out the card that quotes training texts; the pipeline writes its own."""


class _LogCallback(TrainerCallback):  # type: ignore[misc]  # untyped base
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
                "Lower --learning_rate or --margin_scale",
            )
        shown = {name: value for name, value in (logs or {}).items() if name in ("loss", "eval_loss", "learning_rate")}
        if shown and state.is_world_process_zero:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, figures)


def _last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was saved to its end: the trainer writes its state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _save(model: CrossEncoder, state: TrainerState, unfinished: Path, output_dir: Path) -> None:
    """Save to a folder beside and rename it, so that no half-written model is taken for a whole one."""
    model.save_pretrained(str(unfinished), create_model_card=False)
    (unfinished / "training_log.json").write_text(json.dumps(state.log_history, indent=2), encoding="utf-8")
    if output_dir.exists():
        shutil.rmtree(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(output_dir)
    sync_directory(output_dir.parent)
