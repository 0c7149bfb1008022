"""Who scores: one module an engine, chosen by name or by what the model is and what is installed."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rag_core.engines.canary import CANARY_PAIRS, check, compare_ranking, score_once
from rag_core.engines.identity import is_export, llm_embedder, model_kind, quantization
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder
from rag_core.engines.query_prompt import QueryWriter
from rag_core.errors import EngineError

__all__ = [
    "EngineChoice",
    "EngineName",
    "EngineOptions",
    "PairScorer",
    "TextEncoder",
    "choose_engine",
    "installed_engines",
    "load_model",
    "load_query_writer",
    "scores_of",
]

logger = logging.getLogger(__name__)

# What can run a kind of model here, in the order of preference. A server may run any.
_ENGINES: dict[str, tuple[EngineName, ...]] = {
    "an LLM reranker": ("vllm", "transformers"),
    "an LLM embedder": ("vllm", "sentence-transformers", "transformers"),
    "a cross-encoder": ("sentence-transformers",),
    "a bi-encoder": ("sentence-transformers",),
    "an exported student": ("exported",),
}


def choose_engine(model: str, asked: EngineChoice) -> tuple[EngineName, str]:
    """Return the engine for a model, and the reason in words.

    Raises:
        EngineError: the engine asked for cannot run the model.
    """
    kind, evidence = _kind(model)
    possible = _ENGINES[kind]
    if asked == "server":
        return asked, "as asked"
    if asked != "auto":
        if asked not in possible:
            raise EngineError(
                f"the engine {asked} cannot run {model} ({evidence}: it is {kind})",
                f"Pass --engine {' or '.join(possible)}, or auto",
            )
        return asked, "as asked"
    if possible[0] != "vllm":
        return possible[0], f"{evidence}: {kind}"
    if importlib.util.find_spec("vllm") is None:
        return possible[1], f"{evidence}: {kind}; vLLM is not installed"
    import torch

    if not torch.cuda.is_available():
        return possible[1], f"{evidence}: {kind}; no CUDA GPU for vLLM"
    return "vllm", f"{evidence}: {kind}; vLLM and a CUDA GPU are there"


def installed_engines(model: str) -> list[EngineName]:
    """Return the engines that can run a model here."""
    installed = {"vllm": importlib.util.find_spec("vllm") is not None}
    return [name for name in _ENGINES[_kind(model)[0]] if installed.get(name, True)]


def load_model(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    """Load a model into an engine; see that it tells the canary pairs apart, and, quantised, as the unquantised one.

    Raises:
        EngineError: the model or the engine cannot be loaded, or its scores cannot be trusted.
    """
    if options.ray:  # each worker loads it like this, and checks its own
        from rag_core.engines.ray_engine import RayEncoder, RayScorer

        embeds = model_kind(options.model)[0] == "bi-encoder"
        return (RayEncoder if embeds else RayScorer)(engine, options, options.ray, canary_pairs)
    reference = _unquantised_scores(engine, options, canary_pairs)
    model = _load(engine, options, canary_pairs)
    scores = check(model, canary_pairs)
    if reference is not None:
        correlation = compare_ranking(reference, scores)
        logger.info("quantised and unquantised scores of %d pairs: rank correlation %.4f", len(scores), correlation)
    return model


def load_query_writer(engine: Literal["auto", "vllm", "transformers"], options: EngineOptions) -> QueryWriter:
    """Load an LLM that writes queries.

    Raises:
        EngineError: the model or the engine cannot be loaded.
    """
    name, reason = choose_engine(options.model, engine)
    logger.info("engine: %s (%s)", name, reason)
    if name == "vllm":
        from rag_core.engines.vllm_engine import VllmQueryWriter

        return VllmQueryWriter(options)
    from rag_core.engines.transformers_engine import TransformersQueryWriter

    return TransformersQueryWriter(options)


def scores_of(engine: EngineName, options: EngineOptions, pairs: Sequence[Pair]) -> Floats:
    """Load a model, score a few pairs, and give its memory back: a GPU may have no room for two."""
    model = load_model(engine, options, pairs)
    scores = score_once(model, pairs)
    close = getattr(model, "close", None)
    if close:
        close()
    del model
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return scores


def _unquantised_scores(engine: EngineName, options: EngineOptions, pairs: Sequence[Pair]) -> Floats | None:
    """Return the canary's scores by the model that a quantised one was made from; `None` where it is none."""
    if engine in ("server", "exported") or options.reference == "none":
        return None
    saved = quantization(options.model)
    if not (options.quantization or saved):
        return None
    if saved and not options.reference:
        raise EngineError(
            f"{options.model} is quantised ({saved}), and nothing says how the model ranks that it was made from",
            "Pass --reference with that model, to compare 20 pairs first, or --reference none to go without",
        )
    reference = dataclasses.replace(
        options, model=options.reference or options.model, quantization=None, reference="none"
    )
    return scores_of(engine, reference, pairs[:CANARY_PAIRS])


def _kind(model: str) -> tuple[str, str]:
    kind, evidence = model_kind(model)
    if is_export(model):
        return "an exported student", evidence
    if kind == "llm-reranker":
        return "an LLM reranker", evidence
    if kind == "cross-encoder":
        return "a cross-encoder", evidence
    is_llm, evidence = llm_embedder(model)
    return "an LLM embedder" if is_llm else "a bi-encoder", evidence


def _load(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    embeds = model_kind(options.model)[0] == "bi-encoder"
    if engine == "vllm":
        from rag_core.engines.vllm_engine import VllmEncoder, load

        return VllmEncoder(options) if embeds else load(options, canary_pairs)
    if engine == "transformers":
        from rag_core.engines.transformers_engine import LastTokenEncoder, YesNoScorer

        return LastTokenEncoder(options) if embeds else YesNoScorer(options)
    if engine == "exported":
        from rag_core.exported_model import load_exported

        return load_exported(Path(options.model), options.max_length, options.batch_size)
    if engine == "server":
        from rag_core.engines import server_engine

        return server_engine.load(options)
    from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer

    return BiEncoder(options) if embeds else CrossEncoderScorer(options)
