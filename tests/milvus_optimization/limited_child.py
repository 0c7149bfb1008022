"""A process of bounded memory, for what is not to run in this one."""

import json
import subprocess
import sys

from tests.conftest import ROOT

MOST_MEMORY = 12 << 30  # bytes; a bad parameter had milvus-lite ask for 21 GB


def run_child(case, *arguments, timeout=100, prefix=()):
    """Call a function of `lite_cases` in a process of bounded memory, and return what it returns."""
    code = (
        "import json, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MOST_MEMORY}, {MOST_MEMORY}))\n"
        "from tests.milvus_optimization import lite_cases\n"
        "print('RESULT', json.dumps(getattr(lite_cases, sys.argv[1])(*sys.argv[2:])))\n"
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
