"""LLM rerankers and LLM embedders through vLLM: many prompts at once, and what they begin with is read once.

A reranker's score has two forms. `YesNoScorer` asks a language model for the log-probabilities of its two answers;
`PoolingScorer` has vLLM keep only the difference of the two rows of the output head, as a classifier, which saves
the vocabulary and the sampler. The first is exact by construction, so `load_reranker` holds the second against it.
A reranker that was converted to sequence classification is such a classifier already: `ClassifierScorer`.
"""

from __future__ import annotations

import abc
import gc
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.canary import check_finite, compare
from rag_core.engines.embedding_prompt import EmbeddingPrompt
from rag_core.engines.identity import ModelInfo
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Floats, Pair, PairScorer, Role, ScoreUnit
from rag_core.engines.reranker_prompt import load_prompt
from rag_core.engines.tokenizer import load_tokenizer, tokenise_ahead
from rag_core.engines.transformers_engine import load_transformers
from rag_core.engines.vllm_package import has_cuda, import_vllm

# A block is shared only when it is full. Prompts of a query share 60 to 100 tokens; the CPU's default block is 128,
# and its kernels want multiples of 32. On CUDA the default of 16 fits.
_CPU_BLOCK_SIZE = 32

# Families whose output head vLLM makes a classifier's, and whose every logit is a product with it and nothing more.
_POOLABLE = ("qwen2", "qwen3")

logger = logging.getLogger(__name__)


def load_reranker(options: EngineOptions, canary_pairs: Sequence[Pair]) -> PairScorer:
    """Load a reranker in the form asked for; the pooling form only when it scores the canary pairs as the exact one.

    Raises:
        EngineError: vLLM or the model cannot be loaded, or the two forms differ.
    """
    if options.model.question.is_classifier:
        return ClassifierScorer(options)
    if options.vllm.vllm_runner == "generate":
        return YesNoScorer(options)
    _check_poolable(options.model)
    exact = YesNoScorer(options)
    exact_scores = exact.score(canary_pairs)
    exact.close()
    fast = PoolingScorer(options)
    difference = compare(exact_scores, fast.score(canary_pairs), resolve_dtype(options.dtype))
    fast.truncated = 0
    logger.info("the pooling form agrees with the exact one to %.2g on %d pairs", difference, len(canary_pairs))
    return fast


class VllmModel:
    """vLLM's engine with a model in it."""

    def __init__(
        self, options: EngineOptions, *, max_model_len: int, auto_class: str = "AutoModelForCausalLM", **settings: Any
    ) -> None:
        """Start the engine.

        Args:
            auto_class: of transformers, which knows the weights that the model must have.

        Raises:
            EngineError: vLLM is not installed or does not run, or the model cannot be loaded or lacks weights.
        """
        _check_weights(options, auto_class)
        self._vllm = import_vllm()
        self.truncated: int | None = 0
        if not has_cuda():
            import torch

            # Compiling the sampler takes half a minute even then, and nothing is sampled. (The environment variable
            # for this is read with torch, long before.)
            torch.compiler.set_stance("force_eager")
            settings |= {"block_size": _CPU_BLOCK_SIZE, "enforce_eager": True}
        try:
            self._llm = self._vllm.LLM(
                model=options.model.name,
                dtype=resolve_dtype(options.dtype),
                quantization=options.vllm.quantization,
                max_model_len=max_model_len,
                gpu_memory_utilization=options.vllm.gpu_memory_utilization,
                tensor_parallel_size=options.vllm.tensor_parallel_size,
                enable_prefix_caching=True,
                use_tqdm_on_load=sys.stderr.isatty(),
                **settings,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"vLLM cannot load {options.model.name!r} ({quoted(str(error), 300)})",
                "If it lacks memory, lower --max_length or --gpu_memory_utilization; VLLM_LOGGING_LEVEL=INFO shows "
                "more; --engine transformers does without vLLM",
            ) from error

    def _prompts(self, token_ids: list[list[int]]) -> list[Any]:
        return [self._vllm.TokensPrompt(prompt_token_ids=ids) for ids in token_ids]

    def close(self) -> None:
        """Stop the engine and give its memory back, so that another one can be started."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()


class _VllmScorer(VllmModel, abc.ABC):
    score_unit: ScoreUnit = "log-odds"

    def __init__(self, options: EngineOptions, **settings: Any) -> None:
        """Start the engine.

        Raises:
            EngineError: as `VllmModel`, or the model does not fit the prompt.
        """
        self._prompt = load_prompt(options)
        super().__init__(options, **settings)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,), float32.

        Raises:
            EngineError: a score is missing or not finite, or a query leaves no room for its passage.
        """
        ((_, scores),) = self.score_chunks([pairs])
        return scores

    def score_chunks(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, Floats]]:
        """Score chunks of pairs in their order; yield (number of the chunk, scores).

        Raises:
            EngineError: as `score`.
        """
        for number, (token_ids, truncated) in tokenise_ahead(chunks, self._prompt.token_ids):
            prompts = self._prompts(token_ids)
            scores = np.array(self._log_odds(prompts) if prompts else [], dtype=np.float32)
            check_finite(scores)
            self.truncated = (self.truncated or 0) + truncated
            yield number, scores

    @abc.abstractmethod
    def _log_odds(self, prompts: list[Any]) -> list[float]:
        """Return the score after each prompt: log p(yes) - log p(no), or the logit of the only answer."""


