"""The training of a cross-encoder: sentence-transformers' trainer with our collators and losses."""

from __future__ import annotations

import logging
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import set_seed

from rag_core.base.errors import EngineError
from rag_core.distillation.student import StudentSettings, in_training, load_model
from rag_core.distillation.trainer import PipelineTrainer, TrainingRun, run_trainer, write_training_log
from rag_core.engines.identity import ModelInfo
from rag_core.engines.precision import keep_head_in_float32
from rag_core.engines.pretrained import readable_tokens
from rag_core.release.saving import save_model
from reranker_distillation.loss_settings import PAIRWISE, Groups, LossSettings, TrainingData
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

_SCORES = {"module_output_name": "scores"}  # the name under which CrossEncoder looks for them


def train(data: TrainingData, loss: LossSettings, run: TrainingRun) -> dict[str, Any]:
    """Train, from the last whole checkpoint if there is one; save the model; return counts for its manifest.

    Raises:
        EngineError: the student cannot be loaded, or its loss is not finite.
    """
    set_seed(run.arguments.seed)  # before a fresh head is drawn
    model = load_student(run.student)
    train_dataset = _make_dataset(data.train, loss)
    collator = GroupedCollator if loss.loss in PAIRWISE else ListwiseCollator
    size = run.student.mini_batch_size
    with in_training(model, run.student):
        trainer = _Trainer(
            model=model,
            args=run.arguments,
            train_dataset=train_dataset,
            eval_dataset=_make_dataset(data.eval, loss) if data.eval else None,
            data_collator=collator(preprocess_fn=model.preprocess, mini_batch_size=size, in_parts=True),
            loss=_make_loss(model, loss, train_dataset),
            evaluator=run.selection.evaluator(size),
        )
        facts = run_trainer(trainer, run.selection)

    def write(folder: Path) -> None:
        save_model(model, folder)
        write_training_log(folder, trainer.state, run.found)

    facts = {"queries": len(data.train), **_count(train_dataset), **facts}
    if run.measure:
        run.measure(model, {}, (1.0,))
    elif trainer.is_world_process_zero():
        run.save(write, facts)
    return facts


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


def load_student(student: StudentSettings) -> CrossEncoder:
    """Load a cross-encoder, or grow one from a bi-encoder: its transformer, its pooling, and a fresh linear head.

    The head of a grown one gives raw scores (no sigmoid), whose differences are what is learned.

    Raises:
        EngineError: the model cannot be loaded, has more than one output, or is an LLM.
        UsageError: it has fewer than `init_layers` layers.
    """
    name, kind = student.model.name, student.model.kind
    if kind == "cross-encoder":
        model = load_model(student, CrossEncoder)
    elif kind == "bi-encoder":
        model = _grow(load_model(student, SentenceTransformer), student.model)
        logger.info("%s is a bi-encoder: a cross-encoder with a fresh head is grown from it", name)
    else:
        raise EngineError(
            f"{name} is a {kind} ({student.model.why})", "Choose a cross-encoder or a bi-encoder as student"
        )
    if model.num_labels != 1:
        raise EngineError(f"{name} has {model.num_labels} outputs, a reranker has 1", "Choose another student")
    keep_head_in_float32(model)
    # A cross-encoder shall read as much as before, however short the pairs of its training. A grown one knows only
    # pairs of that length: trained on 128 tokens, it fell from 0.62 to 0.58 on SciFact where it read 256.
    if kind == "bi-encoder":
        model.max_seq_length = min(student.max_length, readable_tokens(model.transformers_model) or student.max_length)
    return model


def _grow(encoder: SentenceTransformer, described: ModelInfo) -> CrossEncoder:
    if encoder.transformers_model is None:
        raise EngineError(
            f"{described.name} has no transformer ({described.why}), and cannot read query and passage together",
            "Choose a cross-encoder or a bi-encoder with a transformer as student",
        )
    modules = list(encoder)
    place = next(i for i, module in enumerate(modules) if isinstance(module, Pooling))
    head = Dense(modules[place].get_embedding_dimension(), 1, activation_function=nn.Identity(), **_SCORES)
    return CrossEncoder(modules=[*modules[: place + 1], head], activation_fn=nn.Identity())


class _Trainer(PipelineTrainer, CrossEncoderTrainer):  # type: ignore[misc]  # untyped base
    """CrossEncoderTrainer as the pipeline needs it."""

    def count_terms(self, batch: dict[str, Any]) -> int:
        """Return the number of triplets, or of queries where these are learned as a whole."""
        return len(batch["sizes"] if "sizes" in batch else batch["label"])
