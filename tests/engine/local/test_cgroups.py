"""Where our own control group is, and what is written to others: of both versions."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cloche.engine import Usage
from cloche.engine.local.cgroups import Groups, delegated, memory_limit_mib, own_groups, usage
from cloche.engine.local.sandbox import ResourceLimits
from cloche.engine.local.supervisor.group import Cgroup

V1 = """\
24 23 0:21 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
25 23 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 23 0:23 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "24 23 0:21 /docker/ab /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("mounts", "groups", "own"),
    [
        (
            V1,
            "4:memory:/a/b\n3:cpu,cpuacct:/\n2:pids:/c\n0::/\n",
            {
                "memory": "/sys/fs/cgroup/memory/a/b",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "": "/sys/fs/cgroup/unified",
            },
        ),
        (V2, "0::/user.slice/a.scope\n", {"": "/sys/fs/cgroup/user.slice/a.scope"}),
        (CONTAINER, "4:memory:/docker/ab/x\n", {"memory": "/sys/fs/cgroup/memory/x"}),
        ("", "0::/\n", {}),
    ],
)
def test_our_own_group(mounts: str, groups: str, own: dict[str, str]) -> None:
    assert own_groups(mounts, groups) == {name: Path(path) for name, path in own.items()}


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A group of version 2 that is ours, as files."""
    for name, text in {
        "cgroup.controllers": "cpuset cpu io memory pids",
        "cgroup.subtree_control": "",
        "cgroup.procs": f"{os.getpid()}\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_delegated_group_of_version_2(group: Path) -> None:
    """It may hold groups once its processes are in one of their own."""
    assert delegated(group) == group
    assert (group / "cloche-server/cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert delegated(group / "cloche-server") == group


def test_a_group_that_is_not_ours_alone(group: Path) -> None:
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    with pytest.raises(OSError, match="not ours alone"):
        delegated(group)
    (group / "cgroup.controllers").write_text("hugetlb")
    with pytest.raises(OSError, match="no controllers"):
        delegated(group)
    assert not (group / "cloche-server").exists()


@pytest.mark.parametrize(
    ("version", "written"),
    [
        (
            1,
            {
                "memory.limit_in_bytes": "104857600",
                "memory.memsw.limit_in_bytes": "104857600",
                "pids.max": "9",
                "cpu.shares": "2048",
            },
        ),
        (
            2,
            {
                "memory.max": "104857600",
                "memory.swap.max": "0",
                "pids.max": "9",
                "cpu.weight": "200",
            },
        ),
    ],
)
def test_what_is_written(tmp_path: Path, version: int, written: dict[str, str]) -> None:
    tops = dict.fromkeys(("memory", "pids", "cpu"), tmp_path)
    groups = Groups(tops, version, ResourceLimits(), 2)
    groups.bound(tops, ResourceLimits(memory_mib=100, processes=9), 2)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == written


@pytest.mark.parametrize(("version", "name", "least"), [(1, "shares", "64"), (2, "weight", "6")])
def test_what_is_not_counted_weighs_little(
    tmp_path: Path, version: int, name: str, least: str
) -> None:
    tops = {"cpu": tmp_path}
    Groups(tops, version, ResourceLimits(), 2).bound(tops, ResourceLimits(), 0)
    assert (tmp_path / f"cpu.{name}").read_text() == least


def test_usage_of_both_versions(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "memory.stat").write_text(f"rss 1\ntotal_rss {3 << 20}\ntotal_shmem {1 << 20}\n")
    (one / "cpuacct.usage").write_text("1500000000\n")
    (two / "memory.stat").write_text(f"anon {3 << 20}\nfile 7\nshmem {2 << 20}\n")
    (two / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert usage({"memory": str(one), "cpuacct": str(one)}) == Usage(1.5, 4)
    assert usage(dict.fromkeys(("memory", "pids", "cpu"), str(two))) == Usage(2.5, 5)
    assert usage({}) is None
    assert usage({"memory": str(tmp_path / "gone")}) is None


def test_servers_that_start_and_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sweeps what others left, while those make and remove their own."""
    monkeypatch.setattr("cloche.engine.local.cgroups.STALE_AFTER_S", -60.0)  # nothing is too young
    monkeypatch.setattr("cloche.engine.local.cgroups.TRIES", 1000)
    one, other = (
        Groups({"cpuacct": tmp_path / f"cloche-{name}"}, 1, ResourceLimits(), 2) for name in "ab"
    )
    over = threading.Event()

    def busy() -> int:
        made = 0
        while not over.is_set() or made < 200:
            (folder,) = one.make("gang", f"{made}", ResourceLimits(), 1).values()
            with suppress(FileNotFoundError):
                os.rmdir(folder)
            one.remove_top()
            made += 1
        return made

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(busy)
        try:
            for _ in range(500):
                other.sweep(())
        finally:
            over.set()
        assert making.result(60) >= 200


def test_a_thread_enters_where_it_can(tmp_path: Path) -> None:
    """Version 1 lets a thread in at once; a process waits for all CPUs, on every launch."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, ("tasks", "cgroup.procs")), (two, ("cgroup.procs",))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    Cgroup({"memory": str(one), "pids": str(two)}).enter()
    entered = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert {name: (tmp_path / name).read_text() for name in entered} == {
        "one/tasks": "0",
        "one/cgroup.procs": "",
        "two/cgroup.procs": "0",
    }


def test_a_limit_on_ourselves(tmp_path: Path) -> None:
    """In a container the machine is what the container may have."""
    assert memory_limit_mib({"memory": tmp_path}) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit_mib({"": tmp_path}) is None
    (tmp_path / "memory.max").write_text(f"{512 << 20}\n")
    assert memory_limit_mib({"": tmp_path}) == 512
