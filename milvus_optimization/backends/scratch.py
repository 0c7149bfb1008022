"""Scratch collections: how they are named and marked, so that no other is ever dropped."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ID, VECTOR, NUMBER = "mo_row", "mo_vector", "mo_number"  # fields; nobody else has these three

_NAME = re.compile(r"mo_[0-9a-f]{16}")
_MARK = "scratch of milvus_optimization, process "


def new_name() -> str:
    """Return a name that no collection has."""
    return f"mo_{secrets.token_hex(8)}"


def mark() -> str:
    """Return a description that tells which process a collection belongs to."""
    return f"{_MARK}{os.getpid()} of {_machine()}"


def _machine() -> str:
    """Return the machine, and the container in it, in which a process id means something."""
    try:
        room = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        room = "pid"
    return f"{socket.gethostname()} {room}"


def is_left_behind(description: Mapping[str, Any], *, alone: bool) -> bool:
    """Tell whether a collection is scratch of a run that has ended, so that it may go.

    Args:
        description: as `describe_collection` gives it.
        alone: whether no other process can have the database open; milvus-lite keeps no description of a collection.
    """
    fields = [field["name"] for field in description["fields"]]
    if not _NAME.fullmatch(description["collection_name"]) or fields != [ID, VECTOR, NUMBER]:
        return False
    if alone:
        return True
    found = re.fullmatch(re.escape(_MARK) + r"(\d+) of (.*)", description.get("description", ""))
    return found is not None and found[2] == _machine() and not _is_running(int(found[1]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
