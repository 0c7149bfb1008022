"""Language models that write: what they are asked, how they choose their words, and what every engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rag_core.base.errors import EngineError
from rag_core.engines.tokenizer import rendering

_LEAST_TEXT = 16  # tokens; a text that is cut below says too little to answer


@dataclass(frozen=True)
class Prompt:
    """One user turn, `question` + `text`. Where both together are too long, `text` is cut, and never `question`."""

    question: str
    text: str = ""


@dataclass(frozen=True)
class Sampling:
    """How the next word is chosen.

    Attributes:
        max_new_tokens: of the answer.
        temperature: 0 takes the most probable token each time.
        top_p: tokens are drawn from the most probable ones that together have this probability.
        seed: of the first prompt; that of each further prompt is one higher, so that a prompt that stands there twice
            gets two answers. `None` draws anew each time.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class TextGenerator(Protocol):
    """A language model that follows instructions."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        """Return one answer for each prompt, in their order.

        Raises:
            EngineError: the model has no chat template, a prompt leaves no room for an answer, or memory is short.
        """
        ...


def token_ids(tokenizer: Any, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
    """Return the ids of each prompt, of at most `room` tokens: the model's own chat template around it.

    Raises:
        EngineError: the tokenizer has no chat template, or `room` is too small for a prompt.
    """
    if not tokenizer.chat_template:
        raise EngineError("the model's tokenizer has no chat template", "Choose a model that follows instructions")
    around = {question: len(_chat(tokenizer, question)) for question in {prompt.question for prompt in prompts}}
    rows = []
    for prompt in prompts:
        needed = around[prompt.question]
        if needed + (_LEAST_TEXT if prompt.text else 0) > room:
            raise EngineError(
                f"--max_length leaves no room for a text beside {needed} tokens of prompt",
                f"Raise it by {needed + _LEAST_TEXT - room} or more",
            )
        ids = _chat(tokenizer, prompt.question + prompt.text)
        if len(ids) > room:
            kept = tokenizer.encode(prompt.text, add_special_tokens=False)[: room - needed]
            ids = _chat(tokenizer, prompt.question + tokenizer.decode(kept))[:room]
        rows.append(ids)
    return rows


def _chat(tokenizer: Any, turn: str) -> list[int]:
    with rendering("Choose a model that follows instructions"):
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
    return ids
