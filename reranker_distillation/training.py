"""The training itself: sentence-transformers' trainer with the grouped collator and a grouped loss."""

from __future__ import annotations

import logging
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import set_seed

from rag_core.base.errors import EngineError
from rag_core.distillation.checkpoints import NO_SELECTION, Selection
from rag_core.distillation.student import Adapters, LoraSettings, keep_layers
from rag_core.distillation.trainer import PipelineTrainer, attention_settings, run_trainer, write_training_log
from rag_core.engines.identity import describe_model
from rag_core.engines.precision import keep_head_in_float32
from rag_core.files.unfinished import save_whole
from rag_core.release.saving import save_model
from reranker_distillation.loss_settings import PAIRWISE, Groups, LossSettings
from reranker_distillation.losses import (
    GroupedCollator,
    GroupedMarginMSE,
    GroupedRankNet,
    ListwiseCollator,
    ListwiseLoss,
    group_triplets,
    list_candidates,
)

logger = logging.getLogger(__name__)


def train(
    student: str,
    train_groups: Groups,
    eval_groups: Groups | None,
    *,
    loss: LossSettings,
    max_length: int,
    dropout: float | None,
    init_layers: int | None = None,
    lora: LoraSettings | None = None,
    selection: Selection = NO_SELECTION,
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
    model = load_student(student, max_length, dropout, init_layers)
    own_length, model.max_seq_length = model.max_seq_length, min(max_length, model.max_seq_length)
    adapters = lora and Adapters(model[0].auto_model, lora)
    training_arguments.output_dir = str(checkpoints)
    train_dataset = _make_dataset(train_groups, loss)
    collator = GroupedCollator if loss.loss in PAIRWISE else ListwiseCollator
    trainer = _Trainer(
        model=model,
        args=training_arguments,
        train_dataset=train_dataset,
        eval_dataset=_make_dataset(eval_groups, loss) if eval_groups else None,
        data_collator=collator(preprocess_fn=model.preprocess, mini_batch_size=mini_batch_size),
        loss=_make_loss(model, loss, train_dataset),
        evaluator=selection.evaluator(mini_batch_size),
    )
    facts = run_trainer(trainer, checkpoints, selection)
    if adapters:
        adapters.merge()
    model.max_seq_length = own_length

    def write(folder: Path) -> None:
        save_model(model, folder)
        write_training_log(folder, trainer.state)

    if trainer.is_world_process_zero():
        save_whole(output_dir, checkpoints / "model", write)
    return {"queries": len(train_groups), **_count(train_dataset), **facts}


def _make_dataset(groups: Groups, loss: LossSettings) -> Dataset:
    make = group_triplets if loss.loss in PAIRWISE else list_candidates
    return make(groups, loss.margin_scale)  # type: ignore[arg-type]  # read as the loss has it


def _make_loss(model: CrossEncoder, settings: LossSettings, train_dataset: Dataset) -> nn.Module:
    if settings.loss not in PAIRWISE:
        return ListwiseLoss(model, settings)
    margins = list(chain.from_iterable(train_dataset["margin"]))
    mean_margin = sum(margins) / len(margins) if settings.weighting == "margin" else None
    return (GroupedRankNet if settings.loss == "ranknet" else GroupedMarginMSE)(model, mean_margin)


def _count(dataset: Dataset) -> dict[str, int]:
    """Count what the model learned from: `triplets`, or `pairs` of a query and a passage."""
    column, name = ("margin", "triplets") if "margin" in dataset.column_names else ("scores", "pairs")
    return {name: sum(map(len, dataset[column]))}


def load_student(name: str, max_length: int, dropout: float | None, init_layers: int | None = None) -> CrossEncoder:
    """Load a cross-encoder, or grow one from a bi-encoder: its transformer, its pooling, and a fresh linear head.

    The head of a grown one gives raw scores (no sigmoid), whose differences are what is learned.

    Raises:
        EngineError: the model cannot be loaded, has more than one output, or is an LLM.
        UsageError: it has fewer than `init_layers` layers.
    """
    described = describe_model(name)
    kind = described.kind
    config = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    attention = attention_settings()
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
            raise EngineError(
                f"{name} is a {kind} ({described.why})", "Choose a cross-encoder or a bi-encoder as student"
            )
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot load the student {name!r} ({str(error).splitlines()[0]})", "Check the name or folder"
        ) from error
    if model.num_labels != 1:
        raise EngineError(f"{name} has {model.num_labels} outputs, a reranker has 1", "Choose another student")
    if init_layers is not None:
        keep_layers(model[0].auto_model, init_layers)
    keep_head_in_float32(model)
    longest = model[0].auto_model.config.max_position_embeddings
    # A cross-encoder shall read as much as before, however short the pairs of its training. One that is grown knows no
    # other pairs than these: trained on 128 tokens, it fell from 0.62 to 0.58 on SciFact where it read 256.
    own_length = max_length if kind == "bi-encoder" else (model.max_seq_length or longest)
    model.max_seq_length = min(own_length, longest)
    return model


_SCORES = {"module_output_name": "scores"}  # the name under which CrossEncoder looks for them


class _Trainer(PipelineTrainer, CrossEncoderTrainer):  # type: ignore[misc]  # untyped base
    """CrossEncoderTrainer as the pipeline needs it."""

    def count_terms(self, batch: dict[str, Any]) -> int:
        """Return the number of triplets, or of queries where these are learned as a whole."""
        return len(batch["sizes"] if "sizes" in batch else batch["label"])
