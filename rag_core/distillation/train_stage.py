"""What a train stage does, whatever it trains: check, read, compare recipes, train, write card and manifest."""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from rag_core.base.flags import decisive
from rag_core.base.processes import is_main_process
from rag_core.distillation.probing import Auto
from rag_core.distillation.train_args import (
    DEFAULTS,
    TrainArgs,
    card_settings,
    decisive_settings,
    parse_training_arguments,
)
from rag_core.engines.role_prompts import AS_DECLARED, PromptNames
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import (
    UNKNOWN,
    Manifest,
    Recipe,
    check_inputs,
    check_output_folder,
    read_manifest,
    unfinished_folder,
    write_manifest,
)
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.release.model_card import StudentKind, shown_command, write_model_card, write_section

if TYPE_CHECKING:
    from sentence_transformers.base.training_args import BaseTrainingArguments

    from rag_core.distillation.measuring import Measured, Student
    from rag_core.distillation.probes import Probing
    from rag_core.distillation.student import StudentSettings
    from rag_core.distillation.trainer import TrainingRun
    from rag_core.distillation.weight_merging import Domain

logger = logging.getLogger(__name__)


class SettledLoss(Protocol):
    """A loss with nothing left open."""

    def own(self) -> dict[str, Any]:
        """Return its name and its settings, for recipe and card."""


class LearnedFrom(Protocol):
    """A dataclass of what a pipeline reads, with one group for each training query."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def train(self) -> Sequence[Any]: ...


A = TypeVar("A", bound=TrainArgs)
D = TypeVar("D", bound=LearnedFrom)
L = TypeVar("L", bound=SettledLoss)


class Pipeline(ABC, Generic[A, D, L]):
    """What a pipeline adds to `train_student`. A are its flags, D is what it reads, L are the settings of its loss.

    Attributes:
        stage: the module of the stage.
        kind: of its students.
    """

    stage: ClassVar[str]
    kind: ClassVar[StudentKind]

    def inputs(self, args: A) -> list[Path]:
        """Return the files that are read."""
        return [args.train_file, *([args.eval_file] if args.eval_file else []), *args.dev_files]

    def dev_files(self, args: A) -> list[tuple[Domain, Path]]:
        """Return the dev files with their domains; in-domain ones are measured while training."""
        return [("in-domain", path) for path in args.dev_files]

    def searched(self, args: A, bad_rows: BadRows) -> Sequence[tuple[Domain, Measured]]:
        """Read the corpora that a student searches before it is merged; they are not measured while training."""
        return ()

    def teacher(self, args: A) -> str | None:
        """Return the embedder whose vectors the loss needs or can use."""
        return None

    def prompt_names(self, args: A) -> PromptNames:
        """Return which of their prompts student and teacher put before queries and passages."""
        return AS_DECLARED

    @abstractmethod
    def arguments_type(self) -> type[BaseTrainingArguments]:
        """Return the type of the trainer's arguments."""

    @abstractmethod
    def read(self, args: A, bad_rows: BadRows) -> D:
        """Read what is learned from."""

    @abstractmethod
    def settle(self, args: A, data: D, source: Manifest) -> L:
        """Choose what the flags of the loss left open.

        Args:
            source: manifest of the training file.
        """

    @abstractmethod
    def load(self, student: StudentSettings) -> Student:
        """Load a student as it is before training."""

    @abstractmethod
    def train(self, args: A, data: D, loss: L, run: TrainingRun) -> dict[str, Any]:
        """Train and save the model, or let a probe measure it; return facts for card and manifest."""


