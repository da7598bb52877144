"""The control group of one process: entered before its sandbox, read when it has ended."""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
REMOVE_WITHIN_S = 1.0
KILLS = ("memory.events", "memory.oom_control")  # version 2, version 1
PEAK = ("memory.peak", "memory.max_usage_in_bytes")


class Cgroup:
    """Folders of cgroup file systems by controller; with version 2 all are the same one."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.memory = folders.get("memory")
        self.folders = list(dict.fromkeys(folders.values()))
        self.bounds_memory = self.memory is not None
        self.bounds_processes = "pids" in folders

    def entrances(self) -> list[int]:
        """Return descriptors: a process of one thread that writes "0" there is in the group, with
        all it starts.

        Version 1 moves a thread at once. For a process, all of the machine's CPUs have to take note
        first: 7 to 40 ms.
        """
        flags = os.O_WRONLY | os.O_CLOEXEC
        found: list[int] = []
        for folder in self.folders:
            try:
                found.append(os.open(f"{folder}/tasks", flags))
            except FileNotFoundError:  # version 2
                found.append(os.open(f"{folder}/cgroup.procs", flags))
        return found

    def enter(self) -> None:
        """Move this process into the group."""
        for entrance in self.entrances():
            os.write(entrance, b"0")
            os.close(entrance)

    def members(self) -> list[str]:
        """Return /proc's folders of the processes in it."""
        with (
            contextlib.suppress(OSError, IndexError),
            open(f"{self.folders[0]}/cgroup.procs") as file,
        ):
            return [f"/proc/{pid}" for pid in file.read().split()]
        return []

    def kills(self) -> int:
        """Return how many of its processes the kernel ended because memory ran out."""
        for line in self._read(KILLS).splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
        return 0

    def peak_mib(self) -> int:
        """Return the most memory that it ever held; 0 when the kernel does not tell."""
        return int(self._read(PEAK) or 0) // MIB

    def remove(self) -> None:
        """Remove the group; what is left of its processes is just ending."""
        until = time.monotonic() + REMOVE_WITHIN_S
        for folder in self.folders:
            while os.path.isdir(folder) and time.monotonic() < until:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                    break
                time.sleep(0.005)

    def _read(self, names: tuple[str, ...]) -> str:
        for name in names if self.memory else ():
            with contextlib.suppress(OSError), open(f"{self.memory}/{name}") as file:
                return file.read()
        return ""
