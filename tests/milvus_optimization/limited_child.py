"""A process of bounded memory, for what is not to run in this one."""

import json
import subprocess
import sys

from tests.conftest import ROOT

MOST_MEMORY = 12 << 30  # bytes; a bad parameter had milvus-lite ask for 21 GB


def run_child(case, *arguments, timeout=100, prefix=()):
    """Call a function of a module beside this in a process of bounded memory; return its result and what it logged."""
    code = (
        "import importlib, json, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MOST_MEMORY}, {MOST_MEMORY}))\n"
        "module, name = sys.argv[1].split('.')\n"
        "case = getattr(importlib.import_module(f'tests.milvus_optimization.{module}'), name)\n"
        "print('RESULT', json.dumps(case(*sys.argv[2:])))\n"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, case, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0 and lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("RESULT ")), done.stderr
