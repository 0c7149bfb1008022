import dataclasses
import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Literal

import pytest

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage
from rag_core.files.atomic import atomic_write


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, OverwriteArgs, BadRowsArgs):
    input_files: list[Path] = flag("files")
    output_dir: Path | None = flag("folder", None)
    mode: Literal["a", "b"] = flag("way", "a")
    number: int = flag("a number", 3)


def call(run, *argv):
    return run_stage(Args, run, "Do it.\n\nMore.", list(argv))


def test_flags_become_typed_fields(capsys):
    seen = []
    assert call(lambda args: seen.append(args) or Path("out"), "--input_files", "x", "y", "--mode", "b") == 0
    (args,) = seen
    assert (args.input_files, args.output_dir, args.mode, args.number) == ([Path("x"), Path("y")], None, "b", 3)
    assert (args.seed, args.overwrite, args.skip_bad_rows) == (42, False, False)
    assert capsys.readouterr().out == "out\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--input_files", "x", "--num", "3"],
        ["--input_files", "x", "--mode", "c"],
        ["--input_files", "x", "y", "--z"],
    ],
)
def test_missing_abbreviated_and_unknown_flags_are_usage_errors(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        call(lambda args: Path(), *argv)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (DataError("is empty", "Fill it", path="a.jsonl", line=3), 1, "Error: a.jsonl:3: is empty. Fill it.\n"),
        (UsageError("two ways", "Pass one"), 2, "Error: two ways. Pass one.\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "Error: No space left on device. Make room, then run the same command again.\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "Error: /x: Permission denied. Check the permissions.\n",
        ),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command again to go on.\n"),
    ],
)
def test_errors_become_a_sentence_and_an_exit_code(error, code, sentence, capsys):
    assert call(raising(error), "--input_files", "x") == code
    assert capsys.readouterr().err == sentence


def test_sigterm_ends_a_stage_as_ctrl_c_does(capsys, tmp_path):
    """A file that is being written vanishes, what is finished stays, and the signal is as before afterwards."""

    def run(args):
        with atomic_write(tmp_path / "finished") as file:
            file.write(b"kept")
        with atomic_write(tmp_path / "begun"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    assert call(run, "--input_files", "x") == 143
    assert capsys.readouterr().err == "Stopped. Run the same command again to go on.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_forked_process_without_a_word(capfd):
    def run(args):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(10)
        assert child.exitcode == -signal.SIGTERM
        return []

    assert call(run, "--input_files", "x") == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EIO, "disk fault")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        call(raising(error), "--input_files", "x")
