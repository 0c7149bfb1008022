"""LLM rerankers and LLM embedders through plain transformers: on one GPU, or on a CPU."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.engines.canary import check_finite
from rag_core.engines.embedding_prompt import EmbeddingPrompt
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.pretrained import merge_adapters, readable_tokens, whole
from rag_core.engines.protocols import Floats, Pair, Role, ScoreUnit
from rag_core.engines.reranker_prompt import load_prompt
from rag_core.engines.tokenizer import tokenise_ahead

if TYPE_CHECKING:
    import torch

_LEAST_PREFIX = 16  # tokens


class _LastPositionModel(abc.ABC):
    """A decoder that is read at the last position of each sequence only."""

    def __init__(self, options: EngineOptions, auto_class: Any) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded, or does not fit `max_length`.
        """
        import torch

        self.truncated: int | None = 0
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_tokens = options.transformers.batch_tokens
        # Few short sequences leave a GPU idle (benchmarks/gpu_scoring.py): there tokens alone bound a batch.
        self._batch_size = options.batch_size if self._device == "cpu" else self._batch_tokens
        self._model = load_transformers(auto_class, options, self._device).eval()

    def _run(self, prompts: Sequence[list[int]], *, width: int) -> Floats:
        """Return what `_read_last` gives for each prompt; shape (prompts, width), in the order given.

        Raises:
            EngineError: memory is short.
        """
        import torch

        prefix = self._read_prefix(prompts)
        # Like lengths together pad little; longest first, so that too large a batch fails at once.
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        rows = np.empty((len(prompts), width), dtype=np.float32)
        start = 0
        while start < len(order):
            longest = len(prompts[order[start]])
            batch = order[start : start + max(1, min(self._batch_size, self._batch_tokens // longest))]
            start += len(batch)
            try:
                rows[batch] = self._run_batch([prompts[index] for index in batch], prefix)
            except torch.OutOfMemoryError as error:
                raise EngineError(
                    f"{len(batch)} sequences of up to {longest} tokens do not fit in the GPU memory",
                    "Lower --batch_tokens, or --max_length",
                ) from error
        return rows

    def _read_prefix(self, prompts: Sequence[list[int]]) -> Any:
        """Return the keys and values of what all prompts begin with, so that it is read once; `None` where it is short.

        Of a yes/no prompt that is about 60 tokens and the instruction, more than half of it where passages are short.
        """
        import torch

        length = common_beginning(prompts)
        if not length:
            return None
        with torch.inference_mode():
            outputs = self._model.base_model(torch.tensor([prompts[0][:length]], device=self._device), use_cache=True)
        return outputs.past_key_values

    def _run_batch(self, prompts: list[list[int]], prefix: Any) -> Floats:
        import torch

        lengths = torch.tensor([len(prompt) for prompt in prompts])
        start = prefix.get_seq_length() if prefix else 0
        # Whatever stands in the padding, causal attention hides it from the tokens before it.
        token_ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row[start:]) for row in prompts], batch_first=True)
        mask = torch.arange(start + token_ids.shape[1]) < lengths[:, None]
        inputs: dict[str, Any] = {
            "input_ids": token_ids.to(self._device),
            "attention_mask": mask.long().to(self._device),
            "use_cache": prefix is not None,
        }
        if prefix:
            inputs["past_key_values"] = copy.deepcopy(prefix)  # the batch's keys and values are added to it
            inputs["past_key_values"].batch_repeat_interleave(len(prompts))
        with torch.inference_mode():
            rows: Floats = self._read_last(inputs, (lengths - start - 1).to(self._device)).cpu().numpy()
        return rows

    @abc.abstractmethod
    def _read_last(self, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
        """Return one float32 row per sequence of a right-padded batch, read at `last_positions`."""


class _PromptScorer(_LastPositionModel):
    """An LLM reranker, which reads a pair in a prompt."""

    score_unit: ScoreUnit = "log-odds"

    def __init__(self, options: EngineOptions, auto_class: Any) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded, or does not fit the prompt or `max_length`.
        """
        self._prompt = load_prompt(options)
        super().__init__(options, auto_class)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,), float32.

        Raises:
            EngineError: a score is not finite, a query leaves no room for its passage, or memory is short.
        """
        ((_, scores),) = self.score_chunks([pairs])
        return scores

    def score_chunks(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, Floats]]:
        """Score chunks of pairs in their order; yield (number of the chunk, scores).

        Raises:
            EngineError: as `score`.
        """
        for number, (prompts, truncated) in tokenise_ahead(chunks, self._prompt.token_ids):
            scores = self._run(prompts, width=1)[:, 0]
            check_finite(scores)
            self.truncated = (self.truncated or 0) + truncated
            yield number, scores


