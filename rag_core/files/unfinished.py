"""The folder `<output>.partial` of work that takes long: whose it is, and what it was begun with."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from rag_core.base.errors import StaleError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.processes import is_main_process
from rag_core.files.atomic import atomic_write, check_place, exchange, sync_directory
from rag_core.files.manifest import (
    RECIPE_FILE,
    Recipe,
    is_made,
    manifest_path,
    unfinished_differences,
    unfinished_folder,
)

_LOCK = "lock"
_LONGEST_NAME = 255  # bytes, on nearly every file system

logger = logging.getLogger(__name__)


class UnfinishedWork:
    """A context manager that holds the lock of the folder, so that one run at a time works on an output."""

    def __init__(
        self,
        output: Path,
        recipe: Recipe,
        *,
        overwrite: bool,
        conflicts: Sequence[str] = (),
        ignoring: Collection[str] = (),
    ) -> None:
        """Prepare it.

        Args:
            overwrite: whether what an earlier run of other settings left is dropped.
            conflicts: what else than the recipe stands against going on, one phrase each, as of
                `Recipe.differences`.
            ignoring: what of the recipe may be another, since it has no say in what is kept: as in
                `Recipe.differences`.
        """
        self.directory = unfinished_folder(output)
        self._output = output
        self._recipe = recipe
        self._overwrite = overwrite
        self._conflicts = conflicts
        self._ignoring = ignoring

    def __enter__(self) -> Self:
        """Take the lock; keep what an earlier run of the same recipe left, and with `overwrite` drop any other's.

        Of several processes that torchrun started, only the first takes the lock, for all.

        Raises:
            UsageError: the output is an input, too, or cannot be one.
            StaleError: another process works on this output, the unfinished work has another recipe, or the folder is
                not one of ours.
        """
        _check_name(self._output)
        check_apart(self._output, self._recipe)
        _check_ours(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / _LOCK).open("a")
        if not is_main_process():
            return self
        try:
            self._take_over()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; where nothing was done before an error, nothing stands in the way of other settings."""
        if error is not None and is_main_process() and self.directory.is_dir():
            names = {entry.name for entry in self.directory.iterdir()}
            if names <= {_LOCK, RECIPE_FILE}:
                remove_unfinished(self.directory)
        self._lock.close()

    def remove(self) -> None:
        """Delete the folder, once the output is finished."""
        remove_unfinished(self.directory)

    def _take_over(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StaleError(
                "another process is working on this output",
                "Wait for it, or choose another output",
                path=self.directory,
            ) from error
        differences = unfinished_differences(self._output, self._recipe, ignoring=self._ignoring)
        if differences is not None:
            differences += self._conflicts
        if differences and not self._overwrite:
            raise StaleError(
                f"holds unfinished work made with other settings: {'; '.join(differences)}",
                "Use the former settings to go on, or pass --overwrite to start afresh",
                path=self.directory,
            )
        if differences != []:
            _clear(self.directory)
        if unfinished_differences(self._output, self._recipe) != []:
            try:
                with atomic_write(self.directory / RECIPE_FILE) as file:
                    file.write(json.dumps(asdict(self._recipe), indent=2).encode())
            except BaseException:
                shutil.rmtree(self.directory)  # nothing but the lock is in it
                raise


def is_finished(output: Path, recipe: Recipe) -> bool:
    """Tell whether an output is made, and say so; what a kill right after that left behind is removed.

    Raises:
        StaleError: as `manifest.is_made`.
    """
    if not is_made(output, recipe):
        return False
    logger.info("%s is finished already", output)
    remove_left_behind(output)
    return True


def remove_left_behind(output: Path) -> None:
    """Remove the folder of unfinished work on an output that is finished, unless another process works there."""
    directory = unfinished_folder(output)
    if directory.is_symlink() or not (directory / RECIPE_FILE).is_file() or not is_main_process():
        return
    with (directory / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        remove_unfinished(directory)


def check_apart(output: Path, recipe: Recipe) -> None:
    """Check that an output is none of the inputs that it is made from, however their paths are spelled.

    Raises:
        UsageError: it is.
    """
    for path in map(Path, recipe.inputs):
        same = os.path.realpath(output) == os.path.realpath(path)
        if same or (output.exists() and path.exists() and output.samefile(path)):
            raise UsageError(f"{path} is input and output", "Choose another output")


def remove_unfinished(directory: Path) -> None:
    """Delete a folder of unfinished work, its recipe last: what a kill leaves of it is still known as ours."""
    _clear(directory)
    shutil.rmtree(directory)


def _clear(directory: Path) -> None:
    """Empty a folder of unfinished work but for its lock, the recipe last."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == RECIPE_FILE):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def _check_name(output: Path) -> None:
    """Check that there is room for an output, its manifest, and the file that the latter is written to first.

    Raises:
        UsageError: its name is too long, or as `check_place`.
    """
    for path in (output, manifest_path(output)):
        check_place(path)
    longest = len(os.fsencode(f".{manifest_path(output).name}.tmp"))
    if longest > _LONGEST_NAME:
        raise UsageError(
            f"the name of the output {quoted(output.name)} is too long by {longest - _LONGEST_NAME} bytes, with those "
            "of the files beside it",
            "Choose a shorter name",
        )


def _check_ours(directory: Path) -> None:
    """Check that a folder was made by a run of ours, which has a recipe before anything else but the lock.

    Raises:
        StaleError: it is a link, or has files and no recipe.
    """
    if directory.is_symlink():
        raise StaleError("is a link, which is not followed", "Remove it", path=directory)
    if not directory.is_dir():
        return
    names = {entry.name for entry in directory.iterdir()} - {_LOCK, f".{RECIPE_FILE}.tmp"}
    if names and RECIPE_FILE not in names:
        raise StaleError(
            f"has files that are of no run of ours ({min(names)}), and would be emptied",
            "Move it, or choose another output",
            path=directory,
        )


def save_whole(output_dir: Path, unfinished: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside, and put it in the place of the old one in one step.

    At every moment a whole folder stands there, the old one or the new.
    """
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    write(unfinished)
    manifest_path(output_dir).unlink(missing_ok=True)  # it is not of the new one, should this be killed now
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    if output_dir.exists():
        exchange(unfinished, output_dir)
        shutil.rmtree(unfinished)  # the old one
    else:
        unfinished.rename(output_dir)
    sync_directory(output_dir.parent)
