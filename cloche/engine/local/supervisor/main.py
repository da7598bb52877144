"""Starts a gang, answers for it, and writes down how each of its processes ended.

A run directory holds
- plan.json: what to start (written by the engine; see `plan.py`)
- lock: held (flock) for as long as the supervisor lives, from before it was started
- state.json: written once all processes run
- exit-NAME.json: how one process ended; written when its log is complete and on the disk
- control: a unix socket (see `control.py`)
- used: bytes that its files take, for the supervisors of other gangs
- supervisor.log: what went wrong in the supervisor itself
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time

from . import mounts, namespaces
from .control import Control
from .disk import DiskWatch, ProcessDisk, Tree
from .process import Process
from .version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import GangPlan

START_WITHIN_S = 60.0
KILL_AGAIN_S = 5.0
WRITE_AGAIN_S = 1.0
GIVE_UP_S = 3.0  # after which a full disk's log gives up its last records to what was lost
LOOK_AGAIN_S = 2.0  # whether the run directory is still there
WATCH_S = 0.5  # between two looks at what no control group bounds
AT_MOST = 20  # the part of the time that such looks may take
RECORD = 4096  # bytes that are set aside for each record before anything runs
BACKLOG = 1024  # requests that wait at a door while the server is down


class StartError(Exception):
    """The gang can't be started; the text says why."""