class YesNoScorer(_VllmScorer):
    """The exact form: the log-probabilities of the two answers at the next token.

    They are asked for by id. `logprobs=20` with `allowed_token_ids`, which many recipes have, is wrong since vLLM's
    V1 engine: the log-probabilities are taken before the mask, so that an answer outside the top 20 is missing.
    """

    def __init__(self, options: EngineOptions) -> None:
        # One token more than a prompt, for the answer. In bfloat16 logits near 20 come in steps of 0.1: the head
        # adds up in float32.
        # The log-probability of an answer that stands alone is not its logit.
        alone = len(options.model.question.answers) == 1
        super().__init__(
            options,
            max_model_len=options.max_length + 1,
            hf_overrides={"head_dtype": "float32"},
            logprobs_mode="raw_logits" if alone else "raw_logprobs",
        )
        if alone:
            self.score_unit = "logit"
        self._sampling = self._vllm.SamplingParams(
            temperature=0, max_tokens=1, logprob_token_ids=list(self._prompt.answers), detokenize=False
        )

    def _log_odds(self, prompts: list[Any]) -> list[float]:
        outputs = self._llm.generate(prompts, self._sampling, use_tqdm=False)
        return [self._score(output.outputs[0].logprobs[0]) for output in outputs]

    def _score(self, logprobs: dict[int, Any]) -> float:
        missing = set(self._prompt.answers) - logprobs.keys()
        if missing:
            raise EngineError(
                f"vLLM gave no log-probability for the answer with token id {min(missing)}",
                "Install the version of vLLM that the extra names, or pass --engine transformers",
            )
        yes, *no = [logprobs[answer].logprob for answer in self._prompt.answers]
        return float(yes - sum(no))


class ClassifierScorer(_VllmScorer):
    """What the head of a reranker that was converted to sequence classification gives."""

    def __init__(self, options: EngineOptions) -> None:
        # The head is in the file. What the config says of making it from an output head holds for the original.
        overrides = {"classifier_from_token": None, "is_original_qwen3_reranker": False, "method": None}
        self._start(options, overrides, "AutoModelForSequenceClassification")

    def _start(self, options: EngineOptions, overrides: dict[str, Any], auto_class: str) -> None:
        super().__init__(
            options,
            max_model_len=options.max_length,
            auto_class=auto_class,
            runner="pooling",
            hf_overrides=overrides,
        )
        self._pooling = self._vllm.PoolingParams(use_activation=False)  # the logit, not its sigmoid

    def _log_odds(self, prompts: list[Any]) -> list[float]:
        outputs = self._llm.encode(prompts, pooling_task="classify", pooling_params=self._pooling, use_tqdm=False)
        return [output.outputs.data.item() for output in outputs]


class PoolingScorer(ClassifierScorer):
    """The fast form: the last hidden state times (row yes - row no) of the output head, as a classifier."""

    def __init__(self, options: EngineOptions) -> None:
        tokens = ["no", "yes"]
        answers = options.model.question.answers
        if answers:
            tokens = load_tokenizer(options.model.name).convert_ids_to_tokens(list(answers[::-1]))
        self._start(
            options,
            {
                "architectures": [options.model.architecture.replace("ForCausalLM", "ForSequenceClassification")],
                "classifier_from_token": tokens,
                "method": "from_2_way_softmax" if len(tokens) == 2 else "no_post_processing",
            },
            "AutoModelForCausalLM",
        )
        if len(tokens) == 1:
            self.score_unit = "logit"


class VllmEncoder(VllmModel):
    """The hidden state at the end token after text and prompt, of length 1."""

    score_unit: ScoreUnit = "cosine"

    def __init__(self, options: EngineOptions) -> None:
        """Start the engine.

        Raises:
            EngineError: vLLM is not installed or does not run, the model cannot be loaded or does not fit the prompt.
        """
        self._prompt = EmbeddingPrompt.for_model(options)
        super().__init__(
            options, max_model_len=options.max_length, auto_class="AutoModel", runner="pooling", convert="embed"
        )
        self._pooling = self._vllm.PoolingParams(use_activation=False)  # normalised below, in float32
        self.dimensions: int = self._llm.model_config.get_hidden_size()

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts; shape (texts, dimensions), L2-normalised in float32."""
        ((_, vectors),) = self.encode_chunks([texts], role)
        return vectors

    def encode_chunks(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, Floats]]:
        """Embed chunks of texts in their order; yield (number of the chunk, vectors)."""
        for number, (token_ids, truncated) in tokenise_ahead(chunks, partial(self._prompt.token_ids, role=role)):
            vectors = np.empty((len(token_ids), self.dimensions), dtype=np.float32)
            if token_ids:
                outputs = self._llm.encode(
                    self._prompts(token_ids), pooling_task="embed", pooling_params=self._pooling, use_tqdm=False
                )
                vectors[:] = [output.outputs.data.float().numpy() for output in outputs]
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            self.truncated = (self.truncated or 0) + truncated
            yield number, vectors


def _check_weights(options: EngineOptions, auto_class: str) -> None:
    """Check that no weight is missing; vLLM leaves linear layers that the file lacks as they are in memory.

    Raises:
        EngineError: as `load_transformers`, which reads no weights onto the device "meta".
    """
    import transformers

    if not options.model.quantization:  # whose tensors have other names
        load_transformers(getattr(transformers, auto_class), options, "meta")


def _check_poolable(model: ModelInfo) -> None:
    if model.model_type not in _POOLABLE:
        raise EngineError(
            f"vLLM's pooling form is for Qwen2 and Qwen3 rerankers, and {model.name} is of the type {model.model_type}",
            "Pass --vllm_runner generate",
        )
