"""The folder `<output>.partial` of work that takes long: whose it is, and what it was begun with."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rag_core.base.errors import StaleError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.processes import is_main_process
from rag_core.files.atomic import atomic_write, check_place, exchange, is_open_at, open_locked, sync_directory
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
_EMPTY = {_LOCK, RECIPE_FILE, f".{RECIPE_FILE}.tmp"}  # what stands in a folder in which nothing is done yet

logger = logging.getLogger(__name__)


class UnfinishedWork:
    """A context manager that holds the lock of the folder, so that one run at a time works on an output."""

    def __init__(
        self,
        output: Path,
        recipe: Recipe,
        *,
        overwrite: bool,
        afresh: bool = False,
        conflicts: Sequence[str] = (),
        ignoring: Collection[str] = (),
        before: Sequence[Path] = (),
    ) -> None:
        """Prepare it.

        Args:
            overwrite: whether what an earlier run of other settings left is dropped.
            afresh: whether what any earlier run left is dropped.
            conflicts: what else than the recipe stands against going on, one phrase each, as of
                `Recipe.differences`.
            ignoring: what of the recipe may be another, since it has no say in what is kept: as in
                `Recipe.differences`.
            before: files with manifests of their own that are written before the output, under the same recipe.
        """
        self.directory = unfinished_folder(output)
        self._output = output
        self._recipe = recipe
        self._overwrite = overwrite
        self._afresh = afresh
        self._conflicts = conflicts
        self._ignoring = ignoring
        self._files = [*before, output]

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
        self._lock: IO[bytes] | None = None
        if not is_main_process():
            self.directory.mkdir(parents=True, exist_ok=True)
            return self
        self._lock = self._take_lock()
        try:
            self._take_over()
            self._were_there = {path: _identity(path) for path in self._files}
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; where nothing is done yet, nothing stands in the way of other settings."""
        if self._lock is None:
            return
        with self._lock as lock:
            if not is_open_at(lock, self.directory / _LOCK):  # removed, or that of a run that began after that
                return
            # Of a run that ended between output and manifest, the recipe alone tells whose the output is.
            made = [path for path in self._files if path.exists() and not manifest_path(path).exists()]
            tells = any(self._goes_on or _identity(path) != self._were_there[path] for path in made)
            if not tells and {entry.name for entry in self.directory.iterdir()} <= _EMPTY:
                _remove(self.directory)

    def remove(self) -> None:
        """Delete the folder, once the output is finished."""
        _remove(self.directory)

    def _take_lock(self) -> IO[bytes]:
        while True:
            if foreign := _foreign(self.directory):
                raise StaleError(foreign, "Move it, or choose another output", path=self.directory)
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                lock = open_locked(self.directory / _LOCK)
            except FileNotFoundError:  # the process that had it has just finished, and removed its folder
                continue
            except BlockingIOError as error:
                raise StaleError(
                    "another process is working on this output",
                    "Wait for it, or choose another output",
                    path=self.directory,
                ) from error
            return lock

    def _take_over(self) -> None:
        differences = unfinished_differences(self._output, self._recipe, ignoring=self._ignoring)
        if differences is not None:
            differences += self._conflicts
        self._goes_on = differences == []
        if differences and not self._overwrite:
            raise StaleError(
                f"holds unfinished work made with other settings: {'; '.join(differences)}",
                "Use the former settings to go on, or pass --overwrite to start afresh",
                path=self.directory,
            )
        if differences != [] or self._afresh:
            _clear(self.directory)
        if unfinished_differences(self._output, self._recipe) != []:
            try:
                with atomic_write(self.directory / RECIPE_FILE) as file:
                    file.write(json.dumps(asdict(self._recipe), indent=2).encode())
            except BaseException:
                shutil.rmtree(self.directory)  # nothing but the lock is in it
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from another that takes its place; `None` where there is none."""
    found = path.lstat() if os.path.lexists(path) else None
    return found and (found.st_ino, found.st_mtime_ns)


def is_finished(output: Path, recipe: Recipe) -> bool:
    """Tell whether an output is made, and say so; what a kill right after that left behind is removed.

    Raises:
        StaleError: as `manifest.is_made`.
    """
    if not is_made(output, recipe):
        return False
    logger.info("%s is finished already", output)
    remove_left_behind(output, recipe)
    return True


def remove_left_behind(output: Path, recipe: Recipe) -> None:
    """Remove the folder of the work that made an output, unless another process works there."""
    directory = unfinished_folder(output)
    if not is_main_process() or not directory.is_dir() or _foreign(directory):
        return
    if unfinished_differences(output, recipe):
        return  # work on another output of that name, which is to take the place of this one
    with contextlib.suppress(BlockingIOError, FileNotFoundError), open_locked(directory / _LOCK):
        _remove(directory)


def check_apart(output: Path, recipe: Recipe) -> None:
    """Check that an output is none of the inputs that it is made from, however their paths are spelled.

    Raises:
        UsageError: it is.
    """
    for path in map(Path, recipe.inputs):
        same = os.path.realpath(output) == os.path.realpath(path)
        if same or (output.exists() and path.exists() and output.samefile(path)):
            raise UsageError(f"{path} is input and output", "Choose another output")


def _remove(directory: Path) -> None:
    """Delete a folder of unfinished work, its recipe last: what a kill leaves of it is still known as ours."""
    _clear(directory)
    (directory / RECIPE_FILE).unlink(missing_ok=True)
    (directory / _LOCK).unlink()
    with contextlib.suppress(OSError):  # another process has just put its lock there
        directory.rmdir()


def _clear(directory: Path) -> None:
    """Empty a folder of unfinished work but for its lock and its recipe, which tells that it is ours.

    A folder in it, such as a checkpoint, has another name first: what a kill leaves of it is not taken for a whole one.
    """
    removed = directory / ".removed"
    for entry in sorted(directory.iterdir(), key=lambda entry: entry != removed):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry if entry == removed else entry.rename(removed))
        elif entry.name not in (_LOCK, RECIPE_FILE) or not entry.is_file():  # a pipe is no recipe
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


def _foreign(directory: Path) -> str | None:
    """Return why a folder was not made by a run of ours, which has a recipe before anything else but the lock."""
    if directory.is_symlink():
        return "is a link, which is not followed"
    try:
        names = {entry.name for entry in directory.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    others = names - _EMPTY
    if others and RECIPE_FILE not in names:
        return f"has files that are of no run of ours ({min(others)}), and would be emptied"
    return None


def save_whole(output_dir: Path, unfinished: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside, and put it in the place of the old one in one step.

    At every moment a whole folder stands there, the old one or the new.
    """
    _fill(unfinished, write)
    manifest_path(output_dir).unlink(missing_ok=True)  # it is not of the new one, should this be killed now
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    if output_dir.exists():
        exchange(unfinished, output_dir)
        shutil.rmtree(unfinished)  # the old one
    else:
        unfinished.rename(output_dir)
    sync_directory(output_dir.parent)


