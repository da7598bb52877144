"""What user code does with its environment: pip, torch, four hosts that compute together."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.local.probe import probe
from cloche.testing.engine_lab import Lab, outcomes
from cloche.testing.local_engine import local_lab
from cloche.testing.wheel import write_wheel

MACHINE = probe()
VENV = Path(sys.prefix)
pytestmark = [
    pytest.mark.skipif(MACHINE.isolation != "full", reason=" ".join(MACHINE.advice)),
    pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="needs a virtual environment"),
    pytest.mark.skipif(
        VENV.stat().st_uid != os.getuid(), reason="needs a virtual environment of our own"
    ),
]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs torch (user code's extra)"
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with local_lab(tmp_path, MACHINE) as lab:
        yield lab


def in_venv(lab: Lab, name: str, script: str, *mounts: Mount) -> ProcessSpec:
    """Return a host that runs a shell script in the tests' own environment, laid over."""
    base = lab.mount(Path(sys.base_prefix), sys.base_prefix)
    own = (base, lab.mount(VENV, str(VENV), "overlay"))
    path = f"{VENV}/bin:/usr/bin:/bin"
    env = {"PATH": path, "OMP_NUM_THREADS": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    log = lab.log_for(name)
    argv = ("/bin/sh", "-c", script)
    return ProcessSpec(name=name, argv=argv, env=env, log=log, mounts=(*own, *mounts))


def test_pip_install_changes_nothing_outside(lab: Lab) -> None:
    wheels = lab.folder / "wheels"
    wheels.mkdir()
    write_wheel(wheels, "cloche_demo", "1.0", "ANSWER = 42\n")
    script = (
        "python -m pip install -q --no-index --find-links /wheels cloche-demo && "
        "python -c 'import cloche_demo; print(cloche_demo.ANSWER)' && "
        "python -m pip uninstall -q -y psutil && ! python -c 'import psutil' 2>/dev/null"
    )
    host = in_venv(lab, "h", script, lab.mount(wheels, "/wheels"))
    assert outcomes(lab.run(host)) == {"h": (0, None)}
    assert lab.log("h")[0] == "42"
    assert importlib.util.find_spec("cloche_demo") is None
    assert importlib.util.find_spec("psutil") is not None


@needs_torch
@pytest.mark.torch
def test_four_hosts_compute_together(lab: Lab) -> None:
    """Gloo's all_reduce across a gang; torch finds all that it needs and complains of nothing."""
    (lab.folder / "code").mkdir()
    (lab.folder / "code" / "work.py").write_text(
        "import os, sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.ones(1000) * (dist.get_rank() + 1)\n"
        "dist.all_reduce(x)\n"
        "print(os.environ['HOSTNAME'], int(x.sum()), flush=True)\n"
        "dist.barrier(); dist.destroy_process_group()\n"
    )
    names = lab.python("names", "import socket; print(socket.if_nameindex())")
    lab.run(names, name="names")
    has_eth0 = "eth0" in lab.log("names")[0]  # a kernel without that module has only lo
    hosts = []
    for rank in range(4):
        script = (
            f"export RANK={rank} WORLD_SIZE=4 MASTER_ADDR=algo-1 MASTER_PORT=7777; "
            f"{'export GLOO_SOCKET_IFNAME=eth0; ' if has_eth0 else ''}"
            "exec python /code/work.py"
        )
        code = lab.mount(lab.folder / "code", "/code")
        hosts.append(in_venv(lab, f"algo-{rank + 1}", script, code))
    lab.place(GangSpec(name="gang", processes=tuple(hosts)))
    assert set(outcomes(lab.finished()).values()) == {(0, None)}
    for rank in range(4):
        assert lab.log(f"algo-{rank + 1}") == [f"algo-{rank + 1} 10000"]
