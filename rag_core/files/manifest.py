"""`<output>.manifest.json`: what made a file. Written last, checked first."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from rag_core.base.errors import DataError, StaleError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_json, sha256
from rag_core.files.manifest_shape import MANIFEST, RECIPE, shape_fault
from rag_core.files.provenance import provenance

RECIPE_FILE = "recipe.json"

MIX = "mix.json"
"""How a model's scores are mixed with those of others: it has no say in what the model of its folder computes."""

_ADDED_LATER = ("README.md", MIX)  # to a finished model, or changed there

_TAKE_AS_FOREIGN = "Delete it to use its file without a manifest"
_ELSEWHERE = "Pass --overwrite to replace it, or choose another output"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines a file's content; two runs with the same recipe make the same file.

    Attributes:
        stage: the module that makes the file.
        flags: those that decide the content (no batch sizes of inference, no paths).
        inputs: input path -> SHA-256 of its content.
        model: identity of the model that was used, see `engines.identity.ModelInfo`.
    """

    stage: str
    flags: Mapping[str, Any]
    inputs: Mapping[str, str]
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def differences(self, other: Mapping[str, Any], *, ignoring: Collection[str] = ()) -> list[str]:
        """Describe what differs from a stored recipe, one phrase per difference.

        Args:
            ignoring: flags that may differ, and "inputs" where the content of the input may.
        """
        mine = json.loads(json.dumps(dataclasses.asdict(self)))
        found = []
        for part in ("stage", "flags", "inputs", "model"):
            here, there = mine.get(part), other.get(part)
            if part == "inputs":  # by content: a file may be moved
                if part not in ignoring and sorted(here.values()) != sorted((there or {}).values()):
                    found.append("the content of the input")
            elif isinstance(here, dict) and isinstance(there, dict):
                for key in [*here, *(key for key in there if key not in here)]:
                    if here.get(key) != there.get(key) and not (part == "flags" and key in ignoring):
                        name = f"--{key}" if part == "flags" else f"{part} {key}"
                        found.append(f"{name} ({_change(there.get(key), here.get(key))})")
            elif here != there:
                found.append(f"{part} ({_change(there, here)})")
        return found


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is written beside an output.

    Attributes:
        recipe: as it was stored, see `Recipe`.
        output: path, and SHA-256 of a file or sizes of a folder's files.
        command: that made it.
        facts: what the stage says of it besides: counts, settings without effect.
    """

    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    output: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def flags(self) -> Mapping[str, Any]:
        """The flags that decided the output."""
        return self.recipe.get("flags") or {}

    @property
    def model(self) -> Mapping[str, Any] | None:
        """The identity of the model that was used; `None` where there was none."""
        return self.recipe.get("model") or None

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """The identity of the teacher of what was made, `None` where nobody knows."""
        return self.facts.get("teacher")

    @property
    def score_unit(self) -> str | None:
        """The unit of the scores in a file."""
        return self.facts.get("score_unit")

    @property
    def instruction(self) -> str | None:
        """The task of a file's queries, in the words of a teacher's prompt."""
        return self.facts.get("instruction")

    @property
    def rows(self) -> int | None:
        """The number of rows."""
        return self.facts.get("rows")

    def numbers(self, name: str) -> dict[str, float]:
        """Return a fact that is a table of numbers, without what is none; empty where it is something else."""
        told = self.facts.get(name)
        return {key: float(value) for key, value in told.items() if _is_number(value)} if isinstance(told, dict) else {}

    def number(self, name: str) -> float | None:
        """Return a fact that is a number; `None` where it is none."""
        value = self.facts.get(name)
        return float(value) if _is_number(value) else None

    @property
    def skipped(self) -> Mapping[str, int]:
        """What was left out, by reason."""
        return self.facts.get("skipped") or {}


def _is_number(value: object) -> TypeGuard[float]:
    """Tell whether it is one that a figure may be: JSON may also have NaN, and whole numbers of any length."""
    return isinstance(value, int | float) and abs(value) < 1e15


UNKNOWN = Manifest()
"""Stands for the manifest of a file from elsewhere."""


def manifest_path(output: Path) -> Path:
    """Return where the manifest of a file or a model folder stands."""
    return _beside(output, ".manifest.json")


def _beside(output: Path, suffix: str) -> Path:
    named = output if output.name else output.absolute()  # "." has no name
    return named.parent / f"{named.name}{suffix}"


def write_manifest(output: Path, recipe: Recipe, *, place: Path | None = None, **facts: Any) -> None:
    """Write the manifest of a finished output.

    Args:
        place: where the output will stand, if it is moved there with its manifest.
        facts: counts, the score unit, settings without effect.
    """
    content = {
        "recipe": dataclasses.asdict(recipe),
        "output": {"path": str(place or output)} | _content(output),
        **facts,
        **provenance(),
    }
    with atomic_write(manifest_path(output)) as file:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        file.write(text.encode(errors="backslashreplace") + b"\n")  # a path need not be UTF-8; these are JSON's escapes


def read_manifest(output: Path) -> Manifest | None:
    """Return the manifest of a file or a model folder, `None` where there is none.

    Raises:
        DataError: what stands there is not one.
    """
    path = manifest_path(output)
    if not os.path.lexists(path):
        return None
    content = read_json(path, _TAKE_AS_FOREIGN)
    if fault := shape_fault(content, MANIFEST):
        raise DataError(f"is not a manifest ({fault})", _TAKE_AS_FOREIGN, path=path)
    known = {name: content.pop(name, default) for name, default in (("recipe", {}), ("output", {}), ("command", ""))}
    return Manifest(**known, facts=content)


