"""Language models that write: what they are asked, how they choose their words, and what every engine offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from rag_core.base.errors import EngineError
from rag_core.engines.special_tokens import special_tokens, starts_of
from rag_core.engines.tokenizer import rendering

_LEAST_TEXT = 16  # tokens; a text that is cut below says too little to answer
_MARK = "\ufdd0"  # a noncharacter: no text has it
_THOUGHT = "<think>"


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

    A text that spells a token of the template stays text: it ends no turn, and begins none.

    Raises:
        EngineError: the tokenizer has no chat template, or `room` is too small for a prompt.
    """
    chat = _Chat(tokenizer)
    around = {question: len(chat.ids(question)) for question in {prompt.question for prompt in prompts}}
    rows = []
    for prompt in prompts:
        needed = around[prompt.question]
        if needed + (_LEAST_TEXT if prompt.text else 0) > room:
            raise EngineError(
                f"--max_length leaves no room for a text beside {needed} tokens of prompt",
                f"Raise it by {needed + _LEAST_TEXT - room} or more",
            )
        ids = chat.ids(prompt.question + prompt.text)
        if len(ids) > room:
            ids = chat.ids(prompt.question + chat.cut(prompt.text, room - needed))[:room]
        rows.append(ids)
    return rows


def begun_thought(tokenizer: Any) -> str:
    """Return the tag before thoughts where a model's chat template writes it, and its answers do not.

    Raises:
        EngineError: the tokenizer has no chat template.
    """
    return _THOUGHT if _Chat(tokenizer).render("text").rstrip().endswith(_THOUGHT) else ""


class _Chat:
    """A chat template, and what stands in it as text and not as tokens."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise EngineError("the model's tokenizer has no chat template", "Choose a model that follows instructions")
        self._tokenizer = tokenizer
        template = tokenizer.get_chat_template()
        # What is not special is a word of the vocabulary, except where the template has a use for it.
        used = [token for token in tokenizer.get_added_vocab() if token.strip() and token in template]
        self._starts = re.compile(starts_of([*special_tokens(tokenizer), *used]))

    def render(self, turn: str) -> str:
        """Return the text of one turn of the user, and the beginning of an answer."""
        return str(self._apply(turn, tokenize=False))

    def ids(self, turn: str) -> list[int]:
        """Return the ids of the same; each token that the turn spells is tokenised in two parts."""
        marked = self._starts.sub(rf"\g<0>{_MARK}", turn)
        if marked == turn:
            return self._apply(turn, return_dict=False)  # type: ignore[no-any-return]
        return self._encode(self.render(marked))

    def cut(self, text: str, length: int) -> str:
        """Return the beginning of a text, of so many tokens."""
        kept = self._encode(self._starts.sub(rf"\g<0>{_MARK}", text))[:length]
        return str(self._tokenizer.decode(kept))

    def _encode(self, marked: str) -> list[int]:
        parts = [self._tokenizer.encode(part, add_special_tokens=False) for part in marked.split(_MARK)]
        return list(chain.from_iterable(parts))

    def _apply(self, turn: str, **form: bool) -> Any:
        message = {"role": "user", "content": turn}
        with rendering("Choose a model that follows instructions"):
            return self._tokenizer.apply_chat_template(
                [message], add_generation_prompt=True, enable_thinking=False, **form
            )
