"""What an LLM is asked when it writes the query of a passage, and what is taken of its answer.

After Bonifacio et al. 2022, "InPars: Data Augmentation for Information Retrieval using Large Language Models",
arXiv:2202.05144, without examples: a model that follows instructions needs none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag_core.engines.generation import Prompt, Sampling, TextGenerator
from rag_core.retrieval.analyser import count_words

VERSION = "one-query-1"
SAMPLING = Sampling(max_new_tokens=64)  # the most probable answer

_QUESTION = (
    "Write the one search query that the passage below answers best, in the words of someone who has not read it. "
    "Answer with the query and nothing else.\n\nPassage: "
)
_MOST_WORDS = 40


def write_queries(model: TextGenerator, passages: Sequence[str]) -> list[str | None]:
    """Return one query for each passage; `None` where the answer is none.

    Raises:
        EngineError: as the model raises.
    """
    answers = model.generate([Prompt(_QUESTION, passage) for passage in passages], SAMPLING)
    return [read_answer(answer.text) for (answer,) in answers]


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
