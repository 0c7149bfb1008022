"""What every source offers to `prepare`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rag_core.files.bad_rows import BadRows
from rag_core.sources.splits import Splits


class Source(Protocol):
    """A source knows its splits and input files before anything long begins."""

    @property
    def splits(self) -> Sequence[str]:
        """The splits it will give, one output each."""

    @property
    def inputs(self) -> Sequence[Path]:
        """The local files that it reads."""

    @property
    def flags(self) -> Mapping[str, Any]:
        """What else determines the samples."""

    @property
    def instruction(self) -> str | None:
        """The task in the words of the teacher's prompt, `None` where it is not known."""

    @property
    def mined(self) -> Mapping[str, int]:
        """After `read`: how many candidates were found by what; empty where a source has its own."""

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read all splits; count in `dropped` what is left out, and give bad rows to `bad_rows`."""