def train_student(args: A, pipeline: Pipeline[A, D, L]) -> Path:
    """Train a student, unless the same one is finished already; return its folder.

    Raises:
        PipelineError: an input, a flag, a model or the output folder cannot be used.
    """
    hashes = check_inputs(pipeline.inputs(args))
    bad_rows = BadRows(skip=args.skip_bad_rows)
    data = pipeline.read(args, bad_rows)

    from rag_core.distillation.checkpoints import Selection, other_processes
    from rag_core.distillation.dev_set import DevSet
    from rag_core.distillation.student import StudentSettings
    from rag_core.distillation.trainer import TrainingRun
    from rag_core.engines.identity import describe_models

    lora = args.lora()
    searched = pipeline.searched(args, bad_rows)
    dev_sets = [(domain, DevSet.read(path, bad_rows=bad_rows)) for domain, path in pipeline.dev_files(args)]
    selection = Selection(
        [dev_set for domain, dev_set in dev_sets if domain == "in-domain"],
        args.early_stopping_patience,
        args.average_checkpoints,
    )
    auto, flags = Auto.take(args.further_flags)
    arguments = parse_training_arguments(
        pipeline.arguments_type(),
        flags,
        DEFAULTS | auto.defaults(selection),
        seed=args.seed,
        evaluates=args.eval_file is not None,
        selection=selection,
    )
    source = read_manifest(args.train_file) or UNKNOWN
    loss = pipeline.settle(args, data, source)
    auto.settle_epochs(arguments, len(data.train))
    names = [args.student, *filter(None, [pipeline.teacher(args)])]
    model, teacher, *_ = [*describe_models(names, pipeline.prompt_names(args)), None]
    recipe = Recipe(
        stage=pipeline.stage,
        flags=decisive(args) | loss.own() | decisive_settings(arguments, selection) | auto.recipe(),
        inputs=hashes,
        model={**model.identity, **({"teacher": teacher.identity} if teacher else {})},
    )
    check_output_folder(args.output_dir, [*hashes, model.name, *([teacher.name] if teacher else [])])
    if not args.overwrite and is_finished(args.output_dir, recipe):
        return args.output_dir
    conflicts = other_processes(unfinished_folder(args.output_dir), arguments)
    with UnfinishedWork(args.output_dir, recipe, overwrite=args.overwrite, conflicts=conflicts) as work:
        if not args.overwrite and is_finished(args.output_dir, recipe):  # by another run, in the meantime
            return args.output_dir
        arguments.output_dir = str(work.directory)
        student = StudentSettings(model, args.max_length, args.dropout, args.mini_batch_size, args.init_layers, lora)
        probing: Probing | None = None

        def write_card(folder: Path, facts: dict[str, Any]) -> None:
            write_model_card(
                folder,
                name=args.output_dir.name,
                command=shown_command(pipeline.stage, args),
                kind=pipeline.kind,
                base_model=args.student,
                teacher=source.teacher,
                settings=loss.own() | card_settings(arguments),
                facts=facts,
            )
            if probing:
                write_section(folder, "probes", probing.section())
                probing.write(folder)

        measured = [*dev_sets, *searched]
        run = TrainingRun(student, arguments, args.output_dir, teacher, selection, measured, write_card)
        if auto.learning_rate:
            probing = _probe(args, pipeline, data, loss, run)
            arguments.learning_rate = probing.rate
        probes = {"learning_rate_probes": probing.facts()} if probing else {}
        run = dataclasses.replace(run, found=auto.settled(arguments) | probes)
        facts = pipeline.train(args, data, loss, run)
        if is_main_process():
            skipped = {"bad_rows": len(bad_rows)}
            write_manifest(args.output_dir, recipe, teacher=source.teacher, skipped=skipped, **facts, **run.found)
            work.remove()
    return args.output_dir


def _probe(args: A, pipeline: Pipeline[A, D, L], data: D, loss: L, run: TrainingRun) -> Probing:
    from rag_core.distillation.probes import find_rate

    def train(queries: Sequence[int], probe: TrainingRun) -> None:
        part: Any = {"train": [data.train[i] for i in queries], "eval": None}
        pipeline.train(args, dataclasses.replace(data, **part), loss, probe)

    return find_rate(run, data.train, args.train_file, lambda: pipeline.load(run.student), train)
