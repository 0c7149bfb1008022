"""Language models that write, through each engine that can."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rag_core.base.errors import EngineError
from rag_core.engines.generation import Prompt, Sampling, begun_thought, token_ids
from rag_core.engines.options import EngineOptions
from rag_core.engines.server_answers import completions
from rag_core.engines.server_engine import check_room, connect
from rag_core.engines.tokenizer import load_tokenizer
from rag_core.engines.transformers_engine import load_transformers
from rag_core.engines.vllm_engine import VllmModel


class TransformersGenerator:
    """A `TextGenerator` through transformers."""

    def __init__(self, options: EngineOptions) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_transformers(AutoModelForCausalLM, options, self._device).eval()
        self._tokenizer = load_tokenizer(options.model.name)
        self._thought = begun_thought(self._tokenizer)
        self._max_length, self._batch_size = options.max_length, options.batch_size

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        """Return one answer for each prompt, in their order.

        Drawn answers are the same again where prompts, seed and batch size are.
        """
        import torch

        rows = token_ids(self._tokenizer, prompts, self._max_length - sampling.max_new_tokens)
        drawing: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            drawing = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        answers = [""] * len(rows)
        with torch.random.fork_rng(enabled=sampling.seed is not None), torch.inference_mode():
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                longest = len(rows[batch[0]])
                padding = [longest - len(rows[index]) for index in batch]  # on the left
                ids = [[0] * short + rows[index] for short, index in zip(padding, batch, strict=True)]
                mask = [[0] * short + [1] * (longest - short) for short in padding]
                written = self._model.generate(
                    input_ids=torch.tensor(ids, device=self._device),
                    attention_mask=torch.tensor(mask, device=self._device),
                    max_new_tokens=sampling.max_new_tokens,
                    pad_token_id=self._tokenizer.eos_token_id,
                    **drawing,
                )
                for index, answer in zip(batch, written[:, longest:], strict=True):
                    answers[index] = self._thought + self._tokenizer.decode(answer, skip_special_tokens=True)
        return answers


class VllmGenerator(VllmModel):
    """A `TextGenerator` through vLLM."""

    def __init__(self, options: EngineOptions) -> None:
        """Start the engine.

        Raises:
            EngineError: vLLM is not installed or does not run, or the model cannot be loaded.
        """
        super().__init__(options, max_model_len=options.max_length)
        self._tokenizer = load_tokenizer(options.model.name)
        self._thought = begun_thought(self._tokenizer)
        self._max_length = options.max_length

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        """Return one answer for each prompt, in their order."""
        rows = token_ids(self._tokenizer, prompts, self._max_length - sampling.max_new_tokens)
        settings = [
            self._vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=None if sampling.seed is None else sampling.seed + number,
            )
            for number in range(len(rows))
        ]
        outputs = self._llm.generate(self._prompts(rows), settings, use_tqdm=False)
        return [self._thought + output.outputs[0].text for output in outputs]


class ServerGenerator:
    """A `TextGenerator` through /v1/completions of vLLM's server."""

    def __init__(self, options: EngineOptions) -> None:
        """Connect, and load the model's tokenizer: the server is sent the token ids that the other engines read.

        Raises:
            EngineError: the server does not answer, cannot write or reads too little, or there is no tokenizer.
        """
        self._server = connect(options)
        if self._server.is_tei:
            raise EngineError(
                f"the server {self._server.url} is TEI, which writes no text", "Serve the model with vllm serve"
            )
        check_room(self._server, options.max_length)
        self._tokenizer, self._max_length = load_tokenizer(options.model.name), options.max_length
        self._thought = begun_thought(self._tokenizer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        """Return one answer for each prompt, in their order.

        Raises:
            EngineError: the server gives no answer.
        """
        rows = token_ids(self._tokenizer, prompts, self._max_length - sampling.max_new_tokens)
        numbered = [[number, *ids] for number, ids in enumerate(rows)]
        ((_, answers, _),) = self._server.compute([(0, (numbered, 0))], partial(self._ask, sampling))
        return [self._thought + answer for answer in answers]

    def _ask(self, sampling: Sampling, numbered: Sequence[list[int]]) -> list[str]:
        body = {
            "model": self._server.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }

        endpoint = completions(sampling.max_new_tokens)
        if sampling.seed is None or not sampling.temperature:
            prompts = [ids for _, *ids in numbered]
            return self._server.ask(endpoint, body | {"prompt": prompts}, len(prompts))
        answers: list[str] = []
        for number, *ids in numbered:  # a request has one seed
            seeded = body | {"prompt": [ids], "seed": sampling.seed + number}
            answers += self._server.ask(endpoint, seeded)
        return answers
