"""What an instruction-following LLM is asked when it writes a passage's query, and what is taken of its answer.

After Bonifacio et al. 2022, "InPars: Data Augmentation for Information Retrieval using Large Language Models",
arXiv:2202.05144, without examples: a model that follows instructions needs none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from rag_core.errors import EngineError

VERSION = "one-query-1"
MAX_NEW_TOKENS = 64

_QUESTION = (
    "Write the one search query that the passage below answers best, in the words of someone who has not read it. "
    "Answer with the query and nothing else.\n\nPassage: "
)
_MOST_WORDS = 40
_LEAST_PASSAGE = 16  # tokens


class QueryWriter(Protocol):
    """A language model that writes a query for each passage."""

    def write(self, passages: Sequence[str]) -> list[str | None]:
        """Return a query for each passage, the most probable answer; `None` where the answer is none."""
        ...


def token_ids(tokenizer: Any, passages: Sequence[str], room: int) -> list[list[int]]:
    """Return the ids of each passage's prompt, of at most `room` tokens: the model's own chat template around it.

    Raises:
        EngineError: the tokenizer has no chat template, or `room` is too small for any passage.
    """
    if not tokenizer.chat_template:
        raise EngineError("the model's tokenizer has no chat template", "Choose a model that follows instructions")
    around = len(_chat(tokenizer, ""))
    if around + _LEAST_PASSAGE > room:
        raise EngineError(f"--max_length leaves no room for a passage beside {around} tokens of prompt", "Raise it")
    prompts = []
    for passage in passages:
        ids = _chat(tokenizer, passage)
        if len(ids) > room:
            kept = tokenizer.encode(passage, add_special_tokens=False)[: room - around]
            ids = _chat(tokenizer, tokenizer.decode(kept))[:room]
        prompts.append(ids)
    return prompts


def _chat(tokenizer: Any, passage: str) -> list[int]:
    turns = [{"role": "user", "content": _QUESTION + passage}]
    ids: list[int] = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    return ids


def read_answer(answer: str) -> str | None:
    """Return the query in an answer: its first line, without marks around it; `None` where that is none."""
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    line = answer.partition("\n")[0].strip().strip("\"'`*").strip()
    line = re.sub(r"^(search )?query:\s*", "", line, flags=re.IGNORECASE)
    return line if line and len(line.split()) <= _MOST_WORDS else None
