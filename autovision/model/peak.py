"""The most memory that this process has held. Imports nothing heavy: that would be measured, too."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """10⁶ bytes, since the process began to run its program.

    What `getrusage` says counts from before that: a process that a large one starts is said to have been as large.
    """
    lines = _STATUS.read_text().splitlines() if _STATUS.is_file() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return (
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if kilobytes is None else kilobytes) * 1024 / 1e6
    )
