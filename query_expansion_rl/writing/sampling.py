"""Expansions of queries by a language model, and what they are like as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from query_expansion_rl.records import Expansion, Topic
from query_expansion_rl.writing.forms import Form
from rag_core.engines.generation import Sampling, TextGenerator

_MOST_CUT = 0.5  # of the answers; of more, the number of tokens decides what is written


def write_expansions(
    model: TextGenerator, form: Form, topics: Sequence[Topic], sampling: Sampling, method: str
) -> Iterator[Expansion]:
    """Yield the expansions of topics, in their order: `num_samples` of each.

    Raises:
        EngineError: as the model raises.
    """
    answers = model.generate([form.prompt(topic.query) for topic in topics], sampling)
    for topic, found in zip(topics, answers, strict=True):
        for sample, answer in enumerate(found):
            yield Expansion(
                query_id=topic.query_id,
                method=method,
                sample=sample,
                text=form.read(answer.text, topic.query, cut=answer.cut),
                tokens=answer.tokens,
                cut=answer.cut,
            )


@dataclass
class Census:
    """Counts of expansions.

    Attributes:
        cut: ended by --max_new_tokens.
        empty: answers that were no expansion.
        distinct: texts that are the first of their kind for their query.
    """

    rows: int = 0
    tokens: int = 0
    cut: int = 0
    empty: int = 0
    distinct: int = 0

    def counted(self, expansions: Iterable[Expansion]) -> Iterator[Expansion]:
        """Yield what it is given, and count it; the rows of a query stand together."""
        query, seen = "", set[str]()
        for one in expansions:
            if one.query_id != query:
                query, seen = one.query_id, {""}
            self.rows += 1
            self.tokens += one.tokens
            self.cut += one.cut
            self.empty += not one.text
            self.distinct += one.text not in seen
            seen.add(one.text)
            yield one

    def warnings(self, form: Form) -> list[str]:
        """Return what is wrong with the expansions, in sentences."""
        found = []
        if self.cut > _MOST_CUT * self.rows:
            found.append(
                f"{self.cut / self.rows:.0%} of the answers were cut at {form.max_new_tokens} tokens, and their last "
                f"items left out. Pass --max_new_tokens {2 * form.max_new_tokens}, or train the model to end (train "
                "--method rft)"
            )
        if self.empty > _MOST_CUT * self.rows:
            found.append(
                f"{self.empty / self.rows:.0%} of the answers hold no expansion. Choose another --prompt_style, or "
                "another model"
            )
        return found
