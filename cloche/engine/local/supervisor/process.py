"""One process of a gang: its start, its output, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import time

from . import filter as system_calls
from . import namespaces
from .descriptors import (
    ENVIRON_FD,
    FILTER_FD,
    LISTENING_FD,
    READY,
    STATUS_FD,
    UNDERSTUDY_FD,
    USERNS_FD,
)
from .group import Cgroup
from .memory import Holdings
from .pump import LogWriter, Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import PlannedProcess

CHUNK = 256 * 1024
DRAIN_S = 2.0  # for output that others still hold open after a process ended
SIGNALS = frozenset(int(number) for number in signal.valid_signals())
SHARED = 4  # how often the most processes of one sandbox its user may have
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
        self.pump = Pump(LogWriter(plan["log"], plan["log_mib"]))
        self.bounds = Cgroup(plan["groups"])
        self.watched = (  # MiB and processes that no group bounds; 0: none
            0 if self.bounds.bounds_memory else plan["memory_mib"],
            0 if self.bounds.bounds_processes else plan["processes"],
        )
        self.holdings: Holdings | None = None
        self.detail = ""  # what was exceeded, and by how much
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
        if any(self.watched):
            self.holdings = Holdings(self.group, sandboxed=self.plan["sandboxed"])
        if self.conversation is not None:
            self.introduce(self.conversation)
            self.conversation = None
        with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile: its exit tells
            os.write(self.stdin, b"go\n")
        os.close(self.stdin)

    def introduce(self, conversation: socket.socket) -> None:
        """Show the fork server the sandbox, or the conversation ends: its first program, the
        filter of its system calls, and where to enter its control group.
        """
        with contextlib.suppress(OSError), conversation:
            descriptors = [os.pidfd_open(self.first)]
            try:
                descriptors += self.bounds.entrances()
                told = b"sandbox " + (system_calls.program() or b"")
                socket.send_fds(conversation, [told], descriptors)
            finally:
                for descriptor in descriptors:
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

    def watch(self) -> None:
        """End it if it exceeds what no control group bounds."""
        if self.holdings is None or self.exit_code is not None or self.reason is not None:
            return
        memory, most = self.watched
        held, count = self.holdings.measure(memory)
        if memory and held > memory:
            self.exceeds("OutOfMemory", f"held {held} MiB of memory; it may have {memory} MiB")
        elif most and count > most:
            self.exceeds(
                "TooManyProcesses", f"had {count} processes and threads; it may have {most}"
            )

    def members(self) -> list[str]:
        """Return /proc's folders of its processes, as they are reached from here."""
        return self.bounds.members() if self.holdings is None else self.holdings.members()

    def exceeds(self, reason: str, what: str) -> None:
        """End it, for it took more than it was given."""
        self.tell(reason, what)
        self.kill()

    def tell(self, reason: str, what: str) -> None:
        """Write down that a bound was met, in the log as well."""
        self.reason, self.detail = reason, f"{self.name} {what}"
        self.pump.note(f"{reason}: {self.detail}.")

    def judge(self) -> None:
        """Find out, when it has ended, whether memory ran out in it.

        That a process in there was killed is told in the log; it is why this one failed only if it
        did fail.
        """
        kills = self.bounds.kills()
        if not kills or self.reason is not None:
            return
        limit, peak = self.plan["memory_mib"], self.bounds.peak_mib()
        what = f"held {peak} MiB of memory at its peak; it may have {limit} MiB"
        reason = self.reason
        self.tell("OutOfMemory", what)
        if not self.exit_code:
            self.reason = reason

    def exited(self, status: int, now: float) -> None:
        """Record how it ended; output that is still on its way is awaited for a moment."""
        code = os.waitstatus_to_exitcode(status)
        if self.plan["sandboxed"] and code > 128 and code - 128 in SIGNALS:
            code = 128 - code  # bubblewrap tells of signals as a shell does
        self.exit_code = code
        self.judge()
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
        if plan["environ"]:
            settings = b"".join(os.fsencode(setting) + b"\0" for setting in plan["environ"])
            hand(settings, ENVIRON_FD)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            namespaces.write("/proc/self/oom_score_adj", OOM_SCORE)
        bound(plan)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        if not plan["sandboxed"]:
            namespaces.die_with_parent()
            code = system_calls.program()
            if code is not None:
                system_calls.install(code)
        os.chdir(plan["cwd"])
        os.umask(0o022)
        os.execve(plan["argv"][0], plan["argv"], plan["env"])
    except BaseException as error:
        os.write(2, f"{plan['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(126)


def bound(plan: PlannedProcess) -> None:
    """Give a fresh child what bounds the sandbox that it becomes."""
    Cgroup(plan["groups"]).enter()
    # Of one byte: with 0 the kernel would still hand dumps to a program of the machine.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    if not plan["sandboxed"]:
        return
    if plan["processes"] and "pids" not in plan["groups"]:
        # A backstop between two looks: the user's sandboxes share it on kernels before 5.14.
        most = min(plan["processes"] * SHARED, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    code = system_calls.program()
    if code is not None:
        hand(code, FILTER_FD)


def hand(data: bytes, target: int) -> None:
    """Have a program that this process becomes read some bytes from a descriptor."""
    descriptor = system_calls.in_memory(data)
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)  # it may be the target already
    os.close(descriptor)
    os.dup2(kept, target)
    os.close(kept)
