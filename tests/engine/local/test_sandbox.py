"""From specs to plans: pure, as tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloche.engine import EngineError, GangSpec, Input, Mount, ProcessSpec
from cloche.engine.local import sandbox
from cloche.engine.local.reduced import plan_reduced, translate
from cloche.engine.local.sandbox import (
    Claim,
    GangPlan,
    Machine,
    ResourceLimits,
    environment,
    etc_files,
    plan,
)

USER = Machine(
    "full",
    program="/usr/bin/bwrap",
    system=(("--ro-bind", "/usr", "/usr"), ("--symlink", "usr/bin", "/bin")),
)
BOUNDS = ResourceLimits(memory_mib=512, processes=99, groups={"memory": "/g"})
ROOT = replace(USER, bwrap=(("bwrap/package", Path("/p")),), program="bwrap/package/b", user=64000)


def host(name: str = "algo-1", *mounts: Mount, **more: object) -> ProcessSpec:
    settings = {"name": name, "argv": ("python", "-u"), "log": Input("/l")} | more
    return ProcessSpec(mounts=mounts, **settings)  # type: ignore[arg-type]


def planned(machine: Machine, *hosts: ProcessSpec, egress: bool = True) -> GangPlan:
    gang = GangSpec(name="g", processes=hosts, egress=egress)
    bounds = {each.name: BOUNDS for each in hosts}
    return plan(gang, Path("/runs/g"), machine, (4599, 4600), Claim(2, 100), bounds)


def has(argv: list[str], *words: str) -> bool:
    """Tell whether the words follow one another in argv."""
    return any(tuple(argv[i : i + len(words)]) == words for i in range(len(argv)))


def test_the_plan_can_be_printed() -> None:
    made = planned(ROOT, host("algo-1"), host("algo-2"))
    assert json.loads(json.dumps(made)) == made
    assert made["ports"] == [4599, 4600]
    assert [process["name"] for process in made["processes"]] == ["algo-1", "algo-2"]


def test_bounds_are_in_the_plan() -> None:
    (made,) = planned(ROOT, host("a", Mount(Input("/var"), "/opt/ml", "rw"), disk_mib=100))[
        "processes"
    ]
    assert (made["memory_mib"], made["processes"], made["groups"]) == (512, 99, {"memory": "/g"})
    assert (made["disk_mib"], made["files"], made["log_mib"]) == (100, 6400, 1024)
    assert made["writable"] == ["/mnt/0", "/mnt/1"]


def test_without_egress_there_is_no_door() -> None:
    assert planned(USER, host(), egress=False)["ports"] == []


@pytest.mark.parametrize(
    ("words"),
    [
        ("--unshare-user", "--uid", "0", "--gid", "0"),
        ("--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        ("--hostname", "algo-1", "--new-session", "--die-with-parent"),
        ("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"),
        ("--bind", "/runs/g/host-algo-1/etc/hosts", "/etc/hosts"),
        ("--bind", "/runs/g/host-algo-1/tmp", "/tmp"),
        ("--bind", "/runs/g/host-algo-1/root", "/root"),
        ("--chdir", "/opt/ml/code", "--clearenv"),
        ("--dev", "/dev", "--perms", "1777", "--size", str(256 << 20), "--tmpfs", "/dev/shm"),
        ("--seccomp", "8"),
    ],
)
def test_bubblewrap_arguments(words: tuple[str, ...]) -> None:
    argv = planned(USER, host(workdir="/opt/ml/code"))["processes"][0]["argv"]
    assert has(argv, *words), argv


def test_the_environment_is_on_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    process = planned(USER, host(env={"A": "b"}))["processes"][0]
    assert process["environ"][:3] == ["A=b", "HOME=/root", "HOSTNAME=algo-1"]
    assert process["argv"][-2:] == ["python", "-u"]
    assert not any("A=b" in word for word in process["argv"])
    monkeypatch.setattr(sandbox, "BY_DESCRIPTOR", False)  # a machine without bash
    process = planned(USER, host(env={"A": "b"}))["processes"][0]
    assert process["environ"] == []
    assert has(process["argv"], "/usr/bin/env", "-i", "A=b", "HOME=/root", "HOSTNAME=algo-1")


def test_mounts_in_order_of_depth() -> None:
    inner = Mount(Input("/tmp"), "/opt/ml/input/data/train", "overlay")
    outer = Mount(Input("/var"), "/opt/ml", "rw")
    readonly = Mount(Input("/etc/passwd"), "/opt/ca", "ro")
    argv = planned(USER, host("h", inner, outer, readonly))["processes"][0]["argv"]
    layer = "/runs/g/host-h/overlay-0"
    overlay = ("--overlay-src", "/tmp", "--overlay", f"{layer}/upper", f"{layer}/work")
    assert has(argv, "--bind", "/var", "/opt/ml", "--ro-bind", "/etc/passwd", "/opt/ca", *overlay)


def test_root_finds_everything_in_a_neutral_place() -> None:
    """The user whom root becomes can't pass /root; what it may change is not shown as root's."""
    train = Mount(Input("/tmp"), "/opt/ml/input/data/train", "overlay")
    made = planned(ROOT, host("a", train, Mount(Input("/var"), "/opt/ml", "rw")), host("b", train))
    argv = made["processes"][0]["argv"]
    assert argv[:3] == ["/mnt/bwrap/package/b", "--userns", "4"]
    assert made["sources"] == {
        "bwrap/package": "/p",
        "0": "/runs/g/host-a",
        "1": "/var",
        "2": "/tmp",
        "3": "/runs/g/host-b",
    }
    assert made["mapped"] == ["2"]
    assert has(argv, "--bind", "/mnt/1", "/opt/ml", "--overlay-src", "/mnt/2")
    assert not any(word.startswith("/runs") for word in argv)


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ([], "needs processes with distinct names"),
        ([host("a"), host("a")], "needs processes with distinct names"),
        ([host("-a")], "'-a' is not a host name"),
        ([host("a/b")], "'a/b' is not a host name"),
        ([host("a", argv=())], "a: argv is empty"),
        ([host("a", Mount(Input("/"), "x"))], "a: the mount target 'x' is relative"),
        ([host("a", Mount(Input("/none"), "/x"))], r"a: /none \(for /x\) is missing"),
        ([host("a", Mount(Input("/etc/passwd"), "/x", "overlay"))], "/etc/passwd is not a folder"),
    ],
)
def test_what_is_refused(hosts: list[ProcessSpec], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        planned(USER, *hosts)


def test_the_environment_has_defaults_for_three_names() -> None:
    made = environment(host(env={"HOME": "/h", "A": "1"}))
    assert set(made) == {"A", "HOME", "HOSTNAME", "PATH"} and made["HOME"] == "/h"


def test_hosts_have_names_and_addresses() -> None:
    gang = GangSpec(name="g", processes=(host("algo-1"), host("algo-2")))
    files = etc_files(gang, gang.processes[1])
    assert files["hostname"] == "algo-2\n"
    assert files["hosts"].splitlines()[2:] == ["127.0.1.1\talgo-1", "127.0.1.2\talgo-2"]


REAL = {"/opt/ml": "/h/ml", "/opt/ml/input/data/a": "/r/up", "127.0.0.1:4599": "127.0.0.1:5"}


@pytest.mark.parametrize(
    ("text", "real"),
    [
        ("/opt/ml", "/h/ml"),
        ("/opt/ml/model", "/h/ml/model"),
        ("/opt/ml/input/data/a/x", "/r/up/x"),
        ("/opt/ml/input/data/ab", "/h/ml/input/data/ab"),
        ('{"d": "/opt/ml/model"}', '{"d": "/h/ml/model"}'),
        ("/opt/mlx /home/opt/ml", "/opt/mlx /home/opt/ml"),
        ("http://127.0.0.1:4599/x", "http://127.0.0.1:5/x"),
        ("127.0.0.1:45990", "127.0.0.1:45990"),
        ("a:/opt/ml:b", "a:/h/ml:b"),
    ],
)
def test_translation(text: str, real: str) -> None:
    assert translate(text, REAL) == real


def test_a_reduced_plan() -> None:
    mount = Mount(Input("/tmp"), "/opt/ml", "rw")
    given = host("h", mount, env={"MASTER_ADDR": "h", "M": "/opt/ml/m"}, workdir="/opt/ml")
    gang = GangSpec(name="g", processes=(given,))
    made = plan_reduced(gang, Path("/runs/g"), {4599: 5}, Claim(1, 1), {"h": BOUNDS})
    process = made["processes"][0]
    assert (made["sandboxed"], process["sandboxed"], process["cwd"]) == (False, False, "/tmp")
    assert {"MASTER_ADDR=127.0.0.1", "M=/tmp/m"} <= set(process["environ"])
