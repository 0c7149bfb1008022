"""How a run scores: engine, precision and instruction settled, and what of that decides the scores."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_core.base.errors import EngineError, StaleError
from rag_core.base.flags import decisive
from rag_core.engines import embedding_prompt
from rag_core.engines.loading import choose_engine, load_model
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Pair, PairScorer, TextEncoder
from rag_core.engines.reranker_prompt import prompt_version
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from rag_core.files.atomic import atomic_write
from rag_core.files.chunk_store import row_key
from rag_core.files.manifest import task_instruction

logger = logging.getLogger(__name__)

# Rows that are computed and kept together. vLLM wants many at once; elsewhere small chunks lose less to a kill.
CHUNK_ROWS: dict[EngineName, int] = {
    "vllm": 8192,
    "transformers": 512,
    "sentence-transformers": 1024,
    "server": 1024,
    "exported": 1024,
}

_OWN_PRECISION = ("server", "exported")
# transformers computes some of these in float32, whatever the rest is, and stops where the two meet.
_FLOAT32_ONLY = ("xlnet",)


def settle(engine: EngineChoice, options: EngineOptions, paths: list[Path]) -> tuple[EngineName, EngineOptions]:
    """Choose engine, precision and instruction where they were left open."""
    if options.ray:
        from rag_core.scoring import ray_workers

        name, reason, options = ray_workers.settle(options, options.ray)
    else:
        name, reason = choose_engine(options.model, engine)
        if name not in _OWN_PRECISION:
            dtype = (
                "float32" if options.dtype == "auto" and options.model.model_type in _FLOAT32_ONLY else options.dtype
            )
            options = dataclasses.replace(options, dtype=resolve_dtype(dtype))
    if options.vllm.quantization and name != "vllm":
        raise EngineError(
            f"--quantization is vLLM's, and the engine is {name} ({reason})",
            "Pass --engine vllm, or leave out --quantization; a model that was saved quantised needs no such flag",
        )
    logger.info("engine: %s, %s (%s)", name, "its own precision" if name in _OWN_PRECISION else options.dtype, reason)
    if options.model.note:
        logger.warning("WARNING: %s", options.model.note)
    return name, dataclasses.replace(options, instruction=_instruction(options, paths))


def load(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    """Load a model into this process, or with `options.ray` into the workers of a Ray cluster.

    Raises:
        EngineError: as `load_model`, here or in a worker.
    """
    if options.ray is None:
        return load_model(engine, options, canary_pairs)
    from rag_core.scoring.ray_workers import RayEncoder, RayScorer

    return (RayEncoder if options.model.kind == "bi-encoder" else RayScorer)(engine, options, options.ray, canary_pairs)


def _instruction(options: EngineOptions, paths: list[Path]) -> str | None:
    if not options.model.takes_instruction:
        if options.instruction:
            raise EngineError(f"{options.model.name} takes no instruction", "Leave out --instruction")
        return None
    choices = {
        "as asked": options.instruction,
        "from the data's manifest": None if options.instruction else task_instruction(paths),
        "the model's own": options.model.instruction,
        "the default": DEFAULT_INSTRUCTION,
    }
    origin, instruction = next((origin, text) for origin, text in choices.items() if text)
    logger.info("instruction: %s (%s)", instruction, origin)
    return instruction


def what_scores(engine: EngineName, options: EngineOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the flags and the identity of the model that determine the score of a pair."""
    flags = decisive(options)
    if engine == "server":
        flags["dtype"] = "the server's"
    is_reranker = options.model.kind == "llm-reranker"
    version = prompt_version(options.model.question) if is_reranker else embedding_prompt.VERSION
    prompt = {"prompt": version} if options.instruction or options.model.question.template else {}
    return {**flags, "engine": engine}, {**options.model.identity, **prompt}


def scope_of(engine: EngineName, options: EngineOptions) -> str:
    """Return the hash of all that determines a score beside the texts."""
    flags, model = what_scores(engine, options)
    if "sha256" in model:
        del model["name"]  # the same weights in another folder give the same scores
    return row_key(json.dumps([flags, model], sort_keys=True)).hex()


def describe_store(folder: Path, engine: EngineName, options: EngineOptions) -> None:
    """Say in a file whose rows a folder of a score store holds, unless another run has said it."""
    path = folder / "model.json"
    if path.exists():
        return
    flags, model = what_scores(engine, options)
    with contextlib.suppress(StaleError), atomic_write(path) as file:  # another run says it right now
        file.write(json.dumps({"model": model, "flags": flags}, indent=2).encode() + b"\n")
