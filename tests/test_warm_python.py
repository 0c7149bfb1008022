"""A stage that the warm Python starts is a process like any other."""

import os
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
import torch
weight = torch.ones(2, requires_grad=True)
weight.sum().backward()
print(sys.argv, os.getcwd(), os.environ["MARK"], sys.stdin.read(), weight.grad.tolist(), __name__)
print(os.getpid(), file=sys.stderr)
"""


def test_it_has_its_own_arguments_folder_environment_and_files(warm_python, tmp_path):
    command = [warm_python.executable, "-c", PROGRAM, "--flag", "a * b"]
    environment = os.environ | {"MARK": "café"}
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, input="given", capture_output=True, text=True, check=True
    )
    assert found.stdout == f"['-c', '--flag', 'a * b'] {tmp_path} café given [1.0, 1.0] __main__\n"
    assert int(found.stderr) != os.getpid()


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(2)", 2, ""),
        ("import atexit; atexit.register(print, 'the end'); 1 / 0", 1, "the end\n"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_it_ends_as_it_would(warm_python, program, code, said):
    found = subprocess.run([warm_python.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (code, said)
    assert ("ZeroDivisionError: division by zero" in found.stderr) is (code == 1)


def test_it_does_not_outlive_the_one_that_asked_for_it(warm_python, tmp_path):
    program = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}.'); time.sleep(60)"
    path = tmp_path / "pid"
    client = subprocess.Popen([warm_python.executable, "-c", program, path])
    while not (path.exists() and path.read_text().endswith(".")):
        time.sleep(0.01)
    client.kill()
    client.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{path.read_text()[:-1]}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
