"""What processes use, counted process by process: where no control group tells it."""

import os
from collections.abc import Mapping
from contextlib import suppress

import psutil

from cloche.engine import Usage


def children_by_parent() -> dict[int, list[psutil.Process]]:
    """Return all processes of the machine by their parent."""
    family: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        family.setdefault(process.info["ppid"], []).append(process)
    return family


def entered(first: int, family: Mapping[int, list[psutil.Process]]) -> list[psutil.Process]:
    """Return those that entered a sandbox from outside (understudies); `first`: its process 1."""
    inside: dict[int, psutil.Process] = {}
    with suppress(OSError):
        namespace = os.readlink(f"/proc/{first}/ns/pid")
        if namespace == os.readlink("/proc/self/ns/pid"):
            return []
        for process in (one for children in family.values() for one in children):
            with suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == namespace:
                    inside[process.pid] = process
    return [p for p in inside.values() if p.pid != first and p.info["ppid"] not in inside]


def tree_usage(roots: list[psutil.Process], family: Mapping[int, list[psutil.Process]]) -> Usage:
    """Return what processes and all that they started use.

    CPU counts children that ended, too. Memory that processes share is counted once.
    """
    cpu_s, own, shared = 0.0, 0, 0
    members = list(roots)
    for member in members:  # it grows while we walk down the tree
        members += family.get(member.pid, [])
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times, memory = member.cpu_times(), member.memory_info()
            cpu_s += times.user + times.system
            cpu_s += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            common = getattr(memory, "shared", 0)
            own += memory.rss - common
            shared = max(shared, common)
    return Usage(cpu_s, (own + shared) / 2**20)
