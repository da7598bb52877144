"""How a process ended that a signal killed, in words.

Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import signal
from pathlib import Path

VMSTAT = Path("/proc/vmstat")
NO_MEMORY = "the machine had no more memory, and the kernel killed a process for it"


def killed_by(number: int) -> str:
    """Return what to tell of a process that this signal killed."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"Killed by signal {number}"
    return f"Killed by signal {number}: {known.name} ({signal.strsignal(number)})"


def memory_kills(vmstat: Path = VMSTAT) -> int:
    """Return how many processes the kernel has killed for want of memory; 0: it does not tell."""
    try:
        lines = vmstat.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
