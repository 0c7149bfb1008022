"""A model over files: from samples on disk to `ScoredPair` files with manifests, resumable."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.chunk_store import row_key
from rag_core.engines import (
    EngineChoice,
    EngineName,
    EngineOptions,
    choose_engine,
    embedding_prompt,
    load_model,
    yes_no_prompt,
)
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.identity import declared_instruction, model_identity, model_kind, takes_instruction
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Role, TextEncoder
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from rag_core.errors import DataError, EngineError, StaleError, UsageError
from rag_core.jsonl import atomic_write, read_records, write_records
from rag_core.manifest import Recipe, check_inputs, is_made, task_instruction, unfinished_folder, write_manifest
from rag_core.metrics import METRICS, PerQuery, means, measure, measured
from rag_core.records import RankingSample, ScoredPair
from rag_core.sample_file import SampleFile
from rag_core.scoring import TextVectors, Work, embed_samples, embed_texts, score_samples, spread_pairs
from rag_core.unfinished import UnfinishedWork

# Rows that are computed and kept together. vLLM wants many at once; elsewhere small chunks lose less to a kill.
_CHUNK_ROWS: dict[EngineName, int] = {
    "vllm": 8192,
    "transformers": 512,
    "sentence-transformers": 1024,
    "server": 1024,
    "exported": 1024,
}

_OWN_PRECISION = ("server", "exported")

# Of several workers none should wait long for the last one; but a chunk has to fill a few batches.
_CHUNKS_A_WORKER = 16
_LEAST_ROWS = 256

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Item:
    source: SampleFile
    output: Path
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class ScoringRun:
    """Files that are to be scored, checked and settled, with no model loaded yet.

    Attributes:
        engine: that was chosen.
        options: with precision and instruction.
        scope: hash of all that determines a score beside the texts.
        folders: where computed rows are found; new ones go to the first.
        todo: the files that are not finished.
    """

    engine: EngineName
    options: EngineOptions
    scope: str
    folders: list[Path]
    todo: list[_Item]
    _partial: list[Path]
    _take_over: bool  # of unfinished work of other settings

    @property
    def sources(self) -> list[SampleFile]:
        """Return the inputs that are not finished."""
        return [item.source for item in self.todo]

    def score(self) -> None:
        """Load the model, and make the files that are not finished.

        Raises:
            PipelineError: as engine and canary raise, or a file changes meanwhile.
        """
        if not self.todo:
            self._clean_up()  # a kill may have come right before it
            return
        model = load_model(self.engine, self.options, spread_pairs(self.sources[0], CANARY_PAIRS))
        with ExitStack() as stack:
            for item in self.todo:
                stack.enter_context(UnfinishedWork(item.output, item.recipe, overwrite=self._take_over))
            if self.folders[0] not in self._partial:
                _describe_store(self.folders[0], self.engine, self.options)
            work = Work(model, self.scope, self.folders, self._chunk_rows())
            if isinstance(model, TextEncoder):
                embed_samples(_Joined(self.sources), work, pairs=sum(source.pairs for source in self.sources))
            for item in self.todo:
                _score_file(item, work, self.options)
            if model.truncated:
                logger.info("%d texts were cut to fit --max_length %d", model.truncated, self.options.max_length)
            self._clean_up()

    def _clean_up(self) -> None:
        for folder in filter(Path.exists, self._partial):
            shutil.rmtree(folder)

    def _chunk_rows(self) -> int:
        rows = _CHUNK_ROWS[self.engine]
        if self.options.ray is None:
            return rows
        pairs = sum(source.pairs for source in self.sources)
        return min(rows, max(_LEAST_ROWS, pairs // (self.options.ray.num_workers * _CHUNKS_A_WORKER)))


def prepare_run(
    outputs: Mapping[Path, Path],
    *,
    stage: str,
    engine: EngineChoice,
    options: EngineOptions,
    overwrite: bool = False,
    skip_bad_rows: bool = False,
    replace_stale: bool = False,
    score_store: Path | None = None,
) -> ScoringRun:
    """Read all inputs, check all outputs, and settle what was left open.

    Args:
        outputs: input path -> output path.
        overwrite: score again even what is finished.
        replace_stale: an output of another recipe is replaced, where without it stands in the way.
        score_store: folder where scores (or vectors) are kept for good, for other runs with the same model.

    Raises:
        PipelineError: as `read_samples`, `manifest.is_made` and the choice of an engine raise.
    """
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two input files have the same name and would have the same output", "Score them one by one")
    sources = [_read(Path(path), found, skip_bad_rows) for path, found in check_inputs(list(outputs)).items()]
    name, options = _settle(engine, options, list(outputs))
    todo = []
    for source in sources:
        item = _Item(source, outputs[source.path], _recipe(source, stage, name, options, skip_bad_rows))
        if not overwrite and _is_made(item.output, item.recipe, replace_stale):
            logger.info("%s is finished already", item.output)
        else:
            todo.append(item)
    # Rows of a file that is finished already may be needed by one that is not: what was found stays till the end.
    partial = [*(unfinished_folder(item.output) for item in todo), *map(unfinished_folder, outputs.values())]
    scope = _scope(name, options)
    stores = [score_store / scope] if score_store else []
    folders = list(dict.fromkeys([*stores, *partial]))
    return ScoringRun(name, options, scope, folders, todo, partial, overwrite or replace_stale)


def score_files(outputs: Mapping[Path, Path], **settings: Any) -> None:
    """Score each input file into its output; what is finished stays, what was begun goes on. See `prepare_run`."""
    prepare_run(outputs, **settings).score()


def _score_file(item: _Item, work: Work, options: EngineOptions) -> None:
    values: list[PerQuery] = []
    scored = score_samples(item.source, work, pairs=item.source.pairs)
    rows = write_records(item.output, _measuring(scored, values), check=item.source.check_unchanged)
    write_manifest(
        item.output,
        item.recipe,
        rows=rows,
        score_unit=work.model.score_unit,
        skipped={"bad_rows": len(item.source.bad_rows)},
        batch_size=options.batch_size,
    )
    logger.info("%s: %d queries, %d pairs", item.output, item.source.queries, rows)
    ranking = {metric: np.concatenate([block[metric] for block in values]) for metric in METRICS}
    if measured(ranking):
        figures = ", ".join(f"{name} {value:.4f}" for name, value in means(ranking).items())
        logger.info("its ranking of the %d labelled queries: %s", measured(ranking), figures)


def _measuring(
    scored: Iterator[tuple[RankingSample, list[ScoredPair]]], values: list[PerQuery]
) -> Iterator[ScoredPair]:
    """Yield the pairs as they come, and measure their ranking on the way."""
    while block := list(islice(scored, _MEASURED_AT_ONCE)):
        for _, pairs in block:
            yield from pairs
        values.append(measure([sample for sample, _ in block], [[pair.score for pair in pairs] for _, pairs in block]))


class _Joined:
    """Samples of several files, one file after another, as often as they are asked for."""

    def __init__(self, sources: Sequence[SampleFile]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[RankingSample]:
        return chain.from_iterable(self._sources)


def _is_made(output: Path, recipe: Recipe, replace_stale: bool) -> bool:
    try:
        return is_made(output, recipe)
    except StaleError:
        if not replace_stale:
            raise
        return False


def _read(path: Path, found: str, skip_bad_rows: bool) -> SampleFile:
    source = SampleFile(path, found, skip_bad_rows=skip_bad_rows)
    for error in source.bad_rows:
        logger.warning("left out: %s", error)
    return source


def _settle(engine: EngineChoice, options: EngineOptions, paths: list[Path]) -> tuple[EngineName, EngineOptions]:
    """Choose engine, precision and instruction where they were left open."""
    if options.ray:
        from rag_core.engines.ray_engine import settle

        name, reason, options = settle(options, options.ray)
    else:
        name, reason = choose_engine(options.model, engine)
        if name not in _OWN_PRECISION:
            options = dataclasses.replace(options, dtype=resolve_dtype(options.dtype))
    if options.quantization and name != "vllm":
        raise EngineError(
            f"--quantization is vLLM's, and the engine is {name} ({reason})",
            "Pass --engine vllm, or leave it out; a model that was saved quantised needs no such flag",
        )
    logger.info("engine: %s, %s (%s)", name, "its own precision" if name in _OWN_PRECISION else options.dtype, reason)
    return name, dataclasses.replace(options, instruction=_instruction(options, paths))


def _instruction(options: EngineOptions, paths: list[Path]) -> str | None:
    if not takes_instruction(options.model):
        if options.instruction:
            raise EngineError(f"{options.model} takes no instruction", "Leave out --instruction")
        return None
    choices = {
        "as asked": options.instruction,
        "from the data's manifest": None if options.instruction else task_instruction(paths),
        "the model's own": declared_instruction(options.model),
        "the default": DEFAULT_INSTRUCTION,
    }
    origin, instruction = next((origin, text) for origin, text in choices.items() if text)
    logger.info("instruction: %s (%s)", instruction, origin)
    return instruction


def _recipe(source: SampleFile, stage: str, engine: EngineName, options: EngineOptions, skip_bad_rows: bool) -> Recipe:
    flags, model = _what_scores(engine, options)
    return Recipe(
        stage=stage,
        flags={**flags, "skip_bad_rows": skip_bad_rows},
        inputs={str(source.path): source.sha256},
        model=model,
    )


def _what_scores(engine: EngineName, options: EngineOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the flags and the identity of the model that determine the score of a pair."""
    flags = {key: value for key, value in dataclasses.asdict(options).items() if key not in _WITHOUT_SAY}
    if engine == "server":
        flags["dtype"] = "the server's"
    versions = {"llm-reranker": yes_no_prompt.VERSION, "bi-encoder": embedding_prompt.VERSION}
    prompt = {"prompt": versions[model_kind(options.model)[0]]} if options.instruction else {}
    return {**flags, "engine": engine}, model_identity(options.model) | prompt


