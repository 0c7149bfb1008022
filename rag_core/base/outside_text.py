"""Text that is not ours (names, ids, what a server says) on its way to a terminal, a log or a page."""

from __future__ import annotations

import os
import re
import unicodedata

SECRETS = (
    "RAG_SERVER_API_KEY",
    "RAG_MILVUS_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)  # environment variables that hold a key
_HALF = re.compile("[\ud800-\udfff]")  # of a character; Python makes one of each byte that is not UTF-8
_UNSEEN = {"Cc", "Cf", "Cs"}  # control and format characters, and halves of a character that cannot be written
_MOST_LINE = 2_000  # characters; a line of ours has a few hundred


def is_writable(text: str) -> bool:
    """Tell whether a text can be written as UTF-8."""
    return _HALF.search(text) is None


class _Characters(dict[int, int | None]):
    """What becomes of each character, by its number; looked up when it is first met."""

    def __missing__(self, number: int) -> int | None:
        character = chr(number)
        stays = character in "\n\t" or unicodedata.category(character) not in _UNSEEN
        self[number] = number if stays else None
        return self[number]


_CHARACTERS = _Characters()


def visible(text: str) -> str:
    """Return the text without what steers a terminal, hides text or tells a key; line ends and tabs stay."""
    text = text.translate(_CHARACTERS)
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return text


def quoted(text: str, most: int = 100) -> str:
    """Return the text as one line of at most `most` characters, to stand in a sentence; its middle is left out."""
    return _shortened(" ".join(visible(text).split()), most)


def reason(error: BaseException, most: int = 200) -> str:
    """Return what an error says as one line, or its kind where it says nothing."""
    return quoted(str(error), most) or type(error).__name__


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of what an error says, where the others say how it came about."""
    return quoted(str(error).partition("\n")[0], most)


def one_line(text: str) -> str:
    """Return a sentence with outside text in it as one line of bearable length."""
    return _shortened(" ".join(visible(text).splitlines()), _MOST_LINE)


def for_screen(text: str) -> str:
    """Return lines with outside text in them, each of bearable length."""
    return "\n".join(_shortened(line, _MOST_LINE) for line in visible(text).split("\n"))


def _shortened(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most // 2]}…{line[most // 2 + 1 - most :]}"
