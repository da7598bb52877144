"""A fork server: has imported an environment's packages, and forks scripts into sandboxes.

Run as `python fork_server.py MODULE…` by the environment's own interpreter, as root. It never runs
user code and never reads what user code wrote. Standard library only, Python 3.9 and later.

- Descriptor 0 is the engine's socket: each message carries one end of a conversation; when the
  engine is gone, or has asked for nothing for IDLE_S, the fork server ends.
- First message of a conversation, by the supervisor: the process ID of a sandbox's first program,
  and a pidfd of it. A fork enters that sandbox and forks once more: the understudy, which takes
  on the very credentials of that program, and waits.
- Second message, by the runner in the sandbox: argv, env, cwd, and stdout and stderr. The
  understudy answers "standing PID" (as seen in there), and at "go" it becomes the script.
- Last: "exit STATUS", by the one that stayed outside, which reads nothing from inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.machinery
import json
import os
import select
import signal
import socket
import sys
import tempfile
import types
from typing import Any

IDLE_S = 1800.0
NICE = 3  # while it imports: jobs that run come first
REQUEST_LIMIT = 1 << 20
CLONE_NEWNS = 0x20000
# user, mount, process IDs, network, IPC, host name: what a sandbox has of its own
NAMESPACES = 0x10000000 | CLONE_NEWNS | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAPABILITY_VERSION_3 = 0x20080522
OPENBLAS = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """OSError, with what was tried, when a system call failed."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def make_unwritable() -> None:
    """See the machine's files in a private view that can't be written, but for /tmp and /proc."""
    checked(libc.unshare(CLONE_NEWNS), "unshare")
    checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
    checked(libc.mount(b"/tmp", b"/tmp", None, MS_BIND, None), "bind /tmp")
    views = ((b"/", AT_RECURSIVE, 1, 0), (b"/tmp", 0, 0, 1), (b"/proc", 0, 0, 1))
    for path, flags, on, off in views:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY * on, MOUNT_ATTR_RDONLY * off, 0, 0)
        size = ctypes.sizeof(attributes)
        checked(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, flags, attributes, size), "setattr")


class Credentials:
    """What the kernel lets a process do; read from one, taken on by another."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        names = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
        self.sets = {name: int(fields[name], 16) for name in names}
        self.no_new_privileges = int(fields["NoNewPrivs"])
        self.umask = int(fields["Umask"], 8)
        self.seccomp = int(fields["Seccomp"])
        with open(f"/proc/{pid}/oom_score_adj") as file:
            self.oom_score = file.read()
        self.nice = os.getpriority(os.PRIO_PROCESS, pid)

    def take_outside(self) -> None:
        """Take on what only the machine's root may set; no filter can be taken on."""
        if self.seccomp:
            raise OSError("the sandbox has a seccomp filter")
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(self.oom_score)
        os.setpriority(os.PRIO_PROCESS, 0, self.nice)

    def take_inside(self) -> None:
        """Become the sandbox's root with the same capabilities and no others, for good."""
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        numbers = range(64)
        for number in numbers:
            if not self.sets["CapBnd"] >> number & 1:
                libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL: there is no such one
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        words = [
            self.sets[name] >> shift & 0xFFFFFFFF
            for shift in (0, 32)
            for name in ("CapEff", "CapPrm", "CapInh")
        ]
        checked(libc.capset(header, (ctypes.c_uint32 * 6)(*words)), "capset")
        for number in numbers:
            if self.sets["CapAmb"] >> number & 1:
                raised = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)
                checked(raised, "ambient capabilities")
        if self.no_new_privileges:
            checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        os.umask(self.umask)


def enter(conversation: socket.socket) -> None:
    """Enter the sandbox that the supervisor names; returns in the understudy alone."""
    text, descriptors, _flags, _address = socket.recv_fds(conversation, 64, 1)
    if not text:
        os._exit(0)  # the launch failed
    (sandbox,) = descriptors
    credentials = Credentials(int(text))
    credentials.take_outside()
    checked(libc.setns(sandbox, NAMESPACES), "setns")
    os.close(sandbox)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    understudy = os.fork()
    credentials.take_inside()
    if understudy == 0:
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")
        os.setsid()
        return
    _, status = os.waitpid(understudy, 0)
    with contextlib.suppress(OSError):
        conversation.send(b"exit %d" % status)
    os._exit(0)


