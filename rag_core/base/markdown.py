"""Markdown with text in it that is not ours: what the text spells is shown, and is no markup."""

from __future__ import annotations

import re

from rag_core.base.outside_text import visible

# An underscore within a word is none of emphasis, and names are full of them.
_MARKUP = re.compile(r"[\\`*{}\[\]<>|~$&]|#|(?<![^\W_])_|_(?![^\W_])")
_FIRST = re.compile(r"^(\d*)([-+=.)])(?=\s|$)")  # of a list, or below a heading


def escaped(text: str) -> str:
    """Return a text as one line that Markdown shows as it is."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(visible(text).split()))
    return _FIRST.sub(r"\1\\\2", line)


def code(text: str) -> str:
    """Return a text as a code span of one line."""
    line = " ".join(visible(text).split())
    ticks = _longer_than_any(line, 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" or not line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def code_block(language: str, text: str) -> str:
    """Return a text as a code block; no line of it ends the block."""
    shown = visible(text)
    ticks = _longer_than_any(shown, 3)
    return f"{ticks}{language}\n{shown}\n{ticks}"


def table_cell(text: str) -> str:
    """Return a text that may have markup as the cell of a table, which ends at the next `|` or line end."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\|", r"\1\\|", re.sub(r"\s*[\r\n]\s*", " ", visible(text)))


def _longer_than_any(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
