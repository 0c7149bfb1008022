"""The training itself: sentence-transformers' trainer with the grouped collator, a distillation loss, and the merge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import set_seed

from embedding_distillation.collator import GroupedCollator, TextKey, make_dataset, role_prompts, texts_by_role
from embedding_distillation.losses import DistillationLoss, LossSettings
from rag_core.base.errors import EngineError, UsageError
from rag_core.base.records import SoftLabels
from rag_core.distillation.checkpoints import NO_SELECTION, Selection
from rag_core.distillation.dev_set import DevSet
from rag_core.distillation.student import Adapters, LoraSettings, keep_layers
from rag_core.distillation.trainer import PipelineTrainer, attention_settings, run_trainer, write_training_log
from rag_core.distillation.weight_merging import DEFAULT_ALPHA, Domain, Merge, choose_alpha, interpolate, write_merge
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Role
from rag_core.files.unfinished import save_whole
from rag_core.release.saving import save_model
from rag_core.scoring.vectors import TextVectors, embed_for_training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentSettings:
    """How the student starts, and reads while it is trained.

    Attributes:
        max_length: in tokens.
        dropout: `None` is its own.
        init_layers: how many layers are kept, `None` for all.
        lora: of adapters that are trained instead of the weights.
    """

    name: str
    max_length: int
    dropout: float | None
    mini_batch_size: int
    init_layers: int | None = None
    lora: LoraSettings | None = None


@dataclass(frozen=True)
class Anchors:
    """Texts whose embeddings are held where they are."""

    texts: list[TextKey]
    per_query: int


@dataclass(frozen=True)
class MergeSettings:
    """Where between before and after to stop: "auto" chooses on the dev sets, "off" is after."""

    alpha: float | Literal["auto", "off"]
    dev_sets: list[tuple[Domain, DevSet]]


def train(
    student: StudentSettings,
    train_groups: Sequence[SoftLabels],
    eval_groups: Sequence[SoftLabels] | None,
    *,
    loss: LossSettings,
    teacher: str | None,
    anchors: Anchors,
    merge: MergeSettings,
    selection: Selection = NO_SELECTION,
    training_arguments: SentenceTransformerTrainingArguments,
    checkpoints: Path,
    output_dir: Path,
) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `checkpoints`; merge, save, and return facts for the manifest.

    Args:
        teacher: embedder whose vectors the loss needs, or can use.

    Raises:
        EngineError: the student cannot be loaded, or its loss is not finite.
    """
    groups = [*train_groups, *(eval_groups or ())]
    teacher_vectors = (
        _teacher_vectors(teacher, groups, student.max_length, checkpoints / "teacher") if teacher else None
    )
    anchor_vectors = _anchor_vectors(student, anchors.texts, checkpoints / "anchors") if anchors.texts else None
    set_seed(training_arguments.seed)  # before a projection is drawn
    model = load_student(student)
    _check_sizes(model, loss.matryoshka_dims)
    own_length, model.max_seq_length = model.max_seq_length, min(student.max_length, model.max_seq_length)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    adapters = student.lora and Adapters(model[0].auto_model, student.lora)
    training_arguments.output_dir = str(checkpoints)

    def dataset(groups: Sequence[SoftLabels]) -> Any:
        return make_dataset(groups, anchors.texts, anchors.per_query, training_arguments.seed)

    trainer = _Trainer(
        model=model,
        args=training_arguments,
        train_dataset=dataset(train_groups),
        eval_dataset=dataset(eval_groups) if eval_groups else None,
        data_collator=GroupedCollator(
            preprocess_fn=model.preprocess,
            mini_batch_size=student.mini_batch_size,
            role_prompts=role_prompts(model),
            teacher_vectors=teacher_vectors,
            anchor_vectors=anchor_vectors,
        ),
        loss=DistillationLoss(model, loss, teacher_vectors.dimensions if teacher_vectors else None),
        evaluator=selection.evaluator(student.mini_batch_size),
    )
    facts = run_trainer(trainer, checkpoints, selection)
    if adapters:
        adapters.merge()
    model.max_seq_length = own_length  # short training texts are no reason to cut the user's
    if trainer.is_world_process_zero():
        merged = _merge(model, before, merge, student)
        facts["alpha"] = merged.alpha

        def write(folder: Path) -> None:
            save_model(model, folder)
            write_training_log(folder, trainer.state)
            write_merge(folder, merged)

        if loss.matryoshka_dims:
            facts["matryoshka"] = _by_size(model, loss.matryoshka_dims, merge.dev_sets, student.mini_batch_size)
        save_whole(output_dir, checkpoints / "model", write)
    pairs = sum(len(group.passages) for group in train_groups)
    return {"queries": len(train_groups), "pairs": pairs, **facts}


