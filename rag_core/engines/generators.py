"""Language models that write, through each engine that can."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_core.base.errors import EngineError
from rag_core.engines.generation import Answer, Prompt, Prompts, Sampling, up_to_stop
from rag_core.engines.options import EngineOptions
from rag_core.engines.server_answers import completions
from rag_core.engines.server_engine import check_room, connect
from rag_core.engines.tokenizer import load_tokenizer
from rag_core.engines.transformers_engine import common_beginning, load_transformers
from rag_core.engines.vllm_engine import VllmModel

if TYPE_CHECKING:
    import torch


class TransformersGenerator:
    """A `TextGenerator` through transformers.

    What all prompts of a call begin with, such as examples, is read once, and each prompt once for all its answers.
    """

    def __init__(self, options: EngineOptions) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_transformers(AutoModelForCausalLM, options, device).eval()
        self._take(model, load_tokenizer(options.model.name), options.max_length, options.batch_size)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, max_length: int, batch_size: int) -> TransformersGenerator:
        """Let a model write that is loaded already, as one that is being trained."""
        made = cls.__new__(cls)
        made._take(model, tokenizer, max_length, batch_size)
        return made

    def _take(self, model: Any, tokenizer: Any, max_length: int, batch_size: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._max_length, self._batch_size = max_length, batch_size
        self._prompts = Prompts(tokenizer)
        ends = model.generation_config.eos_token_id
        named = ends if isinstance(ends, list) else [ends]
        self._ends = sorted({end for end in [*named, tokenizer.eos_token_id] if end is not None})
        self._decoder = _resumable_decoder(model)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Answer]]:
        """Return the answers to each prompt; shape (prompts, samples).

        Drawn answers are the same again where prompts, seed and batch size are.
        """
        import torch

        rows = self._prompts.token_ids(prompts, self._max_length - sampling.max_new_tokens)
        begun = [self._prompts.before(prompt) for prompt in prompts]
        answers: list[list[Answer]] = [[] for _ in rows]
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        together = min(sampling.num_samples, self._batch_size)  # of a prompt's answers
        size = self._batch_size // together
        with torch.random.fork_rng(enabled=sampling.seed is not None), torch.inference_mode():
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            beginning = self._read_beginning(rows)
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                read = _Read(self._decoder, [rows[index] for index in batch], beginning, self._model.device)
                for first in range(0, sampling.num_samples, together):
                    count = min(together, sampling.num_samples - first)
                    written = self._write(read, sampling, count)
                    for place, index in enumerate(batch):
                        found = written[place * count : (place + 1) * count]
                        answers[index] += [self._answer(begun[index], ids, sampling) for ids in found]
        return answers

    def _read_beginning(self, rows: Sequence[list[int]]) -> Any:
        """Return the keys and values of what all prompts begin with; `None` where they share little."""
        import torch

        length = common_beginning(rows)
        if not length or self._decoder is None:
            return None
        shared = torch.tensor([rows[0][:length]], device=self._model.device)
        return self._decoder(shared, use_cache=True).past_key_values

    def _write(self, read: _Read, sampling: Sampling, count: int) -> list[list[int]]:
        """Return the ids of so many answers to each prompt of a batch, without those behind their ends."""
        from transformers.generation.stopping_criteria import StoppingCriteriaList

        drawing: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            drawing = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        stops = _Stops(self._tokenizer, sampling.stop, read.length)
        written = self._model.generate(
            **read.inputs(count),
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,  # what stands behind an end is not read
            stopping_criteria=StoppingCriteriaList([stops] if sampling.stop else []),
            **drawing,
        )[:, read.length :].tolist()
        return [ids[: self._length(ids, stops.ended.get(row))] for row, ids in enumerate(written)]

    def _length(self, ids: list[int], stopped: int | None) -> int:
        ends = [place + 1 for place, token in enumerate(ids) if token in self._ends]
        return min([*ends[:1], *([] if stopped is None else [stopped]), len(ids)])

    def _answer(self, begun: str, ids: list[int], sampling: Sampling) -> Answer:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        kept = up_to_stop(text, sampling.stop)
        ended = kept != text or (bool(ids) and ids[-1] in self._ends)
        return Answer(begun + kept, len(ids), cut=not ended)


class _Read:
    """A batch of prompts, padded between their common beginning and the rest, and what the model has read of them."""

    def __init__(self, decoder: Any, rows: Sequence[list[int]], beginning: Any, device: torch.device) -> None:
        import torch

        start = beginning.get_seq_length() if beginning is not None else 0
        self.length = max(map(len, rows))
        missing = [self.length - len(row) for row in rows]
        ids = [row[:start] + [0] * short + row[start:] for short, row in zip(missing, rows, strict=True)]
        mask = [[1] * start + [0] * short + [1] * (len(row) - start) for short, row in zip(missing, rows, strict=True)]
        self._ids, self._mask = torch.tensor(ids, device=device), torch.tensor(mask, device=device)
        self._cache = None if beginning is None else _repeated(beginning, len(rows))
        end = self.length - 1  # behind the last token, the first of each answer is chosen
        if decoder is not None and end > start:
            self._cache = decoder(
                input_ids=self._ids[:, start:end],
                attention_mask=self._mask[:, :end],
                position_ids=(self._mask.cumsum(-1) - 1).clamp(min=0)[:, start:end],
                past_key_values=self._cache,
                use_cache=True,
            ).past_key_values

    def inputs(self, count: int) -> dict[str, torch.Tensor | Any]:
        """Return what `generate` goes on from: `count` rows of each prompt, one behind the other."""
        inputs: dict[str, Any] = {
            "input_ids": self._ids.repeat_interleave(count, dim=0),
            "attention_mask": self._mask.repeat_interleave(count, dim=0),
        }
        if self._cache is not None:
            inputs["past_key_values"] = _repeated(self._cache, count)
        return inputs


def _repeated(cache: Any, count: int) -> Any:
    """Return a cache with each of its rows so many times; the answers are added to it, not to the one given."""
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(count)
    return copied


def _resumable_decoder(model: Any) -> Any:
    """Return the part of a model that reads; `None` where it cannot go on from what it has read before.

    It can where it keeps the keys and values of all tokens, and is told their positions: padding stands among them,
    and would count in a sliding window.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    decoder = model.get_decoder()
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return None
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return decoder if all(type(layer) is DynamicLayer for layer in layers) else None