class Supervisor:
    """One gang's life."""

    def __init__(
        self,
        plan: GangPlan,
        doors: list[socket.socket],
        conversations: dict[str, socket.socket],
        listening: dict[str, socket.socket],
    ) -> None:
        self.plan = plan
        self.doors = doors
        self.conversations = conversations
        self.listening = listening
        self.processes: list[Process] = []
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.kill_at: float | None = None
        self.stopping = False
        self.running = False
        self.watch_at = 0.0  # monotonic
        self.disk = DiskWatch([Tree(planned["writable"]) for planned in plan["processes"]])
        for name in record_names(plan):
            set_aside(name)

    def start(self) -> None:
        """Start all processes or none; StartError tells why not."""
        self._listen()
        user, userns = self._enter_namespaces()
        for tree, planned in zip(self.disk.trees, self.plan["processes"], strict=True):
            if planned["volume"]:
                tree.volume = ProcessDisk(planned["volume"], planned["image"])
        try:
            for planned in self.plan["processes"]:
                conversation = self.conversations.get(planned["name"])
                with contextlib.ExitStack() as given:
                    listening = self.listening.pop(planned["name"], None)
                    if listening is not None:
                        given.enter_context(listening)  # from now on it is the process's alone
                    process = Process(planned, user, userns, conversation, listening)
                self.processes.append(process)
                self.selector.register(process.output, selectors.EVENT_READ, process)
            until = time.monotonic() + START_WITHIN_S
            while not all(process.ready for process in self.processes):
                self._turn(0.5)
                for process in self.processes:
                    if not process.ready and process.exit_code is not None:
                        process.read(time.monotonic())  # its last words may lie in the pipe still
                        raise StartError(f"{process.name}: {explain(process)}")
                if self.stopping:
                    raise StartError("the supervisor was asked to stop")
                if time.monotonic() > until:
                    raise StartError(f"a sandbox was not ready within {START_WITHIN_S:g} s")
            for process in self.processes:
                process.learn_processes()
            self._write_state()
        except BaseException:
            for process in self.processes:
                process.kill()
            raise
        self.started = time.monotonic()
        self.running = True
        for process, tree in zip(self.processes, self.disk.trees, strict=True):
            tree.pids = process.members
            process.go()

    def run(self) -> None:
        """Stay until every process has ended and its record is written, and kill what is left."""
        while not all(process.settled for process in self.processes):
            self._turn(self._pause())
            now = time.monotonic()
            end = self._end()
            if end is not None and now >= end:
                self.stop("MaxRuntimeExceeded")
            if self.stopping:
                self.stop("Stopped")
            if not os.path.exists("lock"):
                return  # the folder was removed: nobody will ever ask for this gang
            self._watch(now)
            if self.kill_at is not None and now >= self.kill_at:
                for process in self.processes:
                    process.kill()
                self.kill_at = now + KILL_AGAIN_S

    def stop(self, reason: str) -> None:
        """Ask all that still run to end; after the grace they are killed."""
        if self.kill_at is not None:
            return
        self.kill_at = time.monotonic() + self.plan["stop_grace_s"]
        for process in self.processes:
            if process.exit_code is None:
                process.reason = reason
                process.ask()

    def _watch(self, now: float) -> None:
        """End what exceeds its bounds, where nothing else holds it."""
        if now >= self.watch_at:
            for process in self.processes:
                process.watch()
            took = time.monotonic() - now
            self.watch_at = now + max(WATCH_S, took * AT_MOST)
        if now < self.disk.look_at:
            return
        with contextlib.suppress(OSError):  # the run directory was removed
            self.disk.look(now)
        for process, tree in zip(self.processes, self.disk.trees, strict=True):
            if process.exit_code is None and process.reason is None:
                excess = tree.excess(process.plan["disk_mib"], process.plan["files"])
                if excess is not None:
                    process.exceeds("DiskFull", excess)
        greedy = self.disk.greediest(now)
        if greedy is not None:
            process = self.processes[self.disk.trees.index(greedy)]
            if process.exit_code is None and process.reason is None:
                process.exceeds("DiskFull", greedy.on_a_full_disk())
                give_up_reserve()

    def _listen(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._signalled)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(wake_read, selectors.EVENT_READ)
        self.control = Control()
        self.selector.register(self.control.socket, selectors.EVENT_READ, self.control)

    def _signalled(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            self.stopping = True

    def _enter_namespaces(self) -> tuple[int | None, int | None]:
        """Return the user to become before the sandbox, and its user namespace."""
        user, userns = self.plan["user"], None
        if not self.plan["sandboxed"]:
            return user, userns
        if user is None:
            namespaces.enter_own_user_namespace()
        else:
            userns = namespaces.make_user_namespace(user, user)
            ids = namespaces.make_user_namespace(user, None)
            place, sources = self.plan["place"], self.plan["sources"]
            namespaces.enter_private_mounts(place, sources, set(self.plan["mapped"]), ids)
            os.close(ids)
        namespaces.set_up_network()
        for port in self.plan["ports"]:
            door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("127.0.0.1", port))
            door.listen(BACKLOG)
            self.doors.append(door)
        return user, userns

    def _write_state(self) -> None:
        processes = {p.name: {"pid": p.pid, "group": p.group} for p in self.processes}
        state = {
            "version": VERSION,
            "supervisor": os.getpid(),
            "started_ms": wall_ms(),
            "processes": processes,
        }
        write_record("state.json", state)

    def _pause(self) -> float:
        """Return seconds until something is due."""
        now = time.monotonic()
        times = [now + LOOK_AGAIN_S, self.kill_at, self._end(), self.disk.look_at]
        if any(p.holdings is not None and not p.settled for p in self.processes):
            times.append(self.watch_at)
        for process in self.processes:
            if not process.settled:
                times.append(process.pump.flush_at)
                times.append(None if process.exit_code is None else process.settle_at)
        return max(0.0, min(at for at in times if at is not None) - now)

    def _end(self) -> float | None:
        if self.plan["max_run_s"] is None or self.kill_at is not None:
            return None
        return self.started + self.plan["max_run_s"]

    def _turn(self, pause: float) -> None:
        """Wait for something to happen, and take note of it."""
        asked = False
        for key, _mask in self.selector.select(pause):
            if isinstance(key.data, Process):
                self._read(key.data)
            elif isinstance(key.data, Control):
                asked = True
            else:
                os.read(key.fd, 512)
        self._reap()
        now = time.monotonic()
        for process in self.processes:
            process.pump.tick(now)
            if self.running and process.is_due(now):
                self._settle(process)
        if asked:
            some = any(process.settled for process in self.processes)
            if self.control.answer(self.doors, some_ended=some) == b"stop":
                self.stop("Stopped")

    def _read(self, process: Process) -> None:
        process.read(time.monotonic())
        if process.silent:
            self.selector.unregister(process.output)

    def _reap(self) -> None:
        """Take note of processes that ended; the first failure ends the gang."""
        failed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for process, tree in zip(self.processes, self.disk.trees, strict=False):
                if process.pid == pid:
                    process.exited(status, time.monotonic())
                    self._judge(process, tree)
                    failed = failed or process.exit_code != 0
        if failed and self.running:
            self.stop("Stopped")

    def _judge(self, process: Process, tree: Tree) -> None:
        """Find out, when it has ended, whether its volume was too small for it, or the disk."""
        if tree.volume is None or process.reason is not None:
            return
        if not process.silent:
            self._read(process)  # its last words come before ours
        with contextlib.suppress(OSError):
            tree.volume.read()
        if self.disk.near() and tree.volume.lost():
            process.tell("DiskFull", tree.on_a_full_disk())
        elif process.exit_code != 0:
            excess = tree.excess(process.plan["disk_mib"], process.plan["files"])
            if excess is not None:
                process.tell("DiskFull", excess)

    def _settle(self, process: Process) -> None:
        """Write the record of a process that ended: its log is complete.

        The space for it was set aside; on a full disk it is the log that lacks something.
        """
        if not process.silent:
            process.silent = True
            self.selector.unregister(process.output)
        record = {
            "version": VERSION,
            "exit_code": process.exit_code,
            "reason": process.reason,
            "detail": process.detail,
            "ended_ms": process.ended_ms,
        }
        insist = wall_ms() > process.ended_ms + GIVE_UP_S * 1000
        try:
            if process.pump.finish(insist=insist):
                write_record(f"exit-{process.name}.json", record)
                process.settled = True
                self.control.tell()
        except OSError as error:
            say(f"{process.name}: {error}\n")
        process.settle_at = time.monotonic() + WRITE_AGAIN_S


