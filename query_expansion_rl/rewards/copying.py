"""Whether an expansion is taken word for word from a text."""

from __future__ import annotations

from collections.abc import Iterable

from rag_core.retrieval.analyser import fold, words

# Terms of a field are phrases of some words ("age related macular degeneration"), and stand so in passages, too.
SHORTEST = 5


def spaced(text: str) -> str:
    """Return the words of a text, in lower case and with one space around each, for `longest_span`."""
    return f" {' '.join(words(fold(text)))} "


def longest_span(text: str, others: Iterable[str]) -> int:
    """Return how many words in a row of a text stand so in another; 0 where it is less than `SHORTEST`.

    Args:
        text, others: as `spaced` gives them.
    """
    own = text.split()
    longest = SHORTEST - 1
    for other in others:
        start = 0
        while start + longest < len(own):
            if f" {' '.join(own[start : start + longest + 1])} " in other:
                longest += 1
            else:
                start += 1
    return longest if longest >= SHORTEST else 0
