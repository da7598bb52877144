"""mpirun's command line, what its ranks write, and what stands in for ssh."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.runtime import mpi, training

WITHIN_S = 30.0


def env(hosts: int = 2, **extra: Any) -> dict[str, Any]:
    """Return what of the toolkit's Environment matters."""
    names = [f"algo-{number + 1}" for number in range(hosts)]
    return {
        "additional_framework_parameters": {"sagemaker_mpi_enabled": True, **extra},
        "current_host": names[0],
        "current_instance_group": "homogeneousCluster",
        "distribution_hosts": names,
        "distribution_instance_groups": ["homogeneousCluster"],
        "is_master": True,
        "network_interface_name": "lo",
    }


def test_command_is_the_toolkits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sagemaker_training.mpi` 5.1.4 makes it but for what the docstring of `command` says."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    options = "-verbose --NCCL_DEBUG WARN -x MORE=1 -mca a b"
    given = env(sagemaker_mpi_num_of_processes_per_host=3, sagemaker_mpi_custom_mpi_options=options)
    made = mpi.command(given, {"SM_HOSTS": "", "SM_HPS": ""}, ["python", "a.py"], Path("/agent"))
    assert " ".join(made) == (
        "mpirun --host algo-1:3,algo-2:3 -np 6 --allow-run-as-root --display-map --tag-output "
        "--prtemca plm_ssh_agent /agent --prtemca plm_ssh_no_tree_spawn 1 "
        "-mca btl_tcp_if_include lo -mca oob_tcp_if_include lo --bind-to none --map-by slot "
        "-mca pml ob1 -mca btl ^openib -mca orte_abort_on_non_zero_status 1 "
        "-mca btl_vader_single_copy_mechanism none -x NCCL_MIN_NRINGS=4 -x NCCL_SOCKET_IFNAME=lo "
        "-x NCCL_DEBUG=WARN -x LD_LIBRARY_PATH -x PATH --verbose -x MORE=1 -mca a b "
        "-x SM_HOSTS -x SM_HPS python a.py"
    )
    one = mpi.command(env(3), {}, ["x"], Path("/agent"))
    assert one[1:5] == ["--host", "algo-1,algo-2,algo-3", "-np", "3"]
    number = mpi.command(env(sagemaker_mpi_num_processes=5), {}, ["x"], Path("/agent"))
    assert number[1:5] == ["--host", "algo-1,algo-2", "-np", "5"]


@pytest.mark.parametrize(
    ("text", "debug", "words"),
    [
        ("", "INFO", []),
        ("--NCCL_DEBUG=TRACE", "TRACE", []),
        ("-bind-to core -map-by node", "INFO", ["--bind-to", "core", "--map-by", "node"]),
        ("-np 2 -x A -mca b c -N 1", "INFO", ["-np", "2", "-x", "A", "-mca", "b", "c", "-N", "1"]),
    ],
)
def test_custom_options(text: str, debug: str, words: list[str]) -> None:
    assert mpi.options(text) == (debug, words)


def test_lines_have_the_tags_of_awss_logs() -> None:
    ranks = mpi.Ranks(env(sagemaker_mpi_num_of_processes_per_host=2))
    assert ranks.line(b"[1,3]<stdout>: hi\n", 1) == b"[1,mpirank:3,algo-2]<stdout>:hi\n"
    assert ranks.line(b"[1,9]<stderr>: x\n", 2) == b"[1,mpirank:9,unknown]<stderr>:x\n"
    assert ranks.line(b"mpirun's own\n", 2) == b"mpirun's own\n"
    assert (ranks.errors(), ranks.where()) == ("mpirun's own", "")
    ranks.line(b"[1,2]<stderr>: Traceback (most recent call last):\n", 2)
    ranks.line(b"[1,0]<stderr>: Traceback (most recent call last):\n", 2)
    ranks.line(b"[1,0]<stderr>: ConnectionError: rank 2 is gone\n", 2)
    ranks.line(b"[1,2]<stderr>: ValueError: bad\n", 2)
    assert ranks.errors().splitlines()[-1] == "ValueError: bad"
    assert ranks.where() == " (rank 2, algo-2)"
    for rank in range(2000):
        ranks.line(b"[1,%d]<stderr>: %s\n" % (rank, b"x" * 60_000), 2)
    held = sum(map(len, ranks.kept.values()))
    assert held <= (mpi.RANKS_KEPT + 1) * mpi.RANK_TAIL


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host's runner that waits for commands, on this machine's loopback."""
    with socket.create_server(("127.0.0.3", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(mpi, "PORT", port)
    # `serve` ignores signals in a process of its own, and does so in its main thread.
    monkeypatch.setattr(mpi.signal, "signal", lambda *_: None)
    thread = threading.Thread(target=mpi.serve, args=("127.0.0.3", tmp_path), daemon=True)
    thread.start()
    mpi.await_workers({"distribution_hosts": ["127.0.0.3"], "current_host": "algo-1"})
    yield "127.0.0.3"
    mpi.dismiss({"distribution_hosts": ["127.0.0.3"], "current_host": "algo-1"})
    thread.join(WITHIN_S)
    assert not thread.is_alive(), "it ends when all is done"


def test_agent_runs_a_command_on_another_host(
    host: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    command = ["-x", f"root@{host}", "pwd;", "printf", "'a\\0b'", "1>&2;", "exit", "7"]
    assert mpi.agent_main(command) == 7
    assert capfdbinary.readouterr().out == f"{tmp_path}\n".encode() + b"a\0b"
    assert mpi.agent_main([host, "kill", "-9", "$$"]) == 137


def test_command_whose_asker_is_gone_is_killed(host: str, tmp_path: Path) -> None:
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    asking = mpi.ask(host, {"command": f"exec 3> {pipe}; sleep 600"})
    with pipe.open("rb") as alive:  # opened: the command runs
        asking.close()
        assert alive.read() == b"", "its end, when nobody has it open any more"


def test_a_signal_goes_to_the_ranks_and_not_to_mpirun() -> None:
    """The process with a rank's number is one; what started it is mpirun."""
    rank = "import time; print('up', flush=True); time.sleep(600)"
    child = subprocess.Popen(
        ["/bin/sh", "-c", f'OMPI_COMM_WORLD_RANK=0 {sys.executable} -c "{rank}"; echo end $?'],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    mpi.Run(child, {"distribution_hosts": ["a"], "current_host": "a"}).send_signal(signal.SIGTERM)
    assert child.wait(WITHIN_S) == 0
    assert child.stdout.read() == b"end 143\n"
    child.stdout.close()


def test_several_hosts_need_sandboxes(tmp_path: Path) -> None:
    layout = training.Layout(tmp_path)
    with pytest.raises(ValueError, match="mpi on several instances needs sandboxes"):
        training.run_by_mpi(env(), {}, layout, ["x"], shell=False)
