"""Starts a script on all hosts by Open MPI, as AWS's toolkit does (`sagemaker_training.mpi`).

The first host runs mpirun. Where the toolkit has ssh start MPI's daemon on the others, this file
takes its place: `python mpi.py HOST COMMAND…` has HOST's runner, which waits for that, run COMMAND.
A gang's network is its own, so nobody else can ask. Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger("sagemaker-training-toolkit")
ENABLED = "sagemaker_mpi_enabled"
PREFIX = "CLOCHE_MPI"  # the folder of Open MPI, where the job asked for it
PORT = 2222  # where a host's runner waits
WORKERS_WITHIN_S = 3600.0  # as the toolkit: others may install their requirements still
LOOK_S = 0.1
LONGEST_LINE = 65_536  # bytes; a longer one is passed on in parts
RANK_TAIL = 16_384  # bytes of what a rank wrote to stderr, to tell why it failed
RANKS_KEPT = 256
OUTPUT, CODE = b"o", b"c"  # what an answer's parts are
TAG = re.compile(rb"\[(\d+),(\d+)\]<(stdout|stderr)>:? ?")
SINGLE = re.compile(r"-[a-z][a-z-]+")  # a long option with one dash, as Open MPI 4 took it
SHORT = ("-np", "-mca", "-gmca", "-omca", "-pmixmca", "-prtemca")
TRACEBACK = b"Traceback (most recent call last):"


def wanted(env: Mapping[str, Any]) -> bool:
    """Return whether this host's group is launched by MPI."""
    enabled = env["additional_framework_parameters"].get(ENABLED)
    return bool(enabled) and env["current_instance_group"] in env["distribution_instance_groups"]


def per_host(env: Mapping[str, Any]) -> int:
    """Return how many processes a host has: one, unless the job says otherwise."""
    given = env["additional_framework_parameters"].get("sagemaker_mpi_num_of_processes_per_host")
    return int(given) if given else 1