def _change(was: object, now: object) -> str:
    return f"was {quoted(repr(was))}, is {quoted(repr(now))}"


def task_instruction(sources: Sequence[Path]) -> str | None:
    """Return the task instruction that the manifests of the sources carry, `None` where they carry none.

    Raises:
        UsageError: they carry different ones.
    """
    found = {(read_manifest(source) or UNKNOWN).instruction for source in sources} or {None}
    if len(found) > 1:
        raise UsageError(
            f"the input files are of different tasks ({', '.join(sorted(quoted(repr(told)) for told in found))})",
            "Run the stage on each file by itself",
        )
    return found.pop()


def check_inputs(paths: Sequence[Path]) -> dict[str, str]:
    """Return path -> SHA-256 of each input after comparing it with its manifest, where it has one.

    Raises:
        DataError: a file is missing.
        StaleError: a file is not the one that its manifest describes.
    """
    hashes = {}
    for path in paths:
        hashes[str(path)] = found = sha256(path)
        check_input(path, found)
    return hashes


def check_input(path: Path, found: str) -> None:
    """Compare the SHA-256 of an input with its manifest, where it has one.

    Raises:
        StaleError: the file is not the one that its manifest describes.
    """
    manifest = read_manifest(path)
    if manifest is not None and manifest.output.get("sha256") != found:
        raise StaleError(
            "has changed since its manifest was written",
            f"Make it again ({manifest.command} --overwrite), "
            f"or delete {manifest_path(path).name} to use the file as it is",
            path=path,
        )


def check_output_folder(folder: Path, inputs: Iterable[Path | str]) -> None:
    """Check that a folder may be made, and with --overwrite replaced, without loss of what others made.

    Raises:
        UsageError: it is, holds or lies in something that the stage reads.
        StaleError: it stands there and was not made by a stage, or is a link.
    """
    if not folder.name:
        raise UsageError(f"--output_dir {folder} is where the command runs", "Name a folder of its own")
    if folder.is_symlink():
        raise StaleError("is a link, which would be replaced itself", "Name the folder that it leads to", path=folder)
    place = Path(os.path.realpath(folder))  # which takes a link to itself as it is
    for path in (Path(os.path.realpath(one)) for one in inputs):
        if place == path or place in path.parents or path in place.parents:
            how = "is" if place == path else "holds" if place in path.parents else "lies in"
            raise UsageError(
                f"--output_dir {folder} {how} {path}, which is read", "Name a folder of its own: it is replaced whole"
            )
    if folder.exists() and not (_is_empty(folder) or read_manifest(folder) or _is_unfinished(folder)):
        raise StaleError(
            "exists already, and no manifest tells that a stage made it",
            "Choose another output, or remove it yourself",
            path=folder,
        )


def is_made(output: Path, recipe: Recipe) -> bool:
    """Tell whether `output` stands there finished, made by this very recipe.

    Raises:
        StaleError: something else stands there.
    """
    if not output.exists() or _is_empty(output):
        return False
    manifest = read_manifest(output)
    if manifest is None:
        if unfinished_differences(output, recipe) == []:
            return False  # stopped between the output and its manifest
        raise StaleError("exists already, and no manifest tells what made it", _ELSEWHERE, path=output)
    differences = recipe.differences(manifest.recipe)
    if differences:
        raise StaleError(f"exists already, made with other settings: {'; '.join(differences)}", _ELSEWHERE, path=output)
    written, found = manifest.output, _content(output)
    if (
        written.get("sha256") != found.get("sha256")
        or written.get("files", {}).items() - found.get("files", {}).items()
    ):
        raise StaleError("has changed since its manifest was written", _ELSEWHERE, path=output)
    return True


def _content(output: Path) -> dict[str, Any]:
    """Return what tells an output from another: the hash of a file, sizes of a folder's files but those added later."""
    if output.is_file():
        return {"sha256": sha256(output)}
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name not in _ADDED_LATER)
    return {"files": {str(path.relative_to(output)): path.stat().st_size for path in files}}


def _is_empty(output: Path) -> bool:
    return output.is_dir() and not any(output.iterdir())


def _is_unfinished(output: Path) -> bool:
    return (unfinished_folder(output) / RECIPE_FILE).exists()


def unfinished_folder(output: Path) -> Path:
    """Return where unfinished work on an output is kept, see `unfinished.UnfinishedWork`."""
    return _beside(output, ".partial")


def unfinished_differences(output: Path, recipe: Recipe, *, ignoring: Collection[str] = ()) -> list[str] | None:
    """Describe how a recipe differs from that of the unfinished work on an output, `None` where there is none.

    Args:
        ignoring: as in `Recipe.differences`.
    """
    path = unfinished_folder(output) / RECIPE_FILE
    if not os.path.lexists(path):
        return None
    try:
        stored = read_json(path, "")
    except DataError as error:
        return [f"{RECIPE_FILE} is damaged ({error.what})"]
    if fault := shape_fault(stored, RECIPE):
        return [f"{RECIPE_FILE} is damaged ({fault})"]
    return recipe.differences(stored, ignoring=ignoring)