class _Stops:
    """Ends answers that hold a text that ends them; called by transformers behind each token.

    Attributes:
        ended: row -> how many tokens it has.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start
        self.ended: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: Any) -> torch.Tensor:
        import torch

        for row, ids in enumerate(input_ids[:, self._start :].tolist()):
            if row not in self.ended and any(one in self._tokenizer.decode(ids) for one in self._stop):
                self.ended[row] = len(ids)
        return torch.tensor([row in self.ended for row in range(len(input_ids))], device=input_ids.device)


class VllmGenerator(VllmModel):
    """A `TextGenerator` through vLLM."""

    def __init__(self, options: EngineOptions) -> None:
        """Start the engine.

        Raises:
            EngineError: vLLM is not installed or does not run, or the model cannot be loaded.
        """
        super().__init__(options, max_model_len=options.max_length)
        self._reader = Prompts(load_tokenizer(options.model.name))
        self._max_length = options.max_length

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Answer]]:
        """Return the answers to each prompt; shape (prompts, samples)."""
        rows = self._reader.token_ids(prompts, self._max_length - sampling.max_new_tokens)
        begun = [self._reader.before(prompt) for prompt in prompts]
        settings = [
            self._vllm.SamplingParams(
                n=sampling.num_samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                stop=list(sampling.stop),
                seed=sampling.seed_of(number),
            )
            for number in range(len(rows))
        ]
        outputs = self._llm.generate(self._prompts(rows), settings, use_tqdm=False)
        return [
            [
                Answer(before + one.text, len(one.token_ids), cut=one.finish_reason == "length")
                for one in sorted(output.outputs, key=lambda one: one.index)
            ]
            for before, output in zip(begun, outputs, strict=True)
        ]


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
        self._prompts = Prompts(self._tokenizer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Answer]]:
        """Return the answers to each prompt; shape (prompts, samples). Their tokens are counted in their texts.

        Raises:
            EngineError: the server gives no answer.
        """
        rows = self._prompts.token_ids(prompts, self._max_length - sampling.max_new_tokens)
        numbered = [[number, *ids] for number, ids in enumerate(rows)]
        ((_, written, _),) = self._server.compute([(0, (numbered, 0))], partial(self._ask, sampling))
        return [
            [self._answer(self._prompts.before(prompt), text, cut, sampling.max_new_tokens) for text, cut in found]
            for prompt, found in zip(prompts, written, strict=True)
        ]

    def _answer(self, before: str, text: str, cut: bool, most: int) -> Answer:
        """Return an answer; a text need not have as many tokens as it was written in, but a cut one had `most`."""
        tokens = most if cut else min(len(self._tokenizer.encode(text, add_special_tokens=False)) + 1, most)
        return Answer(before + text, tokens, cut)

    def _ask(self, sampling: Sampling, numbered: Sequence[list[int]]) -> list[list[tuple[str, bool]]]:
        body: dict[str, Any] = {
            "model": self._server.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.num_samples > 1:
            body["n"] = sampling.num_samples
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is None or not sampling.temperature:
            return self._answers_of(sampling, body | {"prompt": [ids for _, *ids in numbered]})
        answers = []
        for number, *ids in numbered:  # a request has one seed
            answers += self._answers_of(sampling, body | {"prompt": [ids], "seed": sampling.seed_of(number)})
        return answers

    def _answers_of(self, sampling: Sampling, body: dict[str, Any]) -> list[list[tuple[str, bool]]]:
        count = sampling.num_samples
        found = self._server.ask(completions(sampling.max_new_tokens), body, len(body["prompt"]) * count)
        return [found[start : start + count] for start in range(0, len(found), count)]
