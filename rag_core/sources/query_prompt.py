"""What an LLM is asked when it writes the query of a passage, and what is taken of its answer.

After Bonifacio et al. 2022, "InPars: Data Augmentation for Information Retrieval using Large Language Models",
arXiv:2202.05144. A model that follows instructions needs no examples; a small one needs them, and no instructions: told
the task in a chat, SmolLM2-135M spoke of the task in 35 of 50 answers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from rag_core.base.records import Text
from rag_core.engines.generation import Prompt, Sampling, TextGenerator
from rag_core.retrieval.analyser import count_words

Style = Literal["chat", "completion"]

VERSION = "one-query-2"  # of what is asked, and of the examples

_TASK = (
    "Write the one search query that the passage below answers best, in the words of someone who has not read it. "
    "Answer with the query and nothing else.\n\n"
)
_MOST_WORDS = 40
_MOST_TOKENS = 64


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="ignore"))
class Example:
    """A passage, and a query that it answers."""

    passage: Text
    query: Text


# Of a domain that few corpora are about: where examples and passages are alike, a weak model copies the examples. The
# queries name what only their passage is about; behind "how to" and "why", SmolLM2-135M asked "what is leukemia", and
# 63 of 120 queries did not find their passage.
EXAMPLES = (
    Example(
        "Coffee on a wool carpet. Blot a fresh spill with a dry cloth and never rub it. Cold water with a spoonful of "
        "white vinegar, dabbed from the edge inwards, lifts the stain.",
        "white vinegar against coffee stains in wool carpets",
    ),
    Example(
        "Storing potatoes over winter. Warmth and light end the rest of the tuber, and it grows shoots. In a dark, "
        "airy cellar a harvest keeps until spring, away from apples, whose gas wakes the buds.",
        "gas of apples makes stored potatoes sprout",
    ),
    Example(
        "Belts instead of bicycle chains. A belt needs no oil and makes no sound, but the frame must have a gap for "
        "it. With a gear hub it lasts four times as long as a chain.",
        "lifetime of a belt drive with a gear hub compared to a chain",
    ),
)


@dataclasses.dataclass(frozen=True)
class QueryPrompt:
    """How a query is asked for.

    Attributes:
        style: "chat" tells the task in a turn of a user; "completion" shows examples, and the model goes on.
    """

    style: Style = "chat"
    examples: Sequence[Example] = ()

    @property
    def sampling(self) -> Sampling:
        """How the answer is written: the most probable one."""
        return Sampling(_MOST_TOKENS, stop=("\n",) if self.style == "completion" else ())

    def of(self, passage: str) -> Prompt:
        """Return what is asked about a passage."""
        shown = "".join(f"Passage: {_flat(one.passage)}\nQuery: {_flat(one.query)}\n\n" for one in self.examples)
        task = _TASK if self.style == "chat" else ""
        if not shown and task:
            return Prompt(f"{task}Passage: ", passage, style=self.style)
        return Prompt(f"{task}{shown}Passage: ", _flat(passage), "\nQuery:", self.style)


def write_queries(model: TextGenerator, passages: Sequence[str], prompt: QueryPrompt) -> list[str | None]:
    """Return one query for each passage; `None` where the answer is none.

    Raises:
        EngineError: as the model raises.
    """
    answers = model.generate([prompt.of(passage) for passage in passages], prompt.sampling)
    return [read_answer(answer.text) for (answer,) in answers]


def _flat(text: str) -> str:
    return " ".join(text.split())


def read_answer(answer: str) -> str | None:
    """Return the query in an answer: its first line, without marks around it; `None` where that is none.

    Thoughts are no query, be they ended or cut short by the length of an answer.
    """
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    if "<think>" in answer:
        return None
    line = answer.strip().partition("\n")[0].strip().strip("\"'`*").strip()
    line = re.sub(r"^(search )?query:\s*", "", line, flags=re.IGNORECASE)
    return line if line and count_words(line) <= _MOST_WORDS else None