def _scope(engine: EngineName, options: EngineOptions) -> str:
    """Return the hash of all that determines a score beside the texts."""
    flags, model = _what_scores(engine, options)
    if "sha256" in model:
        del model["name"]  # where a folder stands has no say
    return row_key(json.dumps([flags, model], sort_keys=True)).hex()


def _describe_store(folder: Path, engine: EngineName, options: EngineOptions) -> None:
    """Say in a file whose rows a folder of a score store holds."""
    flags, model = _what_scores(engine, options)
    with atomic_write(folder / "model.json") as file:
        file.write(json.dumps({"model": model, "flags": flags}, indent=2).encode() + b"\n")


# Options that change how fast scores come, not what they are (beyond the last bits of a batched sum).
_WITHOUT_SAY = {
    "model",
    "reference",
    "batch_size",
    "batch_tokens",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "ray",
    "server_url",
    "concurrency",
    "server_timeout",
}

_MEASURED_AT_ONCE = 1000  # queries


def embed_for_training(options: EngineOptions, texts: Mapping[Role, set[str]], folder: Path) -> TextVectors:
    """Embed texts by role with an embedder; what is in `folder` from an earlier run is taken from there.

    Raises:
        EngineError: the model is no embedder, or as the engine raises.
    """
    name, options = _settle("sentence-transformers", options, [])  # vLLM would keep the GPU memory
    query, passages = min(texts["query"] or texts["passage"]), sorted(texts["passage"])
    tried = [RankingSample(query, candidates=[text]) for text in passages[:: max(1, len(passages) // CANARY_PAIRS)]]
    model = load_model(name, options, spread_pairs(tried, CANARY_PAIRS))
    if not isinstance(model, TextEncoder):
        raise EngineError(f"{options.model} gives no vectors", "Pass an embedder")
    folder.mkdir(exist_ok=True)
    work = Work(model, _scope(name, options), [folder], _CHUNK_ROWS[name])
    return TextVectors({role: embed_texts(texts[role], role, work) for role in texts}, work.scope, model.dimensions)


def scores_by_sample(path: Path, samples: list[RankingSample]) -> list[list[float]]:
    """Read a ScoredPair file as the scores of each sample's `passages()`, in their order.

    Raises:
        DataError: the file lacks a pair of the samples.
    """
    score_of = {(pair.query_id, pair.passage): pair.score for pair in read_records(path, ScoredPair)}
    try:
        return [[score_of[sample.query_id or "", passage] for passage, _ in sample.passages()] for sample in samples]
    except KeyError as error:
        raise DataError(
            f"has no score for query_id {error.args[0][0]!r} and passage {error.args[0][1][:60]!r}",
            "Score the evaluated file itself (generate_logits), with the same query_id values",
            path=path,
        ) from error
