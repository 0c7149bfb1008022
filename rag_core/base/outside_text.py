"""Text that is not ours (names, ids, what a server says) on its way to a terminal, a log or a page."""

from __future__ import annotations

import os
import unicodedata

SECRETS = ("RAG_SERVER_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # environment variables that hold a key
_UNSEEN = {"Cc", "Cf", "Cs"}  # control and format characters, and halves of a character that cannot be written


def visible(text: str) -> str:
    """Return the text without what steers a terminal, hides text or tells a key; line ends and tabs stay."""
    text = "".join(it for it in text if it in "\n\t" or unicodedata.category(it) not in _UNSEEN)
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return text


def quoted(text: str, most: int = 100) -> str:
    """Return the text as one line of at most `most` characters, to stand in a sentence; its middle is left out."""
    short = len(text) <= 4 * most
    line = " ".join(visible(text if short else f"{text[: 2 * most]}…{text[-2 * most :]}").split())
    return line if len(line) <= most else f"{line[: most // 2]}…{line[most // 2 + 1 - most :]}"
