"""Watching what a sandbox's processes hold, where no control group bounds them.

All is read through descriptors that were opened before the sandbox's code ran: its own /proc, in
which every process is that is inside, also those that entered later, and its memory file systems.
"""

from __future__ import annotations

import contextlib
import os

MIB = 1 << 20
TEMPORARY = ("", "dev", "dev/shm")  # memory file systems that the sandbox can write
INODE = 1024  # bytes of the kernel's memory, about


class Holdings:
    """What the processes of one sandbox hold; `first`: its first process, as seen from outside."""

    def __init__(self, first: int, *, sandboxed: bool) -> None:
        self.first, self.sandboxed = first, sandboxed
        self.proc: int | None = None
        self.temporary: list[int] = []
        if sandboxed:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            with contextlib.suppress(OSError):  # it was killed meanwhile
                self.proc = os.open(f"/proc/{first}/root/proc", flags)
                self.temporary = [
                    os.open(f"/proc/{first}/root/{name}", flags) for name in TEMPORARY
                ]

    def close(self) -> None:
        """Let go of the sandbox's file systems."""
        for descriptor in (self.proc, *self.temporary):
            if descriptor is not None:
                os.close(descriptor)
        self.proc, self.temporary = None, []

    def measure(self, limit_mib: int) -> tuple[int, int]:
        """Return the MiB and the processes (threads count) that it has.

        Memory that processes share after a fork is told apart only when it matters: near `limit`.
        """
        names = [name for name in self._members() if name.isdigit()]
        private, shared, threads, known = 0, 0, 0, []
        for name in names:
            status = self._read(name, "status")
            if status:
                known.append(name)
                fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                private += kib(fields.get("RssAnon", "0"))
                shared = max(shared, kib(fields.get("RssShmem", "0")))
                threads += int(fields.get("Threads", "1"))
        files = 0
        for descriptor in self.temporary:
            with contextlib.suppress(OSError):
                told = os.fstatvfs(descriptor)
                files += (told.f_blocks - told.f_bfree) * told.f_frsize
                files += max(0, told.f_files - told.f_ffree) * INODE
        other = max(files, shared * 1024)
        held = private * 1024 + other
        if limit_mib and held > limit_mib * MIB:
            held = sum(self._exactly(name) for name in known) + other
        return held // MIB, threads

    def members(self) -> list[str]:
        """Return /proc's folders of its processes, as they are reached from here."""
        proc = "/proc" if self.proc is None else f"/proc/self/fd/{self.proc}"
        return [f"{proc}/{name}" for name in self._members() if name.isdigit()]

    def _members(self) -> list[str]:
        if self.proc is not None:
            with contextlib.suppress(OSError):
                return os.listdir(self.proc)
        if self.sandboxed:
            return []
        members = [str(self.first)]
        for member in members:  # it grows while we walk down the tree
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{member}/task/{member}/children") as file,
            ):
                members += file.read().split()
        return members

    def _read(self, process: str, name: str) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            where = None if self.proc is None else self.proc
            path = f"{process}/{name}" if where is not None else f"/proc/{process}/{name}"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=where)
            try:
                return os.read(descriptor, 65536).decode()
            finally:
                os.close(descriptor)
        return ""

    def _exactly(self, process: str) -> int:
        """Return the bytes of a process's memory, of what it shares after a fork its part."""
        for line in self._read(process, "smaps_rollup").splitlines():
            if line.startswith("Pss_Anon:"):
                return kib(line.split(":", 1)[1]) * 1024
        return 0


def kib(text: str) -> int:
    """Return the number of a line like "RssAnon:   42 kB"."""
    return int(text.split()[0])