def save_together(
    output_dir: Path, unfinished: Path, write: Callable[[Path], None], *, names: Sequence[str], kept: str | None = None
) -> None:
    """Let `write` fill a folder beside, and put its files in the place of the old ones, in one step where that can be.

    It can where nothing else stands in the folder. What others have put there is not touched: the old files are removed
    and the new ones move in one by one, so that a kill may leave some of them, but none beside one of the other kind.

    Args:
        names: of the files, that by which a reader knows that they are there first.
        kept: the name of a folder of ours in `output_dir`, which stays as it is, where there is one.
    """
    _fill(unfinished, write)
    folder = output_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ours = {*names, kept} if kept else {*names}
    if _is_ours_alone(folder, ours):
        if kept and (folder / kept).exists():
            shutil.copytree(folder / kept, unfinished / kept, copy_function=_link)
        exchange(unfinished, folder)
        for name in {entry.name for entry in unfinished.iterdir()} - ours:  # came in the meantime
            (unfinished / name).rename(folder / name)
        shutil.rmtree(unfinished)  # the old one
    else:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        for name in reversed(names):
            (unfinished / name).rename(folder / name)
        unfinished.rmdir()
    sync_directory(folder)
    sync_directory(folder.parent)


def _fill(folder: Path, write: Callable[[Path], None]) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write(folder)


def _is_ours_alone(folder: Path, names: Collection[str]) -> bool:
    """Tell whether a folder may change places with another: no one else has files in it, or stands in it."""
    return (
        folder.is_dir()
        and not folder.is_mount()
        and not Path.cwd().is_relative_to(folder)
        and all(entry.name in names for entry in folder.iterdir())
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
