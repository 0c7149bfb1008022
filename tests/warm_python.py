"""A Python that has imported torch and transformers once, and starts stages by forking: `WarmPython`.

The import takes longer than what a stage does with a tiny model. Nothing is computed in the process that forks, so that
the stages can do anything, train as well. Each of them is a process like any other, with its own arguments, folder,
environment and files.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path


class WarmPython:
    """The process that forks.

    Attributes:
        executable: takes the place of `python` where `-m module` or `-c program` follows.
        twice: a command that takes its place where two processes of torchrun are to run it.
    """

    def __init__(self, folder):
        self._name = f"{folder}"
        program = ["-S", "-E", __file__, self._name]
        self._server = subprocess.Popen([sys.executable, __file__, self._name], stdin=-1, stdout=-1)
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *program])} "$@"\n')
        python.chmod(0o755)
        self.executable = str(python)
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
        self.twice = [self.executable, *torchrun, self.executable]
        assert self._server.stdout.read(5) == b"ready"

    def start(self, *arguments):
        """Start `python arguments`."""
        return Started(self._name, list(map(str, arguments)))

    def close(self):
        self._server.communicate()


class Started:
    """A process that has been started, with the folder, environment, stdin, stdout and stderr of this one."""

    def __init__(self, name, arguments):
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(_address(name))
        message = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(self._connection, [message], [0, 1, 2])
        self._code = None
        self.pid = int(self._connection.recv(100))

    def poll(self):
        """Return the exit code, minus the signal that ended it, or None while it runs."""
        running = self._code is None and not select.select([self._connection], [], [], 0)[0]
        return None if running else self.wait()

    def wait(self):
        if self._code is None:
            with self._connection:
                self._code = int(self._connection.recv(100))
        return self._code


def _address(name):
    return f"\0{name}"


def serve(name):
    """Fork for each connection, until stdin ends: that is when the process of the tests does."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import ir_measures  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    from sentence_transformers import CrossEncoderTrainer, SentenceTransformerTrainer  # noqa: F401

    gc.freeze()  # no collection after a fork writes to, and so copies, what was imported
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(_address(name))
    listener.listen()
    os.write(1, b"ready")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that were forked
    while listener in select.select([listener, 0], [], [])[0]:
        connection = listener.accept()[0]
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _attend(connection)
        connection.close()
    os._exit(0)


def _attend(connection):
    """Start a process and say how it ends; end it when the one that asked for it is gone."""
    message, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    process = os.fork()
    if not process:
        connection.close()
        _run(*json.loads(message), files)
    connection.send(b"%d" % process)
    ended = os.pidfd_open(process)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        connection.send(b"%d" % code)
    finally:
        os._exit(0)


def _run(arguments, folder, environment, files):
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind, program, *further = arguments
    sys.path[0] = folder
    sys.argv = [kind, *further]
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001  # it is the end of this process
        traceback.print_exc()
        code = 1
    threading._shutdown()  # as Python ends, but that it does not take seconds to take all modules to pieces
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        code = Started(sys.argv[1], sys.argv[2:]).wait()
        if code < 0:
            os.kill(os.getpid(), -code)
        sys.exit(code)
