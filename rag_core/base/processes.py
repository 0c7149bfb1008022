"""Which of several processes this one is."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Tell whether this process owns the outputs: of several that torchrun starts, the first one does."""
    return os.environ.get("RANK", "0") == "0"
