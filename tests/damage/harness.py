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

_watch = None


@dataclass
class Watch:
    """Calls `before` with (what is done, path below the folder, whether it opens an empty file) before it is done."""

    folder: Path
    before: object

    def see(self, event, args):
        if event == "ctypes.dlsym" and args[1] == "renameat2":  # it is called next
            return "exchange", "", False
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & _WRITES):
                return None
            base, empties = None, bool(flags & _MAKES)
        elif event in _OPERATIONS:
            place, base_place = _OPERATIONS[event]
            path, empties = args[place], False
            base = args[base_place] if base_place is not None and len(args) > base_place else None
        else:
            return None
        below = self.below(path, base)
        return below and (event, below, empties)

    def below(self, path, base=None):
        path = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
        if path.startswith("/proc/self/fd/"):
            path = os.readlink(path)
        if isinstance(base, int) and base >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{base}"), path)
        path = os.path.abspath(path)
        return path.removeprefix(f"{self.folder}/") if path.startswith(f"{self.folder}/") else None


def _hook(event, args):
    global _watch
    watch = _watch
    if watch is None or not event.startswith(("open", "os.", "ctypes.dlsym")):
        return
    _watch = None  # what is done in here is not looked at
    try:
        if seen := watch.see(event, args):
            watch.before(*seen)
    finally:
        _watch = watch


_hooked = []


@contextlib.contextmanager
def watched(folder, before):
    """Call `before` before each operation on files below a folder; what is synced is an operation, too, and quick."""
    global _watch
    if not _hooked:
        sys.addaudithook(_hook)  # for good
        _hooked.append(True)
    fsync, os.fsync = os.fsync, lambda file: _hook("os.truncate", (file, 0))
    _watch = Watch(folder, before)
    try:
        yield
    finally:
        _watch, os.fsync = None, fsync


def tree(folder):
    """Return all that is below a folder."""
    found = {}
    for at, folders, files in os.walk(folder):
        here = os.path.relpath(at, folder)
        for name in folders:
            found[os.path.normpath(os.path.join(here, name))] = None
        for name in files:
            path = os.path.join(at, name)
            link = os.path.islink(path)
            with contextlib.suppress(FileNotFoundError):  # of another process
                found[os.path.normpath(os.path.join(here, name))] = (
                    b"-> " + os.fsencode(os.readlink(path)) if link else Path(path).read_bytes()
                )
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

    def before(event, path, empties):
        nonlocal count
        count += 1
        now = tree(folder)
        for one in fresh:
            if len(now.get(one) or b"") > 1:
                half = {**now, one: now[one][: len(now[one]) // 2]}
                found.append(Moment(count, f"write {one}", half, derived=True))
        fresh.clear()
        found.append(Moment(count, f"{event} {path}", now))
        if empties:
            fresh.append(path)
            if now.get(path) is None and os.path.dirname(path) in {*now, ""}:
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
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
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
