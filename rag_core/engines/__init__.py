"""Who scores: one module an engine, chosen by name or by what the model is and what is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from rag_core.engines.canary import check
from rag_core.engines.identity import llm_embedder, model_kind
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import Pair, PairScorer, TextEncoder
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
]


# What can run a kind of model here, in the order of preference. A server may run any.
_ENGINES: dict[str, tuple[EngineName, ...]] = {
    "an LLM reranker": ("vllm", "transformers"),
    "an LLM embedder": ("vllm", "sentence-transformers", "transformers"),
    "a cross-encoder": ("sentence-transformers",),
    "a bi-encoder": ("sentence-transformers",),
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
    """Load a model into an engine, and see that it tells the canary pairs apart.

    Raises:
        EngineError: the model or the engine cannot be loaded, or its scores cannot be trusted.
    """
    model = _load(engine, options, canary_pairs)
    check(model, canary_pairs)
    return model


def _kind(model: str) -> tuple[str, str]:
    kind, evidence = model_kind(model)
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
    if engine == "server":
        from rag_core.engines import server_engine

        return server_engine.load(options)
    from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer

    return BiEncoder(options) if embeds else CrossEncoderScorer(options)
