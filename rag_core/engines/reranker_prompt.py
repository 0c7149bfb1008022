"""What an LLM reranker reads, as token ids: the yes/no prompt, or the chat template of its folder.

A template is rendered once, with a mark in the place of the query and one in that of the passage. What lies between
two special tokens of it is tokenised with the texts in it, by a tokenizer that knows no special token: so tokens merge
across the edges of a text as they do where sentence-transformers tokenises the whole, and a text that spells a special
token stays plain text. Where a prompt is too long, passage tokens are left out, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import quoted
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Pair
from rag_core.engines.rerankers import ChatTemplate, Question
from rag_core.engines.tokenizer import load_tokenizer, rendering, without_special_tokens
from rag_core.engines.yes_no_prompt import VERSION, YesNoPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS = {"query": "Mark0of0the0query", "document": "Mark0of0the0passage"}
_PROBE = ("what is a loan", "Money lent by a bank.")
_FILLERS = ("0", "1 2 3 4")  # whose tokens have none in common at their ends
_REMEDY = "Choose a reranker whose chat template puts query and document into one prompt"

Part = tuple[Literal["text", "query", "document"], str]


class RerankerPrompt(Protocol):
    """Turns pairs into what an LLM reranker reads.

    Attributes:
        answers: ids of the two tokens whose logits' difference is the score, or of the one whose logit is.
    """

    answers: tuple[int, ...]

    def token_ids(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], int]:
        """Return the ids of each pair's prompt, and how many passages were cut.

        Raises:
            EngineError: a query is so long that nothing of its passage would be read.
        """
        ...

    def head_lengths(self, queries: Sequence[str]) -> list[int]:
        """Return how many tokens of each query's prompt are no passage; nothing of it is read where they fill it."""
        ...


def load_prompt(options: EngineOptions) -> RerankerPrompt:
    """Prepare the prompt of an LLM reranker with its tokenizer.

    Raises:
        EngineError: the tokenizer cannot be loaded, or does not fit the prompt.
    """
    question = options.model.question
    if question.template is None:
        return YesNoPrompt.for_model(options)
    tokenizer = load_tokenizer(options.model.name)
    return ChatTemplatePrompt(tokenizer, question.template, question.answers, options.max_length)


def prompt_version(question: Question) -> str:
    """Return the name of a prompt, which differs where the prompt does."""
    return question.template.version if question.template else VERSION


class ChatTemplatePrompt:
    """The chat template of a model's folder, with the messages that sentence-transformers gives it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, answers: tuple[int, ...], max_length: int
    ) -> None:
        """Render the template, and see that its parts give what the whole gives.

        Raises:
            EngineError: the tokenizer has no fast implementation, the template fails, leaves out query or passage or
                has the passage more than once, or cannot be cut into parts.
        """
        self.answers = answers
        self._template, self._max_length = template, max_length
        self._plain = without_special_tokens(tokenizer)
        padded = {role: f" {mark} " for role, mark in _MARKS.items()}
        rendered = self._render(tokenizer, padded["query"], padded["document"])
        self._is_trimmed = {role: text not in rendered for role, text in padded.items()}
        rendered = self._render(tokenizer, *_MARKS.values())
        if _MARKS["query"] not in rendered or rendered.count(_MARKS["document"]) != 1:
            raise EngineError("the model's chat template leaves out query or document, or repeats it", _REMEDY)
        self._spans = self._split(tokenizer, rendered)
        whole = tokenizer(self._render(tokenizer, *_PROBE), add_special_tokens=False)["input_ids"]
        if self._encode([_PROBE])[0] != whole:
            raise EngineError("the tokenizer reads the parts of the chat template otherwise than the whole", _REMEDY)

    def token_ids(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], int]:
        """Return the ids of each pair's prompt, and how many passages were cut.

        Raises:
            EngineError: a query is so long that nothing of its passage would be read.
        """
        prompts = self._encode(pairs)
        too_long = [row for row, ids in enumerate(prompts) if len(ids) > self._max_length]
        for row in too_long:
            prompts[row] = self._cut(pairs[row][0], prompts[row])
        return prompts, len(too_long)

    def head_lengths(self, queries: Sequence[str]) -> list[int]:
        """Return how many tokens of each query's prompt are no passage; nothing of it is read where they fill it."""
        return [len(ids) - 1 for ids in self._encode([(query, _FILLERS[0]) for query in queries])]

    def _cut(self, query: str, ids: list[int]) -> list[int]:
        short, other = self._encode([(query, filler) for filler in _FILLERS])
        if len(short) > self._max_length:
            raise EngineError(
                f"with a query of {len(query)} characters no room is left for the passage "
                f"(query {quoted(repr(query), 60)})",
                f"Raise --max_length to at least {len(short)} tokens, or shorten the query",
            )
        same = [one == two for one, two in zip(reversed(short), reversed(other), strict=False)]
        behind = same.index(False)  # tokens after the passage
        return ids[: self._max_length - behind] + short[len(short) - behind :]

    def _encode(self, pairs: Sequence[Pair]) -> list[list[int]]:
        columns: list[list[list[int]]] = []
        for span in self._spans:
            if isinstance(span, int):
                columns.append([[span]] * len(pairs))
                continue
            texts = ["".join(self._fill(part, pair) for part in span) for pair in pairs]
            columns.append([encoding.ids for encoding in self._plain.encode_batch_fast(texts)])
        return [list(chain.from_iterable(row)) for row in zip(*columns, strict=True)]

    def _fill(self, part: Part, pair: Pair) -> str:
        kind, text = part
        if kind == "text":
            return text
        filling = pair[kind == "document"]
        return filling.strip() if self._is_trimmed[kind] else filling

    def _render(self, tokenizer: Any, query: str, passage: str) -> str:
        """Return the text of a prompt; transformers renders templates in a sandbox."""
        contents = {"query": query, "document": passage}
        if self._template.system is not None:
            contents = {"system": self._template.system, **contents}
        in_parts = self._template.contents == "parts"
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
            for role, text in contents.items()
        ]
        with rendering(_REMEDY):
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **self._template.settings))

    @staticmethod
    def _split(tokenizer: Any, rendered: str) -> list[int | list[Part]]:
        """Cut a rendered template into special tokens, as ids, and what is between them, as parts."""
        special: dict[str, int] = tokenizer.get_added_vocab()
        longest_first = sorted(special, key=len, reverse=True)
        between = re.split(f"({'|'.join(map(re.escape, longest_first))})", rendered) if special else [rendered]
        roles: dict[str, Literal["query", "document"]] = {_MARKS["query"]: "query", _MARKS["document"]: "document"}
        marks = re.compile(f"({'|'.join(roles)})")
        spans: list[int | list[Part]] = []
        for text in between:
            if text in special:
                spans.append(special[text])
            elif text:
                pieces = [piece for piece in marks.split(text) if piece]
                spans.append([(roles.get(piece, "text"), piece) for piece in pieces])
        return spans
