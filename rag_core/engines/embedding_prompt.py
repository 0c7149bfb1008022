"""What LLM embedders read, as token ids: the one place that knows its text.

A query is ids("Instruct: {task}\\nQuery:{query}") + [end], with no space after the colon; a passage is ids(passage)
+ [end]. The vector is the hidden state at the end token, so a prompt without it has another vector. Source: the
Qwen3-Embedding model card and Zhang et al. 2025, "Qwen3 Embedding: Advancing Text Embedding and Reranking Through
Foundation Models", arXiv:2506.05176.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Role
from rag_core.engines.tokenizer import load_tokenizer, without_special_tokens
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = "qwen3-embedding-1"

_END_OF_TEXT = "<|endoftext|>"


def query_prompt(instruction: str) -> str:
    """Return what stands before a query."""
    return f"Instruct: {instruction}\nQuery:"


class EmbeddingPrompt:
    """Turn texts into token ids of at most `max_length`, cutting neither the instruction nor the end token.

    Attributes:
        end: the id at whose position the vector is read.
        max_length: of a text with its prompt, in tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str, max_length: int) -> None:
        """Prepare the parts that all prompts share.

        Raises:
            EngineError: the tokenizer has no fast implementation, does not end a text with a single token, or the
                instruction leaves no room for a query.
        """
        self._query_prompt = query_prompt(instruction)
        self._plain = without_special_tokens(tokenizer)
        self.max_length = max_length
        self._room = max_length - 1
        self.end = self._end_token(tokenizer)
        prompt_length = len(self._plain.encode(self._query_prompt).ids)
        if prompt_length >= self._room:
            raise EngineError(
                f"an instruction of {len(instruction)} characters leaves no room for the query within {max_length} "
                f"tokens (instruction {quoted(repr(instruction), 60)})",
                f"Raise --max_length to at least {prompt_length + 2} tokens, or shorten the instruction",
            )

    @classmethod
    def for_model(cls, options: EngineOptions) -> Self:
        """Prepare the prompt with the tokenizer of the model.

        As in sentence-transformers, a text is cut to what the model was saved to read, where that is less than
        `options.max_length`; and without an instruction in the options, the model's own is taken.

        Raises:
            EngineError: the tokenizer cannot be loaded, or as the constructor raises.
        """
        tokenizer = load_tokenizer(options.model.name)
        instruction = options.instruction or options.model.instruction or DEFAULT_INSTRUCTION
        declared = options.model.max_length or tokenizer.model_max_length
        return cls(tokenizer, instruction, min(options.max_length, declared))

    def token_ids(self, texts: Sequence[str], role: Role) -> tuple[list[list[int]], int]:
        """Return the ids of each text with its prompt, and how many texts were cut.

        Special tokens spelled inside a text are plain text.
        """
        before = self._query_prompt if role == "query" else ""
        bodies = [encoding.ids for encoding in self._plain.encode_batch_fast([before + text for text in texts])]
        truncated = sum(len(ids) > self._room for ids in bodies)
        return [[*ids[: self._room], self.end] for ids in bodies], truncated

    def _end_token(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the token that the model's own tokenizer appends, `<|endoftext|>` where it adds none."""
        text = "text"
        ids: list[int] = self._plain.encode(text).ids
        with_special_tokens: list[int] = tokenizer.encode(text)
        if with_special_tokens == ids and _END_OF_TEXT in tokenizer.get_vocab():
            return int(tokenizer.convert_tokens_to_ids(_END_OF_TEXT))
        if with_special_tokens[:-1] != ids:
            raise EngineError(
                f"the tokenizer adds {len(with_special_tokens) - len(ids)} tokens to a text, where one at its end is "
                "expected of an LLM embedder",
                "Pass --engine sentence-transformers",
            )
        return with_special_tokens[-1]