def load_student(settings: StudentSettings) -> SentenceTransformer:
    """Load a bi-encoder to be trained.

    Raises:
        EngineError: it cannot be loaded, or is none.
        UsageError: it has fewer than `init_layers` layers.
    """
    described = describe_model(settings.name)
    if described.kind != "bi-encoder":
        raise EngineError(f"{settings.name} is a {described.kind} ({described.why})", "Choose a bi-encoder as student")
    rate = settings.dropout
    config = {} if rate is None else {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
    try:
        model = SentenceTransformer(settings.name, model_kwargs=attention_settings(), config_kwargs=config)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot load the student {settings.name!r} ({str(error).splitlines()[0]})", "Check the name or folder"
        ) from error
    if settings.init_layers is not None:
        keep_layers(model[0].auto_model, settings.init_layers)
    model.max_seq_length = model.max_seq_length or settings.max_length
    return model


def _check_sizes(model: SentenceTransformer, sizes: Sequence[int]) -> None:
    whole = model.get_embedding_dimension()
    wrong = [size for size in sizes if not 1 <= size <= whole]
    if wrong:
        raise UsageError(f"--matryoshka_dims has {wrong[0]}", f"The student's embeddings have 1 to {whole} dimensions")
    if sizes and whole not in sizes:
        logger.warning("WARNING: --matryoshka_dims lacks %d, all dimensions: whole vectors are not trained.", whole)


def _by_size(
    model: SentenceTransformer, sizes: Sequence[int], dev_sets: Sequence[tuple[Domain, DevSet]], batch_size: int
) -> dict[str, dict[str, float]]:
    """Return the mean of each dev file with the embeddings cut to each size: file -> size -> value."""
    found: dict[str, dict[str, float]] = {dev_set.path.name: {} for _, dev_set in dev_sets}
    for size in sizes:
        model.truncate_dim = size
        for _, dev_set in dev_sets:
            found[dev_set.path.name][str(size)] = float(dev_set.values(model, batch_size).mean())
    model.truncate_dim = None
    return found


def _teacher_vectors(teacher: str, groups: Sequence[SoftLabels], max_length: int, folder: Path) -> TextVectors:
    texts: dict[Role, set[str]] = {
        "query": {group.query for group in groups},
        "passage": {passage for group in groups for passage in group.passages},
    }
    return embed_for_training(EngineOptions(describe_model(teacher), max_length=max_length), texts, folder)


def _anchor_vectors(student: StudentSettings, anchors: Sequence[TextKey], folder: Path) -> TextVectors:
    options = EngineOptions(describe_model(student.name), max_length=student.max_length, dtype="float32")
    return embed_for_training(options, texts_by_role(anchors), folder)


def _merge(
    model: SentenceTransformer, before: dict[str, Any], settings: MergeSettings, student: StudentSettings
) -> Merge:
    """Leave the model with the merged weights; return what was chosen.

    Of a student that started with some of its layers, before is that shallow one, which nobody has any use for: the
    guard then holds the trained one against it, and without dev files all of the training is kept.
    """
    after = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if settings.alpha == "off":
        return Merge(1.0, "--merge off", (), [])
    if settings.alpha == "auto" and settings.dev_sets:
        merge = choose_alpha(model, before, after, settings.dev_sets, student.mini_batch_size)
    elif settings.alpha == "auto" and student.init_layers is not None:
        merge = Merge(1.0, "no dev file to choose it on, and before is an untrained cut", (), [])
    elif settings.alpha == "auto":
        merge = Merge(DEFAULT_ALPHA, "no dev file to choose it on", (), [])
    else:
        merge = Merge(settings.alpha, "as asked", (), [])
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