def await_request(conversation: socket.socket) -> list[str]:
    """Take the runner's request: environment, folder, output. Return argv when it says go."""
    text, descriptors, _flags, _address = socket.recv_fds(conversation, REQUEST_LIMIT, 2)
    if not text:
        os._exit(0)  # it was not needed
    request: dict[str, Any] = json.loads(text)
    for target, descriptor in zip((1, 2), descriptors):  # noqa: B905 (Python 3.9)
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    conversation.send(b"standing %d" % os.getpid())
    if conversation.recv(16) != b"go":
        os._exit(0)  # it was too late
    conversation.close()
    return list(request["argv"])


def refresh() -> None:
    """Make new what an interpreter has of its own: threads, randomness, the temporary folder."""
    tempfile.tempdir = None
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        set_threads(int(threads))
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def set_threads(number: int) -> None:
    """Give the numeric libraries that are loaded the threads that OMP_NUM_THREADS asks for."""
    with open("/proc/self/maps") as maps:
        files = {line.split(None, 5)[5].strip() for line in maps if ".so" in line}
    for file in files:
        name = os.path.basename(file)
        setters: tuple[str, ...] = ()
        if "gomp" in name or "iomp" in name or "libomp" in name:
            setters = ("omp_set_num_threads",)
        elif "openblas" in name:
            setters = OPENBLAS
        if setters:
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(file, mode=os.RTLD_NOLOAD)
                for setter in setters:
                    if hasattr(library, setter):
                        getattr(library, setter)(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def become_script(argv: list[str]) -> types.CodeType:
    """Set up `__main__` as `python SCRIPT ARGUMENTS` does; return the script's code."""
    path = os.path.abspath(argv[1])
    sys.argv, sys.orig_argv = argv[1:], argv
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [os.path.dirname(os.path.realpath(path)), *(part for part in given if part)]
    sys.path_importer_cache.clear()
    main = types.ModuleType("__main__")
    main.__file__ = path
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    main.__loader__ = loader
    main.__dict__.update(__builtins__=__builtins__, __cached__=None, __annotations__={})
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def serve() -> list[str]:
    """Answer the engine; return in an understudy alone, with what it is to run."""
    os.nice(NICE)
    make_unwritable()
    sys.dont_write_bytecode = True  # the environment would look changed
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.dont_write_bytecode = False
    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("a package has started a thread: what it forks would hang")
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    engine = socket.socket(fileno=os.dup(0))
    engine.send(b"ready")
    while select.select([engine], [], [], IDLE_S)[0]:
        text, descriptors, _flags, _address = socket.recv_fds(engine, 16, 1)
        if not text:
            break
        conversation = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            return understudy(conversation)
        conversation.close()
    raise SystemExit(0)


def understudy(conversation: socket.socket) -> list[str]:
    """Keep nothing but the conversation, enter the sandbox, wait for what to run."""
    try:
        kept = conversation.detach()
        if kept != 3:
            os.dup2(kept, 3)
        os.closerange(4, 65536)
        conversation = socket.socket(fileno=3)
        take_nothing()
        enter(conversation)
        take_nothing()  # the sandbox's own
        return await_request(conversation)
    except BaseException:
        os._exit(125)  # the conversation ends, and the runner starts the script itself


def take_nothing() -> None:
    """Have /dev/null, as it is seen here, for input and output."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)
    os.close(nothing)


def run() -> None:
    """Serve; in a fork, be the script up to its end, as the interpreter does it."""
    argv = serve()
    refresh()
    try:
        exec(become_script(argv), sys.modules["__main__"].__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__
        shown = trace.tb_next if trace is not None else None
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        raise SystemExit(1) from None


if __name__ == "__main__":
    run()
