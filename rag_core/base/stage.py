"""The shell around every stage: flags from a dataclass, one log format, errors as exit codes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import logging
import os
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from rag_core.base.errors import PipelineError
from rag_core.base.flags import check_bounds, default_of, flag, flags_of
from rag_core.base.outside_text import for_screen, one_line, quoted
from rag_core.base.processes import is_main_process

A = TypeVar("A", bound="StageArgs")

_LESS_MEMORY = (
    "Lower --batch_size (training: --mini_batch_size, --per_device_train_batch_size) or --max_length, or stop what "
    "else runs there"
)
_REMEDIES = {
    errno.ENOSPC: "Make room, then run the same command again",
    errno.EDQUOT: "Make room, then run the same command again",
    errno.EACCES: "Check the permissions",
    errno.EPERM: "Check the permissions",
    errno.EROFS: "Choose another --output_dir",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), then run the same command again",
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "Check the path",
    errno.EEXIST: "Check the path",
    errno.EISDIR: "Check the path",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "It is a link to itself. Check the path",
    errno.EIO: "Check the disk, then run the same command again",
}

_CHATTY = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "filelock",
    "faiss",
    "matplotlib",
    "fsspec",
    "sentence_transformers",
    "bm25s",
    "onnxscript",
    "onnx_ir",
)


@dataclasses.dataclass(kw_only=True)
class StageArgs:
    """The flag that every stage has; a stage adds what it needs of `SeedArgs` and the others as base classes.

    Attributes:
        takes_further_flags: whether flags that are not fields go to `further_flags`, for `run` to parse, or
            are errors.
    """

    takes_further_flags: ClassVar[bool] = False
    further_flags: list[str] = dataclasses.field(default_factory=list, init=False)

    log_level: Literal["debug", "info", "warning", "error"] = flag(
        "how much is logged on stderr", "info", decides=False
    )


@dataclasses.dataclass(kw_only=True)
class SeedArgs(StageArgs):
    """Flag of a stage that draws at random."""

    seed: int = flag("seed of all that is random", 42, least=0, most=2**32 - 1)


@dataclasses.dataclass(kw_only=True)
class OverwriteArgs(StageArgs):
    """Flag of a stage that keeps a finished output."""

    overwrite: bool = flag("replace existing output, and start unfinished work afresh", False, decides=False)


@dataclasses.dataclass(kw_only=True)
class BadRowsArgs(StageArgs):
    """Flag of a stage that reads rows."""

    skip_bad_rows: bool = flag("leave bad input rows out and count them in the manifest, instead of stopping", False)


_COMMON = ("seed", "overwrite", "skip_bad_rows", "log_level")  # last in the help


def make_parser(args_type: type[StageArgs], description: str) -> argparse.ArgumentParser:
    """Build the parser of a stage: one `--flag` per field, its type and choices from the annotation."""
    head, _, rest = description.partition("\n")
    parser = argparse.ArgumentParser(
        description=head,
        epilog=rest.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    annotations = typing.get_type_hints(args_type)
    for field in sorted(flags_of(args_type), key=lambda field: field.name in _COMMON):
        options: dict[str, Any] = {"help": field.metadata["help"]}
        default = default_of(field)
        if default is dataclasses.MISSING:
            options["required"] = True
        else:
            options["default"] = default
        if default not in (dataclasses.MISSING, None, False, []):
            options["help"] += " (default: %(default)s)"
        options |= _argparse_type(annotations[field.name]) | field.metadata["argparse"]
        parser.add_argument(f"--{field.name}", **options)
    return parser


def _argparse_type(annotation: Any) -> dict[str, Any]:
    arguments = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _argparse_type(arguments[0])
    if origin is list:
        return {"nargs": "+", "type": arguments[0], "metavar": arguments[0].__name__.upper()}
    if origin is Literal:
        return {"choices": arguments}
    if annotation is bool:
        return {"action": "store_true"}
    return {"type": annotation, "metavar": annotation.__name__.upper()}


def run_stage(
    args_type: type[A],
    run: Callable[[A], Path | Sequence[Path]],
    description: str,
    argv: Sequence[str] | None,
) -> int:
    """Parse, run, and print the path of what was made; return the exit code (0 done, 1 data or files, 2 usage).

    A `PipelineError` becomes `Error: path:line: what. What to do.` on stderr; any other exception is a bug
    and keeps its traceback.
    """
    parser = make_parser(args_type, description)
    namespace, rest = parser.parse_known_args(argv)
    if rest and not args_type.takes_further_flags:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path need not be UTF-8
    args = args_type(**vars(namespace))
    args.further_flags = rest
    level = args.log_level if is_main_process() else "warning"
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_Visible("%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[to_stderr], force=True)
    logging.captureWarnings(True)  # those of libraries, which quote names and texts, too
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # for the bars of libraries, too
    # Threads that wait by spinning make a machine that others use, too, several times slower for all.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        check_bounds(args)
        with _terminated_as_interrupted():
            made = run(args)
        if made and is_main_process():
            print(*([made] if isinstance(made, Path) else made), sep="\n", flush=True)
    except PipelineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # who reads what is printed, as in `rank | head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        place = f"{quoted(str(error.filename), 200)}: " if error.filename else ""
        print(f"Error: {one_line(f'{place}{error.strerror}. {_REMEDIES[error.errno]}.')}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, whose import would cost every stage seconds
            raise
        print(f"Error: the GPU's memory ran out. {_LESS_MEMORY}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("Stopped. Run the same command again to go on.", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
    return 0


def show(text: str) -> None:
    """Print what a stage was asked for on stdout."""
    print(for_screen(text), flush=True)


class _Visible(logging.Formatter):
    """One format, without what names and answers of others may carry: one with a line end makes no line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return for_screen(super().format(record)).replace("\n", "\n  ")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems stop a job."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: files that are being written vanish, finished ones stay."""
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return

    process = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != process:  # one that was forked, and is to end as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise _Terminated

    usual = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
