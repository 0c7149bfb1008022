"""Which of several processes this one is, and how much memory it took."""

from __future__ import annotations

import os
import re
from pathlib import Path


def is_main_process() -> bool:
    """Tell whether this process owns the outputs: of several that torchrun starts, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def peak_bytes() -> int:
    """Return the peak of this process's own memory; `ru_maxrss` would begin with that of the process it came from."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS gives bytes
