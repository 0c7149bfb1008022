"""The errors a user can cause; `stage.run_stage` turns each into one sentence and an exit code."""

from __future__ import annotations

from pathlib import Path

from rag_core.base.outside_text import one_line


class PipelineError(Exception):
    """Say what is wrong, where, and what to do about it.

    `str(error)` is `path:line: what. remedy.`, without the parts that are unknown, and one line whatever stands in it.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str, *, path: Path | str | None = None, line: int | None = None) -> None:
        super().__init__(what, remedy)  # what pickle makes it from, when it comes from another process
        self.what = what
        self.remedy = remedy
        self.path = path
        self.line = line

    def __str__(self) -> str:
        place = "" if self.path is None else f"{self.path}: " if self.line is None else f"{self.path}:{self.line}: "
        return one_line(f"{place}{self.what.rstrip('.')}. {self.remedy.rstrip('.')}.")


class DataError(PipelineError):
    """A file's content, or the lack of the file, is at fault."""


class StaleError(PipelineError):
    """A file does not belong to the settings or the input it is used with."""


class EngineError(PipelineError):
    """A model cannot be loaded, or what it computes cannot be trusted."""


class HubError(PipelineError):
    """A model hub refuses what is sent to it, or is out of reach."""


class UsageError(PipelineError):
    """The flags contradict each other."""

    exit_code = 2
