"""A model over files: from samples on disk to `ScoredPair` files with manifests, resumable."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from rag_core.chunk_store import ChunkStore
from rag_core.engines import EngineChoice, EngineName, EngineOptions, choose_engine, load_model
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.identity import model_identity
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from rag_core.engines.yes_no_prompt import VERSION as PROMPT_VERSION
from rag_core.errors import DataError, StaleError, UsageError
from rag_core.jsonl import read_records, read_samples, write_records
from rag_core.manifest import Recipe, check_inputs, is_made, read_manifest, write_manifest
from rag_core.metrics import means, measure, measured
from rag_core.records import RankingSample, ScoredPair
from rag_core.scoring import score_samples, spread_pairs

# Rows that are computed and kept together. vLLM wants many at once; elsewhere small chunks lose less to a kill.
_CHUNK_ROWS: dict[EngineName, int] = {"vllm": 8192, "transformers": 512, "sentence-transformers": 1024}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Source:
    path: Path
    sha256: str
    samples: list[RankingSample]
    bad_rows: int


def score_files(
    outputs: Mapping[Path, Path],
    *,
    stage: str,
    engine: EngineChoice,
    options: EngineOptions,
    overwrite: bool = False,
    skip_bad_rows: bool = False,
    replace_stale: bool = False,
) -> None:
    """Score each input file into its output; what is finished stays, what was begun goes on.

    All inputs are read and all outputs checked before the model is loaded; it is loaded once, if at all.

    Args:
        outputs: input path -> output path.
        overwrite: score again even what is finished.
        replace_stale: an output of another recipe is replaced, where without it stands in the way.

    Raises:
        PipelineError: as `read_samples`, `manifest.is_made`, the engine and the canary raise.
    """
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two input files have the same name and would have the same output", "Score them one by one")
    sources = [_read(Path(path), sha256, skip_bad_rows) for path, sha256 in check_inputs(list(outputs)).items()]
    name, options = _settle(engine, options, list(outputs))
    todo = []
    for source in sources:
        output = outputs[source.path]
        recipe = _recipe(source, stage, name, options, skip_bad_rows)
        if not overwrite and _is_made(output, recipe, replace_stale):
            logger.info("%s is finished already", output)
        else:
            todo.append((source, output, recipe))
    if not todo:
        return
    model = load_model(name, options, spread_pairs(todo[0][0].samples, CANARY_PAIRS))
    for source, output, recipe in todo:
        truncated = model.truncated or 0
        with ChunkStore(output, recipe, overwrite=overwrite or replace_stale) as store:
            rows = write_records(output, score_samples(source.samples, model, store, chunk_rows=_CHUNK_ROWS[name]))
            write_manifest(
                output,
                recipe,
                rows=rows,
                score_unit=model.score_unit,
                skipped={"bad_rows": source.bad_rows},
                batch_size=options.batch_size,
            )
            store.remove()
        logger.info("%s: %d queries, %d pairs", output, len(source.samples), rows)
        if model.truncated is not None and model.truncated > truncated:
            logger.info("%d passages were cut to fit --max_length %d", model.truncated - truncated, options.max_length)
        _report_ranking(output, source.samples)


def _is_made(output: Path, recipe: Recipe, replace_stale: bool) -> bool:
    try:
        return is_made(output, recipe)
    except StaleError:
        if not replace_stale:
            raise
        return False


def _read(path: Path, sha256: str, skip_bad_rows: bool) -> _Source:
    bad_rows: list[DataError] = []
    samples = read_samples(path, skipped=bad_rows if skip_bad_rows else None)
    for error in bad_rows:
        logger.warning("left out: %s", error)
    return _Source(path, sha256, samples, len(bad_rows))


def _settle(engine: EngineChoice, options: EngineOptions, paths: list[Path]) -> tuple[EngineName, EngineOptions]:
    """Choose engine, precision and instruction where they were left open."""
    name, reason = choose_engine(options.model, engine)
    dtype = resolve_dtype(options.dtype)
    logger.info("engine: %s, %s (%s)", name, dtype, reason)
    instruction = None
    if name != "sentence-transformers":
        instruction = options.instruction or task_instruction(paths)
        origin = "as asked" if options.instruction else "from the data's manifest" if instruction else "the default"
        instruction = instruction or DEFAULT_INSTRUCTION
        logger.info("instruction: %s (%s)", instruction, origin)
    return name, dataclasses.replace(options, dtype=dtype, instruction=instruction)


def _recipe(source: _Source, stage: str, engine: EngineName, options: EngineOptions, skip_bad_rows: bool) -> Recipe:
    decisive = {key: value for key, value in dataclasses.asdict(options).items() if key not in _WITHOUT_SAY}
    prompt = {"prompt": PROMPT_VERSION} if options.instruction else {}
    return Recipe(
        stage=stage,
        flags={**decisive, "engine": engine, "skip_bad_rows": skip_bad_rows},
        inputs={str(source.path): source.sha256},
        model=model_identity(options.model) | prompt,
    )


# Options that change how fast scores come, not what they are (beyond the last bits of a batched sum).
_WITHOUT_SAY = {"model", "batch_size", "gpu_memory_utilization", "tensor_parallel_size"}


def _report_ranking(output: Path, samples: list[RankingSample]) -> None:
    values = measure(samples, scores_by_sample(output, samples))
    if measured(values):
        figures = ", ".join(f"{name} {value:.4f}" for name, value in means(values).items())
        logger.info("its ranking of the %d labelled queries: %s", measured(values), figures)


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


def task_instruction(sources: list[Path]) -> str | None:
    """Return the task instruction that the manifests of the sources carry, `None` where they carry none.

    Raises:
        UsageError: they carry different ones.
    """
    found = {(read_manifest(source) or {}).get("instruction") for source in sources}
    if len(found) > 1:
        raise UsageError(
            f"the input files are of different tasks ({', '.join(sorted(map(repr, found)))})",
            "Run the stage for each by itself, or say --instruction for all",
        )
    return found.pop()
