"""The parent: holds the sockets while servers come and go, and ends with them when asked."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.cli.down import is_alive
from cloche.testing.platform import free_port

PROGRAM = Path(__file__).with_name("small_server.py")
WITHIN_S = 60.0


class Running:
    """A parent, and what its server says."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        command = [sys.executable, str(PROGRAM), "parent", str(home), str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def ends(self) -> tuple[int, str]:
        """Return the exit code and what was logged."""
        _, said = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, said

    def answer(self) -> int:
        """Return the pid of the server that answers a new connection."""
        with socket.create_connection(("127.0.0.1", self.port), WITHIN_S) as connection:
            return int(connection.recv(100))

    @property
    def lives(self) -> list[list[str]]:
        """Of each server: its pid, the number of restarts, and how the one before ended."""
        path = self.home / "lives"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 2) for line in lines]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a parent whose servers are as said."""
    made: list[Running] = []

    def run(*kinds: str) -> Running:
        for kind in kinds:
            (tmp_path / kind).touch()
        made.append(Running(tmp_path))
        return made[-1]

    yield run
    for running in made:
        running.process.kill()
        running.process.communicate()


def test_killed_servers_are_replaced_while_connections_wait(
    start: Callable[..., Running],
) -> None:
    running = start()
    until((running.home / "ready").exists)
    pids = [running.answer()]
    for _ in range(3):
        os.kill(pids[-1], signal.SIGKILL)
        until(lambda: not is_alive(pids[-1]))
        pids.append(running.answer())  # nobody lives who would answer, and nobody refuses
    assert len(set(pids)) == 4
    assert [(int(pid), *rest) for pid, *rest in running.lives] == [
        (pids[0], "0", "None"),
        *[(pid, f"{n}", "was killed by SIGKILL") for n, pid in enumerate(pids[1:], 1)],
    ]
    running.process.send_signal(signal.SIGTERM)
    code, said = running.ends()
    assert code == 0
    told = [line.partition(" ERROR cloche.server: ")[2] for line in said.splitlines()]
    assert told == [
        f"The server (pid {pids[0]}) was killed by SIGKILL; it is started again",
        f"The server (pid {pids[1]}) was killed by SIGKILL; it is started again in 0.01 s",
        f"The server (pid {pids[2]}) was killed by SIGKILL; it is started again in 0.02 s",
    ]


def test_one_that_never_came_up_is_not_started_again(start: Callable[..., Running]) -> None:
    running = start("fails")
    assert running.ends() == (1, "This is why.\n")
    assert len(running.lives) == 1


def test_one_that_always_dies_is_given_up_loudly(start: Callable[..., Running]) -> None:
    running = start("dies")
    code, said = running.ends()
    lines = said.splitlines()
    assert code == 128 + signal.SIGSEGV and len(running.lives) == len(lines) == 8
    last = running.lives[-1][0]
    assert lines[-1].endswith(
        f" CRITICAL cloche.server: The server (pid {last}) was killed by SIGSEGV, for the 8th time "
        "in a row: Cloche gives up. Jobs and endpoints keep running; the next `cloche up` finds "
        "them."
    )
    with pytest.raises(ConnectionRefusedError):
        running.answer()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_both(start: Callable[..., Running], number: signal.Signals) -> None:
    running = start()
    until((running.home / "ready").exists)
    pid = running.answer()
    running.process.send_signal(number)
    assert running.ends() == (0, "") and not is_alive(pid)


def test_while_it_stops_new_connections_are_refused_and_a_second_signal_is_passed_on(
    start: Callable[..., Running],
) -> None:
    running = start("lingers")
    until((running.home / "ready").exists)
    running.process.send_signal(signal.SIGINT)
    until((running.home / "asked").exists)
    with pytest.raises(ConnectionRefusedError):
        running.answer()
    assert running.process.poll() is None  # the server has not ended
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == (0, "")


def test_one_that_must_be_killed_to_end_is_not_started_again(start: Callable[..., Running]) -> None:
    running = start("lingers")
    until((running.home / "ready").exists)
    running.process.send_signal(signal.SIGTERM)
    until((running.home / "asked").exists)
    os.kill(int(running.lives[0][0]), signal.SIGKILL)
    assert running.ends() == (128 + signal.SIGKILL, "")
    assert len(running.lives) == 1


def test_a_server_that_is_asked_to_end_is_not_started_again(start: Callable[..., Running]) -> None:
    running = start()
    until((running.home / "ready").exists)
    os.kill(running.answer(), signal.SIGTERM)
    assert running.ends() == (0, "")
    assert len(running.lives) == 1


def test_a_signal_ends_the_pause_before_a_start(start: Callable[..., Running]) -> None:
    running = start("dies", "waits")
    assert running.process.stderr is not None
    said = [running.process.stderr.readline() for _ in range(2)]
    assert said[1].endswith(" was killed by SIGSEGV; it is started again in 600 s\n")
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == (0, "") and len(running.lives) == 2


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_parent_takes_its_server_along(
    start: Callable[..., Running], stopped: bool
) -> None:
    """Even one that hangs: it would keep the home folder and the ports from the next `up`."""
    running = start()
    until((running.home / "ready").exists)
    pid = running.answer()
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    running.process.kill()
    until(lambda: not is_alive(pid))
    with pytest.raises(ConnectionRefusedError):
        running.answer()
    with socket.create_server(("127.0.0.1", running.port)):
        pass
