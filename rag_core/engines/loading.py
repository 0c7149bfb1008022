"""Which engine runs a model, by name or by what it is and what is installed; and the model loaded and checked."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from rag_core.base.errors import EngineError
from rag_core.engines.canary import CANARY_PAIRS, check, compare_ranking, score_once
from rag_core.engines.generation import TextGenerator
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder

logger = logging.getLogger(__name__)

# What can run a kind of model here, in the order of preference. A server may run any.
_ENGINES: dict[str, tuple[EngineName, ...]] = {
    "an LLM reranker": ("vllm", "transformers"),
    "an LLM embedder": ("vllm", "sentence-transformers", "transformers"),
    "a cross-encoder": ("sentence-transformers",),
    "a bi-encoder": ("sentence-transformers",),
    "an exported student": ("exported",),
}


def choose_engine(model: ModelInfo, asked: EngineChoice) -> tuple[EngineName, str]:
    """Return the engine for a model, and the reason in words.

    Raises:
        EngineError: the engine asked for cannot run the model.
    """
    kind, possible = _kind(model), _possible(model)
    if asked == "server":
        return asked, "as asked"
    if asked == "vllm" and model.base:
        raise EngineError(
            f"{model.name} is a LoRA adapter, which vLLM does not merge into its base",
            "Pass --engine auto, or merge it first (merge_and_unload of peft)",
        )
    if asked != "auto":
        if asked not in possible:
            raise EngineError(
                f"the engine {asked} cannot run {model.name} ({model.why}: it is {kind})",
                f"Pass --engine {' or '.join(possible)}, or auto",
            )
        return asked, "as asked"
    if possible[0] != "vllm":
        return possible[0], f"{model.why}: {kind}"
    if importlib.util.find_spec("vllm") is None:
        return possible[1], f"{model.why}: {kind}; vLLM is not installed"
    import torch

    if not torch.cuda.is_available():
        return possible[1], f"{model.why}: {kind}; no CUDA GPU for vLLM"
    return "vllm", f"{model.why}: {kind}; vLLM and a CUDA GPU are there"


def installed_engines(model: ModelInfo) -> list[EngineName]:
    """Return the engines that can run a model here."""
    installed = {"vllm": importlib.util.find_spec("vllm") is not None}
    return [name for name in _possible(model) if installed.get(name, True)]


def load_model(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    """Load a model into an engine; check that it tells the canary pairs apart and, quantised, ranks them as before.

    Raises:
        EngineError: the model or the engine cannot be loaded, or its scores cannot be trusted.
    """
    reference = _unquantised_scores(engine, options, canary_pairs)
    model = LOADERS[engine](options, canary_pairs)
    scores = check(model, canary_pairs)
    if reference is not None:
        correlation = compare_ranking(reference, scores)
        logger.info("quantised and unquantised scores of %d pairs: rank correlation %.4f", len(scores), correlation)
    return model


def load_generator(engine: EngineChoice, options: EngineOptions) -> TextGenerator:
    """Load a language model that writes.

    Raises:
        EngineError: the model or the engine cannot be loaded, or the engine does not write.
    """
    name, reason = choose_engine(options.model, engine)
    logger.info("engine: %s (%s)", name, reason)
    if name == "vllm":
        from rag_core.engines.generators import VllmGenerator

        return VllmGenerator(options)
    if name == "transformers":
        from rag_core.engines.generators import TransformersGenerator

        return TransformersGenerator(options)
    if name == "server":
        from rag_core.engines.generators import ServerGenerator

        return ServerGenerator(options)
    raise EngineError(
        f"{options.model.name} writes no text ({options.model.why})",
        "Choose a language model that follows instructions",
    )


def scores_of(engine: EngineName, options: EngineOptions, pairs: Sequence[Pair]) -> Floats:
    """Load a model, score a few pairs, and give its memory back."""
    return scores_and_close(load_model(engine, options, pairs), pairs)


def scores_and_close(model: PairScorer | TextEncoder, pairs: Sequence[Pair]) -> Floats:
    """Score a few pairs with a model, and give its memory back: a GPU may have no room for two."""
    scores = score_once(model, pairs)
    close(model)
    del model
    free_memory()
    return scores


def close(model: PairScorer | TextEncoder) -> None:
    """End what a model has started besides this process."""
    end = getattr(model, "close", None)
    if end:
        end()


def free_memory() -> None:
    """Give back what models had that nothing refers to any more."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unquantised_scores(engine: EngineName, options: EngineOptions, pairs: Sequence[Pair]) -> Floats | None:
    """Return the canary's scores by the model that a quantised one was made from; `None` where it is none."""
    if engine in ("server", "exported") or options.reference == "none":
        return None
    saved = options.model.quantization
    if not (options.vllm.quantization or saved):
        return None
    if saved and not options.reference:
        raise EngineError(
            f"{options.model.name} is quantised ({saved}), and the model that it was made from is not named",
            "Pass --reference with that model to compare the two on 20 pairs, or --reference none to skip that",
        )
    reference = dataclasses.replace(
        options,
        model=describe_model(options.reference) if options.reference else options.model,
        vllm=dataclasses.replace(options.vllm, quantization=None),
        reference="none",
    )
    return scores_of(engine, reference, pairs[:CANARY_PAIRS])


def _possible(model: ModelInfo) -> tuple[EngineName, ...]:
    return tuple(name for name in _ENGINES[_kind(model)] if not (model.base and name == "vllm"))


def _kind(model: ModelInfo) -> str:
    if model.export_precision:
        return "an exported student"
    if model.kind == "bi-encoder":
        return "an LLM embedder" if model.is_llm else "a bi-encoder"
    return "an LLM reranker" if model.kind == "llm-reranker" else "a cross-encoder"


def _load_vllm(options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    from rag_core.engines.vllm_engine import VllmEncoder, load_reranker

    return VllmEncoder(options) if options.model.kind == "bi-encoder" else load_reranker(options, canary_pairs)


def _load_transformers(options: EngineOptions, _: Sequence[Pair]) -> PairScorer | TextEncoder:
    from rag_core.engines.transformers_engine import ClassifierScorer, LastTokenEncoder, YesNoScorer

    if options.model.kind == "bi-encoder":
        return LastTokenEncoder(options)
    return ClassifierScorer(options) if options.model.question.is_classifier else YesNoScorer(options)


def _load_sentence_transformers(options: EngineOptions, _: Sequence[Pair]) -> PairScorer | TextEncoder:
    from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer

    return BiEncoder(options) if options.model.kind == "bi-encoder" else CrossEncoderScorer(options)


def _load_from_server(options: EngineOptions, _: Sequence[Pair]) -> PairScorer | TextEncoder:
    from rag_core.engines import server_engine

    return server_engine.load(options)


def _load_exported(options: EngineOptions, _: Sequence[Pair]) -> PairScorer | TextEncoder:
    from rag_core.engines.exported_engine import load_exported

    return load_exported(Path(options.model.name), options.max_length, options.batch_size)


# How each engine loads a model; a new engine is one more row here, and one in the table of what runs what.
LOADERS: dict[EngineName, Callable[[EngineOptions, Sequence[Pair]], PairScorer | TextEncoder]] = {
    "vllm": _load_vllm,
    "transformers": _load_transformers,
    "sentence-transformers": _load_sentence_transformers,
    "server": _load_from_server,
    "exported": _load_exported,
}
