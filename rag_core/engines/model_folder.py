"""A model's folder as others left it: whether what stands in it may be read, and what is said where that fails.

Links out of it would put files of this machine into a copy or an upload, and a FIFO is never read to its end.
"""

from __future__ import annotations

import json
import os
import pickle
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rag_core.base.errors import EngineError, PipelineError
from rag_core.base.outside_text import reason

_SPECIAL = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}

_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")


def check_entries(folder: Path, *, is_sent: bool = False) -> None:
    """Check that a folder holds files and folders, and links to files in it. It may be reached through a link itself.

    A snapshot in a cache of the hub consists of links to the blobs of that cache. They may be read, but not sent.

    Raises:
        EngineError: something else stands there.
    """
    root = folder.resolve()
    places = [root, *([] if is_sent else _blobs(root))]
    for path in _entries(root):
        if what := _why_not(path, places):
            raise EngineError(what, _remedy(path), path=folder / path.relative_to(root))


def _entries(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):  # links are not followed
        yield from (Path(directory, name) for name in sorted([*folders, *files]))


def _why_not(path: Path, places: Sequence[Path]) -> str | None:
    """Return why an entry is refused, `None` where it is not."""
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode):
        return _special(mode)
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # to nothing, or to itself
        return "is a link that leads nowhere"
    if not any(target.is_relative_to(place) for place in places):
        return "is a link that leads out of the model's folder"
    if target.is_dir():
        return "is a link to a folder, which may lead round in circles"
    return _special(target.stat().st_mode)


def _special(mode: int) -> str | None:
    return next((f"is {what}, and no file" for is_one, what in _SPECIAL.items() if is_one(mode)), None)


def _remedy(path: Path) -> str:
    return "Put a copy of what it leads to in its place, or remove it" if path.is_symlink() else "Remove it"


def _blobs(folder: Path) -> list[Path]:
    """Return where the files of a snapshot in a cache of the hub stand; newer caches share them between models."""
    for snapshot in (folder, *folder.parents):
        cached = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and cached.name.startswith("models--"):
            return [cached / "blobs", cached.parent / "blobs"]
    return []


@contextmanager
def loading(name: str, what: str = "model") -> Iterator[None]:
    """Turn whatever libraries raise when they load a model into one error; nothing but their calls stands within.

    A damaged file gives whatever the first line does that reads it, so no list of exceptions is long enough.

    Raises:
        EngineError: it cannot be loaded, or has no tokenizer.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PipelineError | MemoryError):
            raise
        raise unloadable(name, error, what) from error


def unloadable(name: str, error: Exception, what: str = "model") -> EngineError:
    """Return the error for a model that is not there, or cannot be read: the file that is damaged, where one is."""
    found = _damaged_file(name)
    if "ignore_mismatched_sizes" in str(error):  # what the report that transformers names is not shown for
        found = "its weights have other shapes than config.json says"
    if found is None and _lacks_tokenizer(name):
        return no_tokenizer(name)
    return EngineError(
        f"cannot load the {what} {name!r} ({found or reason(error)})",
        "Check the name or folder, the network, and for gated models the access token (hf auth login)",
    )


def _lacks_tokenizer(name: str) -> bool:
    """Tell whether a name is a model's folder without a file that could be of a tokenizer."""
    folder = Path(name)
    is_model = any((folder / file_name).is_file() for file_name in ("config.json", "modules.json"))
    return is_model and not any(True for pattern in _TOKENIZER for _ in folder.rglob(pattern))


def no_tokenizer(name: str) -> EngineError:
    """Return the error for a model without a tokenizer."""
    return EngineError(
        f"{name} has no tokenizer", "Copy tokenizer.json and tokenizer_config.json of its origin into it"
    )


def _damaged_file(name: str) -> str | None:
    """Return which file of a folder does not read, and why: libraries seldom say it. `None` where each does."""
    if not Path(name).is_dir():
        return None
    damages = ((path, damage(path)) for path in sorted(Path(name).rglob("*")))
    return next((f"{path.relative_to(name)}: {what}" for path, what in damages if what), None)


def damage(path: Path) -> str | None:
    """Return why JSON or weights do not read, `None` where they do, and of every other file."""
    try:
        _read(path)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return reason(error)
    return None


def _read(path: Path) -> None:
    if not path.is_file():
        return
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name.endswith(("config.json", "tokenizer.json")) and not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            file.keys()
    elif path.suffix == ".bin" and path.name.startswith(("pytorch_model", "adapter_model")):
        import torch

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.load(path, map_location="meta", weights_only=True)
        except pickle.UnpicklingError as error:  # whose text tells how to run whatever stands there
            raise ValueError("it is damaged, or holds more than tensors") from error
