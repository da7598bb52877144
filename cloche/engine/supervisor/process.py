"""One process of a gang: its start, its output, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time

from . import namespaces
from .pump import LogFile, Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..sandbox import PlannedProcess

READY = b"cloche: ready"  # the sandbox stands; the process's own output follows
USERNS_FD, STATUS_FD = 4, 5  # where the sandbox's arguments expect them
UNDERSTUDY_FD = 6  # where the process finds its conversation with a fork server
LISTENING_FD = 7  # where it finds the socket that it is to serve
CHUNK = 256 * 1024
DRAIN_S = 2.0  # for output that others still hold open after a process ended
SIGNALS = frozenset(int(number) for number in signal.valid_signals())
OOM_SCORE = "500"  # when memory runs out the kernel ends jobs before servers


class Process:
    """A process that was started and is held at the door of its sandbox until `go`."""

    def __init__(
        self,
        plan: PlannedProcess,
        user: int | None,
        userns: int | None,
        conversation: socket.socket | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan["name"]
        self.pump = Pump(LogFile(plan["log"]))
        self.early = b""  # output before READY: why a sandbox could not be set up
        self.ready = False
        self.group = 0  # process group that SIGKILL goes to
        self.first = 0  # the command's own process, which alone gets SIGTERM
        self.reason: str | None = None
        self.exit_code: int | None = None
        self.ended_ms = 0
        self.settle_at = 0.0  # monotonic: when to write the record of a process that ended
        self.silent = False  # its output has ended
        self.settled = False  # its record is written
        self.conversation = conversation  # with a fork server: the process's end, ours until `go`
        inside, self.stdin = os.pipe()
        self.output, written = os.pipe()
        self.status, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            given = {
                target: one.fileno()
                for target, one in ((UNDERSTUDY_FD, conversation), (LISTENING_FD, listening))
                if one is not None
            }
            become(plan, inside, written, told, user, userns, given)
        for fd in (inside, written, told):
            os.close(fd)
        os.set_blocking(self.output, False)

    def read(self, now: float) -> None:
        """Take what the process wrote; `silent` becomes True at the end of its output."""
        while not self.silent:
            try:
                data = os.read(self.output, CHUNK)
            except BlockingIOError:
                return
            if not data:
                self.silent = True
                self.settle_at = now
            elif self.ready:
                self.pump.feed(data, now)
            else:
                self._await_ready(data, now)
            if len(data) < CHUNK:
                return

    def _await_ready(self, data: bytes, now: float) -> None:
        self.early += data
        before, mark, after = self.early.partition(READY + b"\n")
        if mark:
            self.ready = True
            self.pump.feed(before + after, now)

    def learn_processes(self) -> None:
        """Find out which process and which group are the command's (when `ready`)."""
        if not self.plan["sandboxed"]:
            self.group = self.first = self.pid
            return
        text = os.read(self.status, 4096).decode()
        key = '"child-pid":'
        start = text.index(key) + len(key)
        self.group = int(text[start:].replace("}", ",").split(",", 1)[0])
        children = f"/proc/{self.group}/task/{self.group}/children"
        # Without one it was killed meanwhile: its exit tells.
        with contextlib.suppress(OSError, IndexError), open(children) as pids:
            self.first = int(pids.read().split()[0])

    def is_due(self, now: float) -> bool:
        """Tell whether its record is to be written: it ended, and its output did or had time to."""
        return self.exit_code is not None and not self.settled and now >= self.settle_at

    def go(self) -> None:
        """Let the process run."""
        if self.conversation is not None:
            self.introduce(self.conversation)
            self.conversation = None
        with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile: its exit tells
            os.write(self.stdin, b"go\n")
        os.close(self.stdin)

    def introduce(self, conversation: socket.socket) -> None:
        """Show the fork server the sandbox: its first program; else the conversation ends."""
        with contextlib.suppress(OSError), conversation:
            descriptor = os.pidfd_open(self.first)
            try:
                socket.send_fds(conversation, [b"%d" % self.first], [descriptor])
            finally:
                os.close(descriptor)

    def ask(self) -> None:
        """Ask the command to end: SIGTERM to its first process, as a container's gets it."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.first or self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started."""
        if self.exit_code is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self.group:
                os.killpg(self.group, signal.SIGKILL)
        if self.plan["sandboxed"] or not self.group:
            os.kill(self.pid, signal.SIGKILL)

    def exited(self, status: int, now: float) -> None:
        """Record how it ended; output that is still on its way is awaited for a moment."""
        code = os.waitstatus_to_exitcode(status)
        if self.plan["sandboxed"] and code > 128 and code - 128 in SIGNALS:
            code = 128 - code  # bubblewrap tells of signals as a shell does
        self.exit_code = code
        self.ended_ms = time.time_ns() // 1_000_000
        self.settle_at = now if self.silent else now + DRAIN_S
        if not self.plan["sandboxed"]:
            try:
                os.killpg(self.pid, signal.SIGKILL)  # what is left of its group
            except (ProcessLookupError, PermissionError):
                return


def become(
    plan: PlannedProcess,
    stdin: int,
    output: int,
    status: int,
    user: int | None,
    userns: int | None,
    sockets: Mapping[int, int],
) -> None:
    """Turn a fresh child into the sandbox; never returns. sockets: descriptor there -> here."""
    try:
        os.setsid()
        stdin, output, status = (
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (stdin, output, status)
        )
        if userns is not None:
            userns = fcntl.fcntl(userns, fcntl.F_DUPFD_CLOEXEC, 10)
            os.dup2(userns, USERNS_FD)
        given = {t: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for t, fd in sockets.items()}
        for target, fd in given.items():
            os.dup2(fd, target)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if plan["sandboxed"]:
            os.dup2(status, STATUS_FD)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            namespaces.write("/proc/self/oom_score_adj", OOM_SCORE)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        if not plan["sandboxed"]:
            namespaces.die_with_parent()
        os.chdir(plan["cwd"])
        os.umask(0o022)
        os.execve(plan["argv"][0], plan["argv"], plan["env"])
    except BaseException as error:
        os.write(2, f"{plan['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(126)
