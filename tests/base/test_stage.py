import dataclasses
import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
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
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 50.00 MiB."),
            1,
            "Error: the GPU's memory ran out. Lower --batch_size (training: --mini_batch_size, "
            "--per_device_train_batch_size) or --max_length, or stop what else runs there.\n",
        ),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command again to go on.\n"),
    ],
)
def test_errors_become_a_sentence_and_an_exit_code(error, code, sentence, capsys):
    assert call(raising(error), "--input_files", "x") == code
    assert capsys.readouterr().err == sentence


@dataclasses.dataclass(kw_only=True)
class Bounded(SeedArgs):
    share: float = flag("a share", 0.5, least=0, most=1)
    count: int | None = flag("a count", None, least=1)
    weights: list[float] = flag("weights", [], least=0)
    free: float = flag("any number", 0.0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--share", "1.5"], "--share is 1.5. Pass a number from 0 to 1."),
        (["--share", "nan"], "--share is nan. Pass a number from 0 to 1."),
        (["--count", "0"], "--count is 0. Pass 1 or more."),
        (["--weights", "1", "-2"], "--weights is -2. Pass 0 or more."),
        (["--weights", "inf"], "--weights is inf. Pass 0 or more."),
        (["--free", "inf"], "--free is inf. Pass a finite number."),
        (["--seed", "-1"], "--seed is -1. Pass a number from 0 to 4294967295."),
    ],
)
def test_a_number_out_of_its_bounds_is_a_usage_error(flags, said, capsys):
    assert run_stage(Bounded, raising(AssertionError()), "Do it.", flags) == 2
    assert capsys.readouterr().err == f"Error: {said}\n"


def test_numbers_at_their_bounds_are_taken():
    flags = ["--share", "1", "--count", "1", "--weights", "0", "1e9", "--free", "-3", "--seed", "0"]
    assert run_stage(Bounded, lambda args: [], "Do it.", flags) == 0


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
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def work():
        begun.set()
        time.sleep(60)

    def run(args):
        child = context.Process(target=work)
        child.start()
        assert begun.wait(60)
        child.terminate()
        child.join(10)
        assert child.exitcode == -signal.SIGTERM
        return []

    assert call(run, "--input_files", "x") == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("a bug"), OSError(errno.EBADF, "not open")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        call(raising(error), "--input_files", "x")


def test_nothing_steers_the_terminal_or_tells_a_key(capsys, monkeypatch):
    monkeypatch.setenv("RAG_SERVER_API_KEY", "hush-hush")

    def run(args):
        logging.getLogger("rag_core").warning("a name: \x1b[31m%s", "hush-hush")
        show("a passage: \x1b]0;title\x07\u202e")
        raise DataError("it says \x1b[2J hush-hush", "Look")

    assert call(run, "--input_files", "x") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("a passage: ]0;title\n", "a name: [31m***\nError: it says [2J ***. Look.\n")


def test_who_reads_the_output_may_leave():
    program = (
        "import sys; from pathlib import Path; from rag_core.base.stage import StageArgs, run_stage\n"
        "def run(args): return [Path('x' * 99)] * 99_999\n"
        "sys.exit(run_stage(StageArgs, run, 'Do it.', []))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1) as stage:
        stage.stdout.close()
        assert (stage.stderr.read(), stage.wait()) == (b"", 141)