class YesNoScorer(_PromptScorer):
    """log p(yes) - log p(no) at the token after the prompt; with one answer, its logit.

    The two logits' difference is that of the log-probabilities, since both share one normaliser. So only two rows
    of the output head are needed, and only at a sequence's last position: of a vocabulary of 151,936 at every
    position nothing else is read.
    """

    def __init__(self, options: EngineOptions) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded, or does not fit the prompt or `max_length`.
        """
        import torch
        from transformers import AutoModelForCausalLM

        super().__init__(options, AutoModelForCausalLM)
        if len(self._prompt.answers) == 1:
            self.score_unit = "logit"
        # Taken by the hook below; set before each batch.
        self._last_positions = torch.empty(0, dtype=torch.long)
        # In the model's own place for a head, so that what the model does to its logits (soft cap, scale) is done.
        self._model.set_output_embeddings(self._answer_head(self._model.get_output_embeddings()))
        self._model.to(self._device)

    def _read_last(self, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
        self._last_positions = last_positions
        logits: torch.Tensor = self._model(**inputs).logits
        answers = logits[:, 0].float()
        return answers if answers.shape[1] == 1 else answers[:, :1] - answers[:, 1:]

    def _answer_head(self, head: Any) -> torch.nn.Linear:
        """Return the head's rows of the answers in float32, which bfloat16 would round to steps of 0.1 near 20."""
        import torch

        rows = list(self._prompt.answers)
        answers = torch.nn.Linear(head.weight.shape[1], len(rows), bias=head.bias is not None)
        answers.load_state_dict({name: values[rows].float() for name, values in head.state_dict().items()})
        answers.register_forward_pre_hook(self._at_last_positions)
        return answers

    def _at_last_positions(self, _: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        import torch

        (hidden,) = inputs
        sequences = torch.arange(len(hidden), device=hidden.device)
        return hidden[sequences, self._last_positions].unsqueeze(1).float()


class ClassifierScorer(_PromptScorer):
    """What the head of an LLM reranker that was converted to sequence classification gives after the prompt."""

    def __init__(self, options: EngineOptions) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded, or does not fit the prompt or `max_length`.
        """
        from transformers import AutoModelForSequenceClassification

        super().__init__(options, AutoModelForSequenceClassification)
        self._head = self._model.score.float()

    def _read_last(self, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self._head(last_hidden_states(self._model.base_model, inputs, last_positions))
        return scores


class LastTokenEncoder(_LastPositionModel):
    """The hidden state at the end token after text and prompt, of length 1."""

    score_unit: ScoreUnit = "cosine"

    def __init__(self, options: EngineOptions) -> None:
        """Load the model, on the GPU where there is one.

        Raises:
            EngineError: the model cannot be loaded, or does not fit the prompt or `max_length`.
        """
        from transformers import AutoModel

        self._prompt = EmbeddingPrompt.for_model(options)
        super().__init__(options, AutoModel)
        self.dimensions: int = self._model.config.get_text_config().hidden_size

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts; shape (texts, dimensions), L2-normalised in float32.

        Raises:
            EngineError: memory is short.
        """
        ((_, vectors),) = self.encode_chunks([texts], role)
        return vectors

    def encode_chunks(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, Floats]]:
        """Embed chunks of texts in their order; yield (number of the chunk, vectors).

        Raises:
            EngineError: memory is short.
        """
        for number, (prompts, truncated) in tokenise_ahead(chunks, partial(self._prompt.token_ids, role=role)):
            vectors = self._run(prompts, width=self.dimensions)
            self.truncated = (self.truncated or 0) + truncated
            yield number, vectors

    def _read_last(self, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
        vectors = last_hidden_states(self._model, inputs, last_positions)
        normalised: torch.Tensor = vectors / vectors.norm(dim=1, keepdim=True)
        return normalised


def common_beginning(prompts: Sequence[list[int]]) -> int:
    """Return how many tokens all prompts begin with, without the last of the shortest; 0 where sharing is no gain."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of a dictionary: what these two share, all do
    same = [one == other for one, other in zip(first, last, strict=False)]
    length = min([*same, False].index(False), min(map(len, prompts)) - 1)
    return length if length >= _LEAST_PREFIX else 0


def last_hidden_states(model: Any, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
    """Return a decoder's last hidden state at one position of each sequence, in float32; shape (sequences, width)."""
    import torch

    hidden = model(**inputs).last_hidden_state
    rows: torch.Tensor = hidden[torch.arange(len(hidden), device=hidden.device), last_positions].float()
    return rows


def load_transformers(auto_class: Any, options: EngineOptions, device: str) -> Any:
    """Load a model with one of transformers' auto classes.

    Raises:
        EngineError: it cannot be loaded, lacks weights, or reads less than `max_length`.
    """
    with whole(options.model):
        model = auto_class.from_pretrained(
            options.model.name, dtype=resolve_dtype(options.dtype), device_map=device, trust_remote_code=False
        )
    merge_adapters(model)
    readable = readable_tokens(model)
    if readable is not None and options.max_length > readable:
        raise EngineError(
            f"--max_length {options.max_length} is more than the {readable} tokens that {options.model.name} can read",
            f"Pass --max_length {readable} or less",
        )
    return model
