"""The yes/no prompt of LLM rerankers, as token ids: the one place that knows its text.

The ids are ids(PREFIX) + ids(body) + ids(SUFFIX), never the chat template of the model's repository (newer
templates expect other roles and render an empty prompt). Source: the Qwen3-Reranker model card and
Zhang et al. 2025, "Qwen3 Embedding: Advancing Text Embedding and Reranking Through Foundation Models",
arXiv:2506.05176; with one `<|im_end|>` after the user turn, where early versions of the card had two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Pair
from rag_core.engines.rerankers import JUDGE
from rag_core.engines.tokenizer import load_tokenizer, without_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = "qwen3-yes-no-1"
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

_SYSTEM = f'{JUDGE} Note that the answer can only be "yes" or "no".'
PREFIX = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

_TURNS = ("<|im_start|>", "<|im_end|>")
_REMEDY = "Choose a reranker of the Qwen3 family, such as Qwen/Qwen3-Reranker-8B, or a cross-encoder"


class YesNoPrompt:
    """Turn (query, passage) pairs into token ids of at most `max_length`, cutting nothing but the passage.

    Attributes:
        yes, no: the ids of the two answers.
        answers: both; of a model whose files name others, those.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str, max_length: int) -> None:
        """Prepare the parts that all prompts share.

        Raises:
            EngineError: the tokenizer is none of the Qwen kind: it has no fast implementation, or no single token
                for an answer or for the begin and end of a turn.
        """
        self._instruction = instruction
        self._prefix: list[int] = tokenizer.encode(PREFIX, add_special_tokens=False)
        self._suffix: list[int] = tokenizer.encode(SUFFIX, add_special_tokens=False)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self._plain = without_special_tokens(tokenizer)
        self.yes = self._single_id("yes")
        self.no = self._single_id("no")
        self.answers: tuple[int, ...] = (self.yes, self.no)
        # Without these tokens the turns would be spelled out, a text that no such model was trained on.
        unknown = [turn for turn in _TURNS if len(tokenizer.encode(turn, add_special_tokens=False)) != 1]
        if unknown:
            raise EngineError(
                f"the tokenizer has no token {' and no token '.join(unknown)}, so the yes/no prompt cannot be written",
                _REMEDY,
            )

    @classmethod
    def for_model(cls, options: EngineOptions) -> Self:
        """Prepare the prompt with the tokenizer of the model.

        Raises:
            EngineError: the tokenizer cannot be loaded, or as the constructor raises.
        """
        tokenizer = load_tokenizer(options.model.name)
        prompt = cls(
            tokenizer, options.instruction or options.model.instruction or DEFAULT_INSTRUCTION, options.max_length
        )
        prompt.answers = options.model.question.answers or prompt.answers
        return prompt

    def token_ids(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], int]:
        """Return the ids of each pair's prompt, and how many passages were cut.

        Special tokens spelled inside query or passage are plain text.

        Raises:
            EngineError: a query is so long that nothing of its passage would be read.
        """
        heads = [self._head(query) for query, _ in pairs]
        bodies = [head + passage for head, (_, passage) in zip(heads, pairs, strict=True)]
        prompts, truncated = [], 0
        for encoding, head, pair in zip(self._plain.encode_batch_fast(bodies), heads, pairs, strict=True):
            ids = encoding.ids
            if len(ids) > self._room:
                truncated += 1
                head_length = len(self._plain.encode(head).ids)
                if head_length >= self._room:
                    needed = head_length + 1 + len(self._prefix) + len(self._suffix)
                    raise EngineError(
                        f"with a query of {len(pair[0])} characters no room is left for the passage "
                        f"(query {quoted(repr(pair[0]), 60)})",
                        f"Raise --max_length to at least {needed} tokens, or shorten the query",
                    )
                ids = ids[: self._room]
            prompts.append(self._prefix + ids + self._suffix)
        return prompts, truncated

    def head_lengths(self, queries: Sequence[str]) -> list[int]:
        """Return how many tokens of each query's prompt are no passage; nothing of it is read where they fill it."""
        heads = self._plain.encode_batch_fast([self._head(query) for query in queries])
        return [len(self._prefix) + len(head.ids) + len(self._suffix) for head in heads]

    def _head(self, query: str) -> str:
        return f"<Instruct>: {self._instruction}\n<Query>: {query}\n<Document>: "

    def _single_id(self, answer: str) -> int:
        ids: list[int] = self._plain.encode(answer).ids
        if len(ids) != 1:
            raise EngineError(
                f"the tokenizer has no single token for {answer!r} (it takes {len(ids)})",
                _REMEDY,
            )
        return ids[0]
