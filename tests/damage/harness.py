"""A stage that is stopped before each of its file operations, and several of them at once.

SIGKILL leaves what is on disk at that moment, and nothing else. So a run is looked at before every operation that it
does on files below a folder (`moments`): what it would leave is all that is there, what it is about to open with
nothing in it, and what it has just written cut in half. `killed` sends the signal for real, and is held against that.
"""

import contextlib
import os
import random
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

ALL = os.environ.get("DAMAGE") == "all"  # all of the damage; the suite does a part of it

_MAKES = os.O_CREAT | os.O_TRUNC
_WRITES = os.O_WRONLY | os.O_RDWR | _MAKES
_AT_MOST = 60  # seconds of a process that was forked

# Of each audited operation on files: the places of a path and of the folder that it is relative to.
_OPERATIONS = {
    "os.rename": (0, 2),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.remove": (0, 1),
    "os.mkdir": (0, 2),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
}

Tree = dict  # path below the folder -> bytes; None for a folder


class _Hook:
    """Python's audit hook, which stays for good: it calls `before` while there is one, and not for what that does."""

    def __init__(self):
        self.folder, self.before = Path(), None
        self._added = False

    def add(self):
        if not self._added:
            sys.addaudithook(self)
            self._added = True

    def __call__(self, event, args):
        before = self.before
        if before is None or not event.startswith(("open", "os.", "ctypes.dlsym")):
            return
        self.before = None
        try:
            if seen := self._seen(event, args):
                before(*seen)
        finally:
            self.before = before

    def _seen(self, event, args):
        """Return what is done, the path below the folder, and the flags with which it is opened."""
        if event == "ctypes.dlsym" and args[1] == "renameat2":  # it is called next
            return "exchange", "", 0
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & _WRITES
            below = self._below(path) if writes else None
            return below and (event, below, flags)
        if event in _OPERATIONS:
            place, base = _OPERATIONS[event]
            below = self._below(args[place], args[base] if base is not None and len(args) > base else -1)
            return below and (event, below, 0)
        return None

    def _below(self, path, base=-1):
        path = Path(f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path))
        if path.is_relative_to("/proc/self/fd"):
            path = path.readlink()
        folder = Path(f"/proc/self/fd/{base}").readlink() if base >= 0 else Path.cwd()
        path = folder / path
        return str(path.relative_to(self.folder)) if self.folder in path.parents else None


_hook = _Hook()


@contextlib.contextmanager
def watched(folder, before):
    """Call `before` before each operation on files below a folder; what is synced is an operation, too, and quick."""
    _hook.add()
    fsync, os.fsync = os.fsync, lambda file: _hook("os.truncate", (file, 0))
    _hook.folder, _hook.before = folder, before
    try:
        yield
    finally:
        _hook.before, os.fsync = None, fsync


def tree(folder):
    """Return all that is below a folder."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found


def restore(folder, wanted):
    """Make a folder hold a tree, and nothing else."""
    there = tree(folder)
    for path in sorted(there.keys() - wanted.keys(), reverse=True):
        (folder / path).rmdir() if there[path] is None else (folder / path).unlink()
    for path in sorted(wanted):
        if wanted[path] is None:
            (folder / path).mkdir(exist_ok=True)
        elif there.get(path) != wanted[path]:
            (folder / path).write_bytes(wanted[path])


@dataclass
class Moment:
    """What a run is about to do, and what there is if it is killed instead."""

    number: int
    doing: str
    tree: Tree
    derived: bool = field(default=False)  # of the next state by hand

    def __str__(self):
        return f"{self.number}: {self.doing}"


def moments(folder, run):
    """Run to the end; return the moments at which it could be killed, each with another tree."""
    found, count, fresh = [], 0, []

    def before(event, path, flags):
        nonlocal count
        count += 1
        now = tree(folder)
        for one in fresh:
            if len(now.get(one) or b"") > 1:
                half = {**now, one: now[one][: len(now[one]) // 2]}
                found.append(Moment(count, f"write {one}", half, derived=True))
        fresh.clear()
        found.append(Moment(count, f"{event} {path}", now))
        if flags & _MAKES:
            fresh.append(path)
            if path not in now or flags & os.O_TRUNC:
                found.append(Moment(count, f"opened {path}", {**now, path: b""}, derived=True))

    with watched(folder, before):
        run()
    return found


def killed(folder, run, number):
    """Run in a process of its own that is killed before its operation of that number; tell whether it was."""
    left = number

    def before(*_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def process():
        with watched(folder, before):
            run()

    return wait(fork(process)) == -signal.SIGKILL


def fork(process, output=os.devnull):
    """Start a function in a process of its own, whose output goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads, which wait
        number = os.fork()
    if number:
        return number
    code = 99
    try:
        signal.alarm(_AT_MOST)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        code = process() or 0
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  # it is the end of this process
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(number):
    """Return the exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def at_once(folder, runs, outputs, seed):
    """Start functions at the same moment, in processes of their own that dawdle at their files; return exit codes."""
    reading, writing = os.pipe()

    def process(run, number):
        os.close(writing)
        generator = random.Random(f"{seed} {number}")
        os.read(reading, 1)  # ends when the last end for writing is closed
        with watched(folder, lambda *_: time.sleep(generator.choice((0, 0, 0.001, 0.003)))):
            return run()

    processes = [
        fork(lambda run=run, number=number: process(run, number), output)
        for number, (run, output) in enumerate(zip(runs, outputs, strict=True))
    ]
    os.close(reading)
    os.close(writing)
    return [wait(number) for number in processes]


def meeting(folder, run, outputs, number):
    """Run in a process that waits before its operation of that number for another, which runs to its end meanwhile."""
    codes, left = {}, number

    def before(*_):
        nonlocal left
        left -= 1
        if left == 0:
            codes["second"] = wait(fork(run, outputs[1]))
            Path(f"{outputs[1]}.code").write_text(str(codes["second"]))

    def process():
        with watched(folder, before):
            return run()

    first = wait(fork(process, outputs[0]))
    second = Path(f"{outputs[1]}.code")
    code = int(second.read_text())
    second.unlink()
    return [first, code]
