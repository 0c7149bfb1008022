"""A model over files: from samples on disk to `ScoredPair` files with manifests, resumable."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rag_core.base.errors import DataError, StaleError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import TextEncoder
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import (
    Recipe,
    check_input,
    check_inputs,
    is_made,
    unfinished_differences,
    unfinished_folder,
)
from rag_core.files.unfinished import UnfinishedWork, remove_left_behind
from rag_core.scoring.chunks import Work
from rag_core.scoring.prescreen import Prescreen
from rag_core.scoring.prescreen_args import PRESCREEN_FLAGS
from rag_core.scoring.room import settle_run
from rag_core.scoring.samples import JoinedFiles, SampleFile
from rag_core.scoring.scored_output import UnfinishedFile, copy_scores, write_scores
from rag_core.scoring.scores import Scores, compute_scores
from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of, what_scores

# Of several workers none should wait long for the last one; but a chunk has to fill a few batches.
_CHUNKS_A_WORKER = 16
_LEAST_ROWS = 256

# Rows are found by their texts and all that scores them, so these have no say in what a killed run has kept.
_NOT_IN_KEYS = ("inputs", "skip_bad_rows", "left_out", *PRESCREEN_FLAGS)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ScoringRun:
    """Files that are to be scored, checked and settled, with no model loaded yet.

    Attributes:
        engine: that was chosen.
        options: with precision and instruction.
        scope: hash of all that determines a score beside the texts.
        store: where computed rows of all models stay for good; `None` for nowhere.
        todo: the files that are not finished.
        finished: the others.
        overwrite: whether unfinished work of other settings gives way.
        afresh: whether what is finished is scored again.
        prescreen: what chooses the candidates that are scored; `None` where all are.
    """

    engine: EngineName
    options: EngineOptions
    scope: str
    store: Path | None
    todo: list[UnfinishedFile]
    finished: list[UnfinishedFile]
    overwrite: bool
    afresh: bool
    prescreen: Prescreen | None = None

    @property
    def sources(self) -> list[SampleFile]:
        """Return the inputs that are not finished."""
        return [file.source for file in self.todo]

    @property
    def folders(self) -> list[Path]:
        """Return where computed rows are found, also those of finished files; new ones go to the first."""
        mine = [self.store / self.scope] if self.store else []
        return [*mine, *(unfinished_folder(file.output) for file in [*self.todo, *self.finished])]

    @property
    def pairs(self) -> int:
        """Return how many candidates these have."""
        return sum(source.pairs for source in self.sources)

    def score(self) -> None:
        """Load the model, and make the files that are not finished.

        Raises:
            PipelineError: as engine and canary raise, or a file changes meanwhile.
        """
        with ExitStack() as stack:
            # A run that was killed leaves the rows of a file that it had finished, too.
            kept = [file for file in self.finished if unfinished_differences(file.output, file.recipe) == []]
            works = [stack.enter_context(self._unfinished(file)) for file in [*self.todo, *kept]]
            # Another run may have finished a file before this one took its lock.
            left = [file for file in self.todo if self.afresh or not _is_made(file, replace_stale=self.overwrite)]
            if left:
                dataclasses.replace(self, todo=left)._score()
            for work in works:
                work.remove()
            for file in self.finished:
                remove_left_behind(file.output, file.recipe)

    def _score(self) -> None:
        if self.prescreen:
            self.prescreen.narrow(self.sources, self.store, [file.output for file in [*self.todo, *self.finished]])
        model = load(self.engine, self.options, self.sources[0].canary_pairs)
        if self.store:
            describe_store(self.store / self.scope, self.engine, self.options)
        for file, scores in self._compute(Work(model, self.scope, self.folders, self._chunk_rows())):
            write_scores(file, scores, model.score_unit, self.options.batch_size, self.prescreen)
        if model.truncated:
            logger.info("%d texts were cut to fit --max_length %d", model.truncated, self.options.max_length)

    def _compute(self, work: Work) -> Iterator[tuple[UnfinishedFile, Scores]]:
        """Yield each file when its scores are there: a reranker's file by file, an embedder's all together."""
        if isinstance(work.model, TextEncoder):
            scores = compute_scores(JoinedFiles(self.sources), work, pairs=self.pairs)
            yield from ((file, scores) for file in self.todo)
        else:
            yield from ((file, compute_scores(file.source, work, pairs=file.source.pairs)) for file in self.todo)

    def copy_finished(self, made: Mapping[Path, Path]) -> ScoringRun:
        """Take scores from files that have them; return the run over the rest, which may be none.

        Args:
            made: input path -> finished output of a run with this scope.
        """
        copied = [file for file in self.todo if file.source.path in made]
        for file in copied:
            with self._unfinished(file):
                copy_scores(made[file.source.path], file)
            logger.info("%s: the same scores as %s", file.output, made[file.source.path])
        left = [file for file in self.todo if file not in copied]
        return dataclasses.replace(self, todo=left, finished=[*self.finished, *copied])

    def _unfinished(self, file: UnfinishedFile) -> UnfinishedWork:
        return UnfinishedWork(file.output, file.recipe, overwrite=self.overwrite, ignoring=_NOT_IN_KEYS)

    def _chunk_rows(self) -> int:
        rows, ray = CHUNK_ROWS[self.engine], self.options.ray
        return min(rows, max(_LEAST_ROWS, self.pairs // (ray.num_workers * _CHUNKS_A_WORKER))) if ray else rows


def read_sources(outputs: Mapping[Path, Path], *, skip_bad_rows: bool) -> list[SampleFile]:
    """Go through all inputs once, and check that each has an output of its own.

    Args:
        outputs: input path -> output path.

    Raises:
        UsageError: two inputs have one output.
        DataError: as `read_samples`.
        StaleError: as `check_inputs`.
    """
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two input files have the same name and would have the same output", "Score them one by one")
    try:
        sources = [SampleFile(Path(path), BadRows(skip=skip_bad_rows)) for path in outputs]
    except DataError:
        check_inputs(list(outputs))  # a file that changed after its manifest was written says more than a bad row
        raise
    for source in sources:
        check_input(source.path, source.sha256)
    for error in (error for source in sources for error in source.bad_rows.errors):
        logger.warning("left out: %s", error)
    return sources


def prepare_run(
    sources: Sequence[SampleFile],
    outputs: Mapping[Path, Path],
    *,
    stage: str,
    settled: tuple[EngineName, EngineOptions],
    overwrite: bool = False,
    replace_stale: bool = False,
    score_store: Path | None = None,
    prescreen: Prescreen | None = None,
) -> ScoringRun:
    """Check all outputs.

    Args:
        sources: of `read_sources`.
        outputs: input path -> output path.
        settled: engine and options, of `settle_run`.
        overwrite: score again even what is finished.
        replace_stale: an output of another recipe is replaced, where without it stands in the way.
        score_store: folder where scores (or vectors) are kept for good, for other runs with the same model.
        prescreen: settled; it chooses which candidates are scored, when the run begins.

    Raises:
        PipelineError: as `manifest.is_made`.
    """
    name, options = settled
    todo, finished = [], []
    for source in sources:
        file = UnfinishedFile(source, outputs[source.path], _recipe(source, stage, settled, prescreen))
        if not overwrite and _is_made(file, replace_stale=replace_stale):
            logger.info("%s is finished already", file.output)
            finished.append(file)
        else:
            todo.append(file)
    scope = scope_of(name, options)
    afresh = overwrite or replace_stale
    return ScoringRun(name, options, scope, score_store, todo, finished, afresh, overwrite, prescreen)


def score_files(outputs: Mapping[Path, Path], *, engine: EngineChoice, options: EngineOptions, **settings: Any) -> None:
    """Score each input file into its output; what is finished stays, what was begun goes on. See `prepare_run`."""
    sources = read_sources(outputs, skip_bad_rows=False)
    prepare_run(sources, outputs, settled=settle_run(sources, engine, options), **settings).score()


def _is_made(file: UnfinishedFile, *, replace_stale: bool) -> bool:
    try:
        return is_made(file.output, file.recipe)
    except StaleError:
        if not replace_stale:
            raise
        return False


def _recipe(
    source: SampleFile, stage: str, settled: tuple[EngineName, EngineOptions], prescreen: Prescreen | None
) -> Recipe:
    flags, model = what_scores(*settled)
    # For another model of a report: nothing else tells that they are left out for this one, too.
    left_out = {"left_out": sorted(source.left_out)} if source.left_out else {}
    return Recipe(
        stage=stage,
        flags={**flags, "skip_bad_rows": source.bad_rows.skip} | left_out | (prescreen.recipe if prescreen else {}),
        inputs={str(source.path): source.sha256},
        model=model,
    )


def scores_by_sample(path: Path, samples: list[RankingSample]) -> list[list[float]]:
    """Read a ScoredPair file as the scores of each sample's `passages()`, in their order.

    Raises:
        DataError: the file lacks a pair of the samples.
    """
    score_of = {(pair.query_id, pair.passage): pair.score for pair in read_records(path, ScoredPair)}
    try:
        return [[score_of[sample.query_id or "", passage] for passage, _ in sample.passages()] for sample in samples]
    except KeyError as error:
        query_id, passage = map(repr, error.args[0])
        raise DataError(
            f"has no score for query_id {quoted(query_id)} and passage {quoted(passage, 60)}",
            "Score the evaluated file itself (generate_logits) without --prescreen, with the same query_id values",
            path=path,
        ) from error
