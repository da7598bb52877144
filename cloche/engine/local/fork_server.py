"""A fork server: imports an environment's packages once, and forks scripts into sandboxes.

Run by the environment's own interpreter, as `python fork_server.py MODULE…`, by the user that the
engine runs as. It imports a module when a script was seen to (that script, and all that import
none, start as ordinary processes). It never runs user code, nor has a job's layer on its path; of
what user code wrote it hears the numbers of modules, once for each understudy.
As root it sees the machine read-only. `fork_fresh.py` says what a fork has again. Standard library
only, Python 3.9 and later.

- Descriptor 0 is the engine's socket: each message carries one end of a conversation; when the
  engine is gone, or has asked for nothing for IDLE_S, the fork server ends.
- First message of a conversation, by the supervisor: the filter of a sandbox's system calls, a
  pidfd of its first program, and descriptors by which its control groups are entered. A fork
  enters that sandbox and forks once more: the understudy, which takes on the very credentials of
  that program, and waits. Where a layer lies over the environment in there, it is of use only if
  the imports that were done out here would have found the same (`Imports`).
- Second message, by the runner in the sandbox: argv, env, cwd, and stdout and stderr. The
  understudy answers "standing PID" (as seen in there), and at "go" it becomes the script; where it
  is of no use, or a script could tell the difference, the conversation ends.
- Last: "exit STATUS", by the one that stayed outside, which reads nothing from inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.machinery
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import types
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.local.fork_fresh import ImportWatch, countable, name_libraries
    from cloche.engine.local.fork_imports import Imports
    from cloche.engine.local.supervisor import mounts
else:
    from fork_fresh import ImportWatch, countable, name_libraries  # beside this file
    from fork_imports import Imports
    from supervisor import mounts

IDLE_S = 1800.0
REQUEST_LIMIT = 1 << 20
CLONE_NEWNS = 0x20000
# user, mount, process IDs, network, IPC, host name: what a sandbox has of its own
NAMESPACES = 0x10000000 | CLONE_NEWNS | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
OWN = {"JE_ARROW_MALLOC_CONF"}  # so that PyArrow starts no thread; it is not the script's
MOUNTED = "CLOCHE_MOUNTED"  # in the environment once the mounts are made
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
INTRODUCTION_LIMIT = 8192
LIMITS = {  # those that a sandbox has of its own, as /proc names them
    "Max core file size": resource.RLIMIT_CORE,
    "Max processes": resource.RLIMIT_NPROC,
}
CAPABILITY_VERSION_3 = 0x20080522
# Variables that an interpreter or a library reads when it is loaded, other than by `os.environ`.
LOAD_TIME = re.compile(
    r"\b(?:(?:OMP|KMP|GOMP|GOTO|BLIS|MKL|OPENBLAS|ATEN|C10|DNNL|ONEDNN|PYTORCH|KINETO|NPY|TBB|MALLOC"
    r"|LC|OPENSSL)_[A-Z]\w*|TORCH_(?!HOME)[A-Z]\w*|LD_[A-Z]\w*|GLIBC_TUNABLES|LANG|LANGUAGE"
    r"|LOCPATH|PYTHON[A-Z]+)\b"
)
SET_ANEW = ("OMP_NUM_THREADS", "PYTHONPATH")  # by `ImportWatch.refresh` and `become_script`
# Those that a script may mention: PASSIVE is so already, the other is read by new processes only.
MENTIONED = ("OMP_WAIT_POLICY", "PYTHONHASHSEED")
ACTIVE = re.compile(r"""["']active["']""", re.IGNORECASE)
CODE_LIMIT = 8 << 20  # bytes of a job's code that are looked through

libc = ctypes.CDLL(None, use_errno=True)
history = Imports()
watch = ImportWatch()


def checked(result: int, what: str) -> None:
    """OSError, with what was tried, when a system call failed."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def make_unwritable() -> None:
    """See the machine's files in a private view that can't be written, but for /tmp and /proc.

    /dev/shm is one of its own.
    """
    checked(libc.unshare(CLONE_NEWNS), "unshare")
    checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
    mounts.leave()
    checked(libc.mount(b"/tmp", b"/tmp", None, MS_BIND, None), "bind /tmp")
    # Packages try at import whether there are semaphores (joblib: else all its work is serial).
    checked(libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m,mode=1777"), "/dev/shm")
    writable = (b"/tmp", b"/proc", b"/dev/shm")
    views = ((b"/", AT_RECURSIVE, 1, 0), *((path, 0, 0, 1) for path in writable))
    for path, flags, on, off in views:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY * on, MOUNT_ATTR_RDONLY * off, 0, 0)
        size = ctypes.sizeof(attributes)
        checked(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, flags, attributes, size), "setattr")


class Filter(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def limit(text: str) -> int:
    """Return a resource limit as /proc tells it."""
    return resource.RLIM_INFINITY if text.strip() == "unlimited" else int(text)


class Privileges:
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
        with open(f"/proc/{pid}/limits") as file:
            self.limits = {
                LIMITS[line[:26].strip()]: (limit(line[26:47]), limit(line[47:68]))
                for line in file
                if line[:26].strip() in LIMITS
            }
        self.nice = os.getpriority(os.PRIO_PROCESS, pid)

    def take_outside(self, entrances: list[int]) -> None:
        """Take on what only the machine's root may set; `entrances`: of its control groups."""
        for entrance in entrances:
            os.write(entrance, b"0")
            os.close(entrance)
        for which, limits in self.limits.items():
            resource.setrlimit(which, limits)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(self.oom_score)
        os.setpriority(os.PRIO_PROCESS, 0, self.nice)

    def take_inside(self, code: bytes) -> None:
        """Become the sandbox's root with the same capabilities and no others, for good.

        code: the filter of system calls.
        """
        if bool(code) != bool(self.seccomp):
            raise OSError("the sandbox has another filter of system calls")
        with contextlib.suppress(PermissionError):  # an unprivileged user's namespace
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
        if code:
            given = ctypes.byref(Filter(len(code) // 8, code))
            checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, given, 0, 0), "seccomp")


def enter(conversation: socket.socket) -> None:
    """Enter the sandbox that the supervisor names; returns in the understudy alone."""
    told, descriptors, _flags, _address = socket.recv_fds(conversation, INTRODUCTION_LIMIT, 16)
    if not told:
        os._exit(0)  # the launch failed
    sandbox, *entrances = descriptors
    credentials = Privileges(named_by(sandbox))
    credentials.take_outside(entrances)
    checked(libc.setns(sandbox, NAMESPACES), "setns")
    os.close(sandbox)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    understudy = os.fork()
    credentials.take_inside(told.partition(b" ")[2])
    if understudy == 0:
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")
        os.setsid()
        return
    _, status = os.waitpid(understudy, 0)
    with contextlib.suppress(OSError):
        conversation.send(b"exit %d" % status)
    os._exit(0)


def named_by(pidfd: int) -> int:
    """Return the process that a pidfd stands for, whatever anybody says it is; ValueError: none."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        fields = dict(line.split(":", 1) for line in file)
    pid = int(fields.get("Pid", "-1"))
    if pid <= 0:
        raise ValueError("no process, or one that has ended")
    return pid


def await_request(conversation: socket.socket, wanted: int, layered: bool) -> list[str]:
    """Take the runner's request: environment, folder, output. Return argv when it says go.

    wanted: where to say which modules are to be imported for the next one.
    """
    text, descriptors, _flags, _address = socket.recv_fds(conversation, REQUEST_LIMIT, 2)
    if not text:
        os._exit(0)  # it was not needed
    request: dict[str, Any] = json.loads(text)
    for target, descriptor in zip((1, 2), descriptors):  # noqa: B905 (Python 3.9)
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    imported = fitting(request["argv"], request["env"], wanted)
    if not imported:
        os._exit(0)
    os.close(wanted)
    if layered and not history.same():
        os._exit(0)
    os.environ.clear()
    os.environ.update(request["env"])
    watch.set_as_imports_did(imported)
    conversation.send(b"standing %d" % os.getpid())
    if conversation.recv(16) != b"go":
        os._exit(0)  # it was too late
    conversation.close()
    return list(request["argv"])


def fitting(argv: list[str], env: dict[str, str], wanted: int) -> list[str]:
    """Return which modules a script need not import any more; none where it gains nothing, or could
    tell an understudy here from an interpreter of its own.

    `python SCRIPT.py …`, whose code imports modules of which all are here; and no variable, in
    the environment or in the code, of those that an interpreter or a numeric library reads when it
    is loaded, or that imports have read, that would have been another here.
    """
    if argv[:1] != [sys.executable] or not argv[1].endswith(".py"):
        return []
    names = {name for name in (*env, *watch.before) if LOAD_TIME.fullmatch(name)}
    if any(env.get(name) != watch.before.get(name) for name in names.difference(SET_ANEW)):
        return []
    if watch.differs(env) or not countable(env.get("OMP_NUM_THREADS")):
        return []
    code = code_in(".")
    if code is None or not harmless(code) or watch.mentioned(code):
        return []
    imported = [number for number, name in enumerate(modules()) if imports(code, name)]
    missing = [number for number in imported if modules()[number] not in sys.modules]
    if missing:
        os.write(wanted, bytes(missing))
    return [] if missing else [modules()[number] for number in imported]


def code_in(folder: str) -> str | None:
    """Return all Python code in a folder; None when it is too much to look through."""
    parts, left = [], CODE_LIMIT
    for where, _folders, files in os.walk(folder):
        for name in files:
            if name.endswith(".py"):
                with open(os.path.join(where, name), errors="replace") as file:
                    parts.append(file.read(left))
                left -= len(parts[-1])
                if left <= 0:
                    return None
    return "\n".join(parts)


def harmless(code: str) -> bool:
    """Return whether code mentions no variable that it might set in vain."""
    mentioned = {match[0] for match in LOAD_TIME.finditer(code)}
    if mentioned.difference(MENTIONED):
        return False
    return "OMP_WAIT_POLICY" not in mentioned or not ACTIVE.search(code)


def imports(code: str, module: str) -> bool:
    """Return whether code imports a module, or something of it."""
    statement = rf"^[ \t]*(?:import|from)[ \t][^#\n]*\b{re.escape(module)}\b"
    return re.search(statement, code, re.MULTILINE) is not None


def modules() -> list[str]:
    """Return the modules that may be imported, at most 256."""
    return sys.argv[1:]


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
    if os.geteuid() == 0 and os.environ.pop(MOUNTED, None) is None:
        make_unwritable()
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, MOUNTED: "yes"})
    watch.before = {k: v for k, v in os.environ.items() if k not in OWN}
    sys.path[0] = os.devnull  # this file's folder; a script puts its own there
    sys.meta_path.append(history)
    # As in an interpreter that the engine starts, though the server may ignore them (nohup, &).
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    engine = socket.socket(fileno=os.dup(0))
    waiting = select.poll()
    waiting.register(engine, select.POLLIN)
    while ready := [fd for fd, _events in waiting.poll(IDLE_S * 1000)]:
        for fd in ready:
            if fd != engine.fileno():
                waiting.unregister(fd)
                numbers = os.read(fd, 256)
                os.close(fd)  # each is heard once: what holds the other end may be hostile by now
                load(numbers)
        if engine.fileno() in ready:
            text, descriptors, _flags, _address = socket.recv_fds(engine, 16, 1)
            if not text:
                break
            conversation = socket.socket(fileno=descriptors[0])
            hears, wanted = os.pipe()
            if os.fork() == 0:
                return understudy(conversation, wanted, text == b"layered")
            os.close(wanted)
            waiting.register(hears, select.POLLIN)
            conversation.close()
    raise SystemExit(0)


def load(numbers: bytes) -> None:
    """Import modules, for all that are forked from now on; what is no module's number is none."""
    names = [name for number, name in enumerate(modules()) if number in numbers]
    if all(name in sys.modules for name in names):
        return
    sys.dont_write_bytecode = True  # the environment would look changed
    for name in names:
        with watch.importing(name), contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.dont_write_bytecode = False
    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("a package has started a thread: what is forked would hang")
    history.note()
    name_libraries()
    gc.collect()
    gc.freeze()


def understudy(conversation: socket.socket, wanted: int, layered: bool) -> list[str]:
    """Keep nothing but the two descriptors, enter the sandbox, wait for what to run."""
    try:
        sys.meta_path.remove(history)
        for name in ("fork_imports", "fork_fresh", "supervisor.mounts", "supervisor"):
            del sys.modules[name]  # a script may have one of this name
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (conversation.detach(), wanted)]
        for fd, target in zip(kept, (3, 4)):  # noqa: B905 (Python 3.9)
            os.dup2(fd, target)
        os.closerange(5, 65536)
        conversation = socket.socket(fileno=3)
        take_nothing()
        enter(conversation)
        take_nothing()  # the sandbox's own
        return await_request(conversation, 4, layered)
    except BaseException:
        os._exit(125)  # the conversation ends, and the runner starts the script itself


def take_nothing() -> None:
    """Have /dev/null, as it is seen here, for input and output."""
    for target, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        nothing = os.open("/dev/null", flags)
        os.dup2(nothing, target)
        os.close(nothing)


def run() -> None:
    """Serve; in a fork, be the script up to its end, as the interpreter does it."""
    argv = serve()
    watch.refresh()
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