def explain(process: Process) -> str:
    """Return what a process that never got ready said."""
    text = process.early.decode("utf-8", "replace").strip()
    return text or f"it ended with {process.exit_code}"


def end_orphans() -> None:
    """Kill all that is left of the gang: children, and where there is no sandbox their orphans."""
    children = f"/proc/self/task/{os.getpid()}/children"
    while True:
        try:
            with open(children) as listing:
                pids = [int(pid) for pid in listing.read().split()]
        except OSError:
            return
        if not pids:
            return
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def wall_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def say(text: str) -> None:
    """Tell something in supervisor.log, if there is space."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def record_names(plan: GangPlan) -> list[str]:
    """Return the records that a gang will leave."""
    return ["state.json", *(f"exit-{process['name']}.json" for process in plan["processes"])]


def set_aside(name: str) -> None:
    """Take the inode and the space for a record from the disk before a job can use them up."""
    fd = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, b" " * RECORD)  # it counts as taken at once: no fsync, which takes long
    os.close(fd)


def give_up_reserve() -> None:
    """Let the server have what was kept of the disk for it, until it makes that again."""
    root = os.path.basename(os.path.dirname(os.getcwd()))
    with contextlib.suppress(OSError):
        for name in os.listdir(f"../../.{root}-reserve"):
            os.unlink(f"../../.{root}-reserve/{name}")


def write_record(name: str, record: Mapping[str, object]) -> None:
    """Write a file of the run directory so that it is there whole or not at all."""
    fd = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    content = json.dumps(record).encode()
    os.pwrite(fd, content, 0)  # over the blocks that it has
    os.ftruncate(fd, len(content))
    os.fsync(fd)
    os.close(fd)
    os.rename(name + ".new", name)
    folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(folder)
    os.close(folder)


def detach() -> None:
    """Leave the caller's session, folder and terminal; what goes wrong is told in a file."""
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    said = os.open("supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, target in ((nothing, 0), (nothing, 1), (said, 2)):
        os.dup2(fd, target)
    os.close(nothing)
    os.close(said)


def main() -> None:
    """Run as `RUNDIR LOCK_FD REPORT_FD [DOOR_FD… | PROCESS=CONVERSATION_FD… | PROCESS@SOCKET_FD…]`.

    A byte on stdin says that the plan is written. The caller reads REPORT_FD to its end: "ok" when
    all processes run, else why not.
    """
    if os.fork():
        os._exit(0)
    folder, lock, report, *sockets = sys.argv[1:]
    doors: list[socket.socket] = []
    conversations: dict[str, socket.socket] = {}
    listening: dict[str, socket.socket] = {}
    for argument in sockets:
        for kind, named in (("=", conversations), ("@", listening)):
            name, found, fd = argument.rpartition(kind)
            if found:
                named[name] = socket.socket(fileno=int(fd))
                break
        else:
            doors.append(socket.socket(fileno=int(argument)))
    for given in (*doors, *conversations.values(), *listening.values()):
        given.set_inheritable(False)
    for descriptor in (lock, report):
        os.set_inheritable(int(descriptor), False)
    if not os.read(0, 1):
        os._exit(0)  # what was to be prepared could not be
    os.chdir(folder)
    detach()
    namespaces.become_subreaper()
    try:
        with open("plan.json", encoding="utf-8") as file:
            plan: GangPlan = json.load(file)
        if plan.get("version", 1) > VERSION:
            raise StartError(f"the plan is a newer Cloche's (version {plan['version']})")
        supervisor = Supervisor(plan, doors, conversations, listening)
        supervisor.start()
    except BaseException as error:
        tell(int(report), str(error))
        raise
    tell(int(report), "ok")
    if plan["sandboxed"] and plan["user"] is not None:
        mounts.leave(plan["place"])
    supervisor.run()
    for process in supervisor.processes:
        process.kill()
    end_orphans()
    supervisor.disk.end()
    for process in supervisor.processes:
        process.bounds.remove()


def tell(report: int, answer: str) -> None:
    """Answer the server that waits, if it lives."""
    with contextlib.suppress(BrokenPipeError):
        os.write(report, answer.encode()[:60_000])
    os.close(report)
