"""The training of a bi-encoder: sentence-transformers' trainer with our collator and losses, then the merge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from transformers import set_seed

from embedding_distillation.collator import Anchors, GroupedCollator, make_dataset, role_prompts
from embedding_distillation.loss_settings import LossSettings, TrainingData
from embedding_distillation.losses import DistillationLoss
from rag_core.base.errors import EngineError, UsageError
from rag_core.distillation.measuring import Measured, measure_all
from rag_core.distillation.student import StudentSettings, in_training, load_model
from rag_core.distillation.trainer import PipelineTrainer, TrainingRun, run_trainer, write_training_log
from rag_core.distillation.weight_merging import (
    DEFAULT_ALPHA,
    Domain,
    Merge,
    Weights,
    choose_alpha,
    interpolate,
    keep_weights,
    write_merge,
)
from rag_core.engines.identity import ModelInfo
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Role
from rag_core.release.saving import save_model
from rag_core.scoring.vectors import TextVectors, embed_for_training

logger = logging.getLogger(__name__)


def train(
    data: TrainingData, loss: LossSettings, anchors: Anchors, merge: float | str, run: TrainingRun
) -> dict[str, Any]:
    """Train, from the last whole checkpoint if there is one; merge, save, and return facts for the manifest.

    Args:
        merge: the weight of the trained student beside the one before; "auto" chooses it on the dev sets, "off" is 1.

    Raises:
        EngineError: the student cannot be loaded, or its loss is not finite.
    """
    student = run.student
    teacher_vectors = _teacher_vectors(run.teacher, data, run) if run.teacher else None
    anchor_vectors = _anchor_vectors(anchors, run) if anchors.texts else None
    set_seed(run.arguments.seed)  # before a projection is drawn
    model = load_student(student)
    _check_sizes(model, loss.matryoshka_dims)
    before = keep_weights(model, run.checkpoints)
    with in_training(model, student):
        trainer = _Trainer(
            model=model,
            args=run.arguments,
            train_dataset=make_dataset(data.train, anchors),
            eval_dataset=make_dataset(data.eval, anchors) if data.eval else None,
            data_collator=GroupedCollator(
                preprocess_fn=model.preprocess,
                mini_batch_size=student.mini_batch_size,
                role_prompts=role_prompts(model),
                teacher_vectors=teacher_vectors,
                anchor_vectors=anchor_vectors,
                in_parts=loss.is_of_lists,
            ),
            loss=DistillationLoss(model, loss, teacher_vectors.dimensions if teacher_vectors else None),
            evaluator=run.selection.evaluator(student.mini_batch_size),
        )
        pairs = sum(len(group.passages) for group in data.train)
        facts = {"queries": len(data.train), "pairs": pairs, **run_trainer(trainer, run.selection)}
    if run.measure:
        run.measure(model, before, _possible_alphas(merge, run))
    elif trainer.is_world_process_zero():
        merged = _merge(model, before, merge, run)
        facts["alpha"] = merged.alpha

        def write(folder: Path) -> None:
            save_model(model, folder)
            write_training_log(folder, trainer.state, run.found)
            write_merge(folder, merged)

        if loss.matryoshka_dims:
            facts["matryoshka"] = _by_size(model, loss.matryoshka_dims, run.dev_sets, student.mini_batch_size)
        run.save(write, facts)
    return facts


def load_student(student: StudentSettings) -> SentenceTransformer:
    """Load a bi-encoder to be trained.

    Raises:
        EngineError: it cannot be loaded, or is of another kind.
        UsageError: it has fewer than `init_layers` layers.
    """
    described = student.model
    if described.kind != "bi-encoder":
        raise EngineError(f"{described.name} is a {described.kind} ({described.why})", "Choose a bi-encoder as student")
    model = load_model(student, SentenceTransformer)
    if model.transformers_model is not None:
        model.max_seq_length = model.max_seq_length or student.max_length
    return model


def _check_sizes(model: SentenceTransformer, sizes: Sequence[int]) -> None:
    whole = model.get_embedding_dimension()
    wrong = [size for size in sizes if not 1 <= size <= whole]
    if wrong:
        raise UsageError(f"--matryoshka_dims has {wrong[0]}", f"The student's embeddings have 1 to {whole} dimensions")
    if sizes and whole not in sizes:
        logger.warning("WARNING: --matryoshka_dims lacks %d, all dimensions: whole vectors are not trained.", whole)


def _by_size(
    model: SentenceTransformer, sizes: Sequence[int], dev_sets: Sequence[tuple[Domain, Measured]], batch_size: int
) -> dict[str, dict[str, float]]:
    """Return the mean of each dev file with the embeddings cut to each size: file -> size -> value."""
    found: dict[str, dict[str, float]] = {dev_set.name: {} for _, dev_set in dev_sets}
    for size in sizes:
        model.truncate_dim = size
        measured = measure_all([dev_set for _, dev_set in dev_sets], model, batch_size, f"{size} dimensions")
        for values, (_, dev_set) in zip(measured, dev_sets, strict=True):
            found[dev_set.name][str(size)] = float(values[dev_set.measures[0]].mean())
    model.truncate_dim = None
    return found


def _teacher_vectors(teacher: ModelInfo, data: TrainingData, run: TrainingRun) -> TextVectors:
    groups = [*data.train, *(data.eval or ())]
    texts: dict[Role, set[str]] = {
        "query": {group.query for group in groups},
        "passage": {passage for group in groups for passage in group.passages},
    }
    options = EngineOptions(teacher, max_length=run.student.max_length)
    return embed_for_training(options, texts, run.vectors_folder / "teacher")


def _anchor_vectors(anchors: Anchors, run: TrainingRun) -> TextVectors:
    options = EngineOptions(run.student.model, max_length=run.student.max_length, dtype="float32")
    return embed_for_training(options, anchors.by_role(), run.vectors_folder / "anchors")


def _possible_alphas(merge: float | str, run: TrainingRun) -> tuple[float, ...]:
    """Return points that stand for those that `_merge` may choose: a probe need not be merged as finely."""
    if isinstance(merge, float):
        return (merge,)
    if merge == "off" or run.student.init_layers is not None:
        return (1.0,)
    return (1.0, DEFAULT_ALPHA) if run.dev_sets else (DEFAULT_ALPHA,)


def _merge(model: SentenceTransformer, before: Weights, alpha: float | str, run: TrainingRun) -> Merge:
    """Leave the model with the merged weights; return what was chosen.

    For a shallow student, `before` is the untrained cut, which is useless on its own: the dev sets hold the trained
    student against it, and without dev sets all of the training is kept.
    """
    after = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if alpha == "off":
        return Merge(1.0, "--merge off", (), [])
    if alpha == "auto" and run.dev_sets:
        merge = choose_alpha(model, before, after, run.dev_sets, run.student.mini_batch_size)
    elif alpha == "auto" and run.student.init_layers is not None:
        merge = Merge(1.0, "no dev file to choose it on, and before is an untrained cut", (), [])
    elif alpha == "auto":
        merge = Merge(DEFAULT_ALPHA, "no dev file to choose it on", (), [])
    else:
        merge = Merge(float(alpha), "as asked", (), [])
    interpolate(model, before, after, merge.alpha)
    logger.info("merge: alpha %g of the way from before to after (%s)", merge.alpha, merge.reason)
    if merge.alpha == 0:
        logger.warning("WARNING: alpha 0 is the student before training: on the dev files nothing was gained.")
    return merge


class _Trainer(PipelineTrainer, SentenceTransformerTrainer):  # type: ignore[misc]  # untyped base
    """SentenceTransformerTrainer as the pipeline needs it."""

    def count_terms(self, batch: dict[str, Any]) -> int:
        """Return the number of queries."""
        return len(batch["mask"])

    def collect_features(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], None]:
        """Pass the collator's batch on as it is."""
        return inputs, None
