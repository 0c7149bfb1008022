"""Language models that write: what they are asked, how they choose their words, and what every engine offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, Protocol

from rag_core.base.errors import EngineError
from rag_core.engines.special_tokens import special_tokens, starts_of
from rag_core.engines.tokenizer import rendering

Style = Literal["chat", "completion"]

_LEAST_TEXT = 16  # tokens; a text that is cut below says too little to answer
_MARK = "\ufdd0"  # a noncharacter: no text has it
_THOUGHT = "<think>"
_NO_TEMPLATE = "Choose a model that follows instructions, or pass --prompt_style completion"


@dataclass(frozen=True)
class Prompt:
    """What a model is given: `question` + `text` + `ending`. Where that is too long, `text` is cut, and nothing else.

    Attributes:
        style: "chat" is one turn of a user, in the model's chat template; "completion" is plain text that the model
            goes on with, behind what its tokenizer puts before every text.
    """

    question: str
    text: str = ""
    ending: str = ""
    style: Style = "chat"


@dataclass(frozen=True)
class Sampling:
    """How the next word is chosen.

    Attributes:
        max_new_tokens: of an answer.
        temperature: 0 takes the most probable token each time.
        top_p: tokens are drawn from the most probable ones that together have this probability.
        seed: of the first prompt's first answer; that of each further answer is one higher, so that a prompt that
            stands there twice gets two answers. `None` draws anew each time.
        num_samples: answers to each prompt.
        stop: texts that end an answer; what stands before the first of them is the answer.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    num_samples: int = 1
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_samples > 1 and not self.temperature:
            raise ValueError("the most probable answer is one: several are drawn at a temperature above 0")

    def seed_of(self, prompt: int) -> int | None:
        """Return the seed of a prompt's first answer, by the number of the prompt."""
        return None if self.seed is None else self.seed + prompt * self.num_samples


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        tokens: that it wrote, the end included.
        cut: whether it was ended by `max_new_tokens`.
    """

    text: str
    tokens: int
    cut: bool


class TextGenerator(Protocol):
    """A language model that writes."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Answer]]:
        """Return the answers to each prompt, in their order; shape (prompts, `num_samples`).

        Raises:
            EngineError: the model has no chat template for a chat, a prompt leaves no room for an answer, or memory is
                short.
        """
        ...


class Prompts:
    """Turns prompts into token ids; a text that spells a token stays text: it ends no turn, and begins none."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def token_ids(self, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
        """Return the ids of each prompt, of at most `room` tokens.

        Raises:
            EngineError: a chat is asked for and the tokenizer has no chat template, or `room` is too small for a
                prompt.
        """
        kinds = {(prompt.question, prompt.ending, prompt.style) for prompt in prompts}
        around = {kind: len(self._ids(kind[0] + kind[1], kind[2])) for kind in sorted(kinds)}
        rows = []
        for prompt in prompts:
            needed = around[prompt.question, prompt.ending, prompt.style]
            if needed + (_LEAST_TEXT if prompt.text else 0) > room:
                raise EngineError(
                    f"--max_length leaves no room for a text beside {needed} tokens of prompt",
                    f"Raise it by {needed + _LEAST_TEXT - room} or more",
                )
            text, kept = prompt.text, room - needed
            while len(ids := self._ids(prompt.question + text + prompt.ending, prompt.style)) > room and kept > 0:
                text = self._cut(prompt.text, kept)
                kept -= 1  # words may part otherwise where texts meet
            rows.append(ids)
        return rows

    def before(self, prompt: Prompt) -> str:
        """Return the tag before thoughts where the chat template writes it, and so answers to the prompt lack it."""
        return self._begun_thought if prompt.style == "chat" else ""

    @cached_property
    def _begun_thought(self) -> str:
        return begun_thought(self._tokenizer)

    @cached_property
    def _chat(self) -> _Chat:
        return _Chat(self._tokenizer)

    @cached_property
    def _plain_starts(self) -> re.Pattern[str]:
        # What is added to the vocabulary is found in a text, be it special or not.
        added = [token for token in self._tokenizer.get_added_vocab() if token.strip()]
        return re.compile(starts_of([*special_tokens(self._tokenizer), *added]))

    @cached_property
    def _begin(self) -> list[int]:
        """What the tokenizer puts before every text; what it puts behind it would end the answer."""
        bare = self._tokenizer.encode("a", add_special_tokens=False)
        whole: list[int] = self._tokenizer.encode("a", add_special_tokens=True)
        starts = (start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        return whole[: next(starts, 0)]

    def _ids(self, text: str, style: Style) -> list[int]:
        if style == "chat":
            return self._chat.ids(text)
        return self._begin + _encode(self._tokenizer, self._plain_starts.sub(rf"\g<0>{_MARK}", text))

    def _cut(self, text: str, length: int) -> str:
        """Return the beginning of a text, of so many tokens."""
        ids = _encode(self._tokenizer, self._plain_starts.sub(rf"\g<0>{_MARK}", text))
        return str(self._tokenizer.decode(ids[:length]))


def token_ids(tokenizer: Any, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
    """Return the ids of each prompt, as `Prompts.token_ids`."""
    return Prompts(tokenizer).token_ids(prompts, room)


def begun_thought(tokenizer: Any) -> str:
    """Return the tag before thoughts where a model's chat template writes it, and its answers do not.

    Raises:
        EngineError: the tokenizer has no chat template.
    """
    return _THOUGHT if _Chat(tokenizer).render("text").rstrip().endswith(_THOUGHT) else ""


def up_to_stop(text: str, stop: Sequence[str]) -> str:
    """Return what stands before the first of the texts that end an answer."""
    found = [place for one in stop if (place := text.find(one)) >= 0]
    return text[: min(found)] if found else text


def _encode(tokenizer: Any, marked: str) -> list[int]:
    parts = [tokenizer.encode(part, add_special_tokens=False) for part in marked.split(_MARK)]
    return list(chain.from_iterable(parts))


class _Chat:
    """A chat template, and what stands in it as text and not as tokens."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise EngineError("the model's tokenizer has no chat template", _NO_TEMPLATE)
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
        return _encode(self._tokenizer, self.render(marked))

    def _apply(self, turn: str, **form: bool) -> Any:
        message = {"role": "user", "content": turn}
        with rendering(_NO_TEMPLATE):
            return self._tokenizer.apply_chat_template(
                [message], add_generation_prompt=True, enable_thinking=False, **form
            )