def set_up(env: Mapping[str, Any], exported: dict[str, str], packages: Path | None) -> None:
    """Make mpirun, its libraries and mpi4py findable in this process and what it starts.

    packages: None where the interpreter's own folder may be changed (in a sandbox).
    """
    prefix = Path(os.environ[PREFIX])
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], str(prefix / "bin")))
    libraries = [os.environ.get("LD_LIBRARY_PATH", ""), str(prefix / "lib")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    (site,) = prefix.glob("lib/python*/site-packages")
    if packages is not None or not behind(site):
        exported["PYTHONPATH"] = os.pathsep.join((exported["PYTHONPATH"], str(site)))
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and threads == os.environ.get("SM_NUM_CPUS"):  # nobody else set it
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(threads) // per_host(env)))


def behind(site: Path) -> bool:
    """Have this Python find packages after all its own; False: its folder can't be changed."""
    try:
        Path(sysconfig.get_path("purelib"), "cloche_mpi.pth").write_text(f"{site}\n")
    except OSError:
        return False
    return True


def options(text: str) -> tuple[str, list[str]]:
    """Return NCCL_DEBUG and the other words of custom_mpi_options, as this mpirun takes them."""
    debug, kept = "INFO", list[str]()
    words = iter(text.split())
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--NCCL_DEBUG":
            debug = value if equals else next(words, debug)
        elif SINGLE.fullmatch(word) and word not in SHORT:
            kept.append(f"-{word}")
        else:
            kept.append(word)
    return debug, kept


def command(
    env: Mapping[str, Any], exported: Mapping[str, str], script: Sequence[str], agent: Path
) -> list[str]:
    """Return mpirun's command line, as the toolkit makes it for Open MPI 4.

    Other than there: binding and the launch of daemons are spelled as Open MPI 5 has it, and no
    library is preloaded (a host's name is its own here).
    """
    extra, hosts = env["additional_framework_parameters"], env["distribution_hosts"]
    each = per_host(env)
    total = int(extra.get("sagemaker_mpi_num_processes") or each * len(hosts))
    listed = hosts if each == 1 else [f"{host}:{each}" for host in hosts]
    debug, custom = options(str(extra.get("sagemaker_mpi_custom_mpi_options") or ""))
    interface = env["network_interface_name"]
    logger.info(
        "Env Hosts: %s Hosts: %s process_per_hosts: %s num_processes: %s",
        hosts,
        listed,
        each,
        total,
    )
    made = ["mpirun", "--host", ",".join(listed), "-np", str(total), "--allow-run-as-root"]
    made += ["--display-map", "--tag-output"]
    made += ["--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "plm_ssh_no_tree_spawn", "1"]
    made += ["-mca", "btl_tcp_if_include", interface, "-mca", "oob_tcp_if_include", interface]
    if "--bind-to" not in custom:
        made += ["--bind-to", "none"]
    if "--map-by" not in custom:
        made += ["--map-by", "slot"]
    made += ["-mca", "pml", "ob1", "-mca", "btl", "^openib"]
    made += ["-mca", "orte_abort_on_non_zero_status", "1"]
    made += ["-mca", "btl_vader_single_copy_mechanism", "none"]
    made += ["-x", "NCCL_MIN_NRINGS=4", "-x", f"NCCL_SOCKET_IFNAME={interface}"]
    made += ["-x", f"NCCL_DEBUG={debug}", "-x", "LD_LIBRARY_PATH", "-x", "PATH", *custom]
    credentials = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in (*(name for name in credentials if name in os.environ), *exported):
        made += ["-x", name]
    return [*made, *script]


def by_mpi4py(script: Sequence[str]) -> list[str]:
    """Return a Python command line with mpi4py, which has an uncaught exception end all ranks."""
    return [script[0], "-m", "mpi4py", *script[1:]]


def make_agent() -> Path:
    """Write what mpirun starts in the place of ssh."""
    agent = Path(tempfile.mkdtemp(prefix="mpi-")) / "agent"
    words = " ".join(map(shlex.quote, (sys.executable, str(Path(__file__).resolve()))))
    agent.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    agent.chmod(0o700)
    return agent


# ---------------------------------------------------------------------- the hosts but the first


def serve(host: str, code: Path) -> None:
    """Run what the first host asks for until it says that all is done.

    A signal that asks to end is left to the first host, which has all ranks asked.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    done = threading.Event()
    with socket.create_server((host, PORT), backlog=16) as listening:
        logger.info("Starting MPI run as worker node.")
        listening.settimeout(LOOK_S)
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                connection.settimeout(None)
                threading.Thread(target=answer, args=(connection, code, done), daemon=True).start()
    logger.info("MPI process finished.")


def answer(connection: socket.socket, code: Path, done: threading.Event) -> None:
    """Do what one connection asks for: nothing (it looks whether we are here), a command, the end.

    A command whose asker goes away is killed with all that it started.
    """
    with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as stream:
        asked = json.loads(stream.readline() or b"{}")
        if asked.get("done"):
            done.set()
        if "signal" in asked:
            signal_ranks(os.getpid(), int(asked["signal"]))
        if "command" not in asked:
            return
        child = subprocess.Popen(
            ["/bin/sh", "-c", asked["command"]],
            cwd=code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=restored,
        )
        threading.Thread(target=end_with, args=(stream, child), daemon=True).start()
        assert child.stdout is not None
        while data := os.read(child.stdout.fileno(), LONGEST_LINE):
            send(connection, OUTPUT, data)
        status = child.wait()
        send(connection, CODE, b"%d" % (128 - status if status < 0 else status))


def restored() -> None:
    """Let a child be ended by the signals that `serve` ignores."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def end_with(stream: IO[bytes], child: subprocess.Popen[bytes]) -> None:
    """Kill a command's process group when the connection ends before the command does."""
    with contextlib.suppress(OSError, ValueError):
        stream.read(1)
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def send(connection: socket.socket, kind: bytes, data: bytes) -> None:
    """Send a part of an answer."""
    connection.sendall(kind + len(data).to_bytes(4, "big") + data)


def signal_ranks(root: int, number: int) -> int:
    """Send a signal to the ranks below a process; return how many there are.

    mpirun itself would take SIGTERM as a request to kill them at once.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, pending = 0, list(children.get(root, ()))
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            if b"\0OMPI_COMM_WORLD_RANK=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, number)
                found += 1
                continue
        pending += children.get(pid, ())
    return found


# ---------------------------------------------------------------------- the first host


class Run:
    """mpirun under way: a signal goes to the ranks, on all hosts."""

    def __init__(self, child: subprocess.Popen[bytes], env: Mapping[str, Any]) -> None:
        self.child, self.env = child, env

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self.child.poll()

    def send_signal(self, number: int) -> None:
        """Have the ranks asked to end; mpirun, where there are none yet."""
        threading.Thread(target=self._ask, args=(number,), daemon=True).start()

    def _ask(self, number: int) -> None:
        for host in others(self.env):
            with contextlib.suppress(OSError):
                ask(host, {"signal": number}).close()
        if not signal_ranks(self.child.pid, number):
            self.child.send_signal(number)


def ask(host: str, what: Mapping[str, Any], within_s: float = 10.0) -> socket.socket:
    """Return a connection to a host's runner that was asked for something."""
    connection = socket.create_connection((host, PORT), within_s)
    connection.settimeout(None)
    connection.sendall(json.dumps(what).encode() + b"\n")
    return connection


def await_workers(env: Mapping[str, Any]) -> None:
    """Return when the runners of the other hosts wait for us; TimeoutError when one does not."""
    until = time.monotonic() + WORKERS_WITHIN_S
    for host in others(env):
        while True:
            try:
                ask(host, {}).close()
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{host} was not ready for MPI within an hour") from None
                time.sleep(LOOK_S)
                continue
            break
        logger.info("Worker %s available for communication", host)


def dismiss(env: Mapping[str, Any]) -> None:
    """Tell the other hosts that all is done; one that is gone knows."""
    for host in others(env):
        with contextlib.suppress(OSError):
            ask(host, {"done": True}).close()


def others(env: Mapping[str, Any]) -> list[str]:
    """Return the hosts of the launch but this one."""
    return [host for host in env["distribution_hosts"] if host != env["current_host"]]


def agent_main(arguments: Sequence[str]) -> int:
    """Stand in for `ssh HOST COMMAND…`; return the command's exit code."""
    words = list(arguments)
    while words and words[0].startswith("-"):
        words.pop(0)  # ssh's own options
    host = words[0].rsplit("@", 1)[-1]
    with ask(host, {"command": " ".join(words[1:])}) as connection:
        stream = connection.makefile("rb")
        while kind := stream.read(1):
            data = stream.read(int.from_bytes(stream.read(4), "big"))
            if kind == CODE:
                return int(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 255  # as ssh when the connection is lost


class Ranks:
    """What the ranks write, passed on with their tags as AWS's logs have them.

    Open MPI's `[1,0]<stdout>: text` is `[1,mpirank:0,algo-1]<stdout>:text` there.
    """

    def __init__(self, env: Mapping[str, Any]) -> None:
        self.env = env
        self.hosts, self.each = env["distribution_hosts"], per_host(env)
        self.lock = threading.Lock()
        self.kept: dict[bytes, bytes] = {}  # rank (b"": mpirun itself) -> the end of its stderr
        self.failed: bytes | None = None  # the rank that printed the first traceback

    def relay(self, stream: IO[bytes], to: int) -> threading.Thread:
        """Return a thread, started, that passes a stream of mpirun's on."""
        thread = threading.Thread(target=self.pass_on, args=(stream, to), daemon=True)
        thread.start()
        return thread

    def pass_on(self, stream: IO[bytes], to: int) -> None:
        """Pass a stream on, line by line, until its end."""
        while line := stream.readline(LONGEST_LINE):
            data = self.line(line, to)
            while data:
                data = data[os.write(to, data) :]

    def line(self, line: bytes, stream: int) -> bytes:
        """Return a line of mpirun's stream as it is shown; what tells of a failure is kept."""
        found = TAG.match(line)
        rank, text = (b"", line) if found is None else (found[2], line[found.end() :])
        if stream == 2:
            self.keep(rank, text)
        if found is None:
            return line
        job, number, name = (part.decode() for part in found.groups())
        tag = f"[{job},mpirank:{number},{self.host_of(found[2])}]<{name}>:"
        return tag.encode() + text

    def keep(self, rank: bytes, text: bytes) -> None:
        """Keep the end of what a rank wrote to stderr."""
        with self.lock:
            if self.failed is None and text.strip() == TRACEBACK:
                self.failed = rank
            if rank in self.kept or len(self.kept) < RANKS_KEPT or rank == self.failed:
                self.kept[rank] = (self.kept.get(rank, b"") + text)[-RANK_TAIL:]

    def where(self) -> str:
        """Return which rank failed first, and on which host; empty: none said so."""
        if not self.failed:
            return ""
        return f" (rank {self.failed.decode()}, {self.host_of(self.failed)})"

    def host_of(self, rank: bytes) -> str:
        """Return a rank's host: they are mapped by slot."""
        place = int(rank) // self.each
        return str(self.hosts[place]) if place < len(self.hosts) else "unknown"

    def errors(self) -> str:
        """Return why it failed: the first rank's traceback, else mpirun's own words."""
        with self.lock:
            text = self.kept.get(self.failed if self.failed is not None else b"", b"")
            if self.failed is None and not text.strip():
                text = b"".join(self.kept.values())
        lines = text.decode("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines if line.strip("-"))


if __name__ == "__main__":
    sys.exit(agent_main(sys.argv[1:]))
