"""Who scores: one module an engine, chosen by name or by what the model is and what is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from rag_core.engines.canary import check
from rag_core.engines.identity import model_kind
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import Pair, PairScorer, TextEncoder
from rag_core.errors import EngineError

__all__ = ["EngineChoice", "EngineName", "EngineOptions", "PairScorer", "TextEncoder", "choose_engine", "load_model"]


def choose_engine(model: str, asked: EngineChoice) -> tuple[EngineName, str]:
    """Return the engine for a model, and the reason in words.

    Raises:
        EngineError: the engine asked for cannot run the model.
    """
    kind, evidence = model_kind(model)
    possible: tuple[EngineName, ...] = (
        ("vllm", "transformers") if kind == "llm-reranker" else ("sentence-transformers",)
    )
    if asked != "auto":
        if asked not in possible:
            raise EngineError(
                f"the engine {asked} cannot run {model} ({evidence}: it is a {kind})",
                f"Pass --engine {' or '.join(possible)}, or auto",
            )
        return asked, "as asked"
    if kind != "llm-reranker":
        return "sentence-transformers", f"{evidence}: a {kind}"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", f"{evidence}: an LLM reranker; vLLM is not installed"
    import torch

    if not torch.cuda.is_available():
        return "transformers", f"{evidence}: an LLM reranker; no CUDA GPU for vLLM"
    return "vllm", f"{evidence}: an LLM reranker; vLLM and a CUDA GPU are there"


def load_model(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    """Load a model into an engine, and see that it tells the canary pairs apart.

    Raises:
        EngineError: the model or the engine cannot be loaded, or its scores cannot be trusted.
    """
    model = _load(engine, options, canary_pairs)
    check(model, canary_pairs)
    return model


def _load(engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer | TextEncoder:
    if engine == "vllm":
        from rag_core.engines.vllm_engine import load

        return load(options, canary_pairs)
    if engine == "transformers":
        from rag_core.engines.transformers_engine import YesNoScorer

        return YesNoScorer(options)
    from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer

    return BiEncoder(options) if model_kind(options.model)[0] == "bi-encoder" else CrossEncoderScorer(options)
