"""Counting what a gang's files take, whatever the job did to its folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine.local.supervisor import disk
from cloche.engine.local.supervisor.disk import DiskWatch, Tree, tally

MIB = 1 << 20


def counted(folder: Path) -> tuple[int, int]:
    parts = list(tally(str(folder)))
    return sum(size for size, _ in parts), sum(count for _, count in parts)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run directory, in which a watch works."""
    folder = tmp_path / "runs" / "gang"
    (folder / "host").mkdir(parents=True)
    monkeypatch.chdir(folder)
    yield folder


def test_bytes_and_inodes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * MIB)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * MIB)
    os.link(tmp_path / "a" / "one", tmp_path / "again")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    size, count = counted(tmp_path)
    assert 2 * MIB <= size < 2.2 * MIB, "two names count once; holes take nothing"
    assert count == 7


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large").write_bytes(b"x" * MIB)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "out")
    os.mkfifo(inside / "fifo")
    assert counted(inside)[1] == 3
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert counted(tmp_path / "link") == (0, 0)
    assert counted(tmp_path / "nothing") == (0, 0)


def test_any_depth(tmp_path: Path) -> None:
    """1,500 nested folders of long names: no path leads there, and few descriptors are open."""
    here = os.open(tmp_path, os.O_RDONLY)
    name = "n" * 200
    for _ in range(1500):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    with os.fdopen(os.open("deep", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(b"x" * MIB)
    size, count = counted(tmp_path)
    assert size > MIB and count == 1502
    while True:  # pytest's own clearing away recurses
        for entry in os.listdir(here):
            remove = os.unlink if entry == "deep" else os.rmdir
            remove(entry, dir_fd=here)
        if os.fstat(here).st_ino == tmp_path.stat().st_ino:
            break
        up = os.open("..", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = up
    os.close(here)


def test_a_folder_that_moves_meanwhile(tmp_path: Path) -> None:
    """The walk doesn't come back to where it did not come from."""
    tree, other = tmp_path / "tree", tmp_path / "other"
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (other / "x").mkdir(parents=True)
    walk = tally(str(tree))
    seen = 0
    for _ in walk:
        seen += 1
        if seen == 3:  # a's own entries are read: b is next
            (tree / "a").rename(other / "a")
    (other / "x" / "large").write_bytes(b"x" * MIB)
    assert seen < 10


class Scarce:
    """A disk on which the server's reserve is touched."""

    bytes = inodes = 1
    scarce = True

    def __init__(self, folder: str) -> None:
        pass


def watch(folder: Path) -> DiskWatch:
    return DiskWatch([Tree([str(folder)])])


def test_the_greediest_is_ended(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the reserve is touched: who takes the most, of those that run."""
    monkeypatch.setattr(disk, "Room", Scarce)
    (run / "host" / "file").write_bytes(b"x" * 20 * MIB)
    watched = watch(run / "host")
    watched.look(100.0)
    assert watched.greediest(100.1) is None, "the others measure first"
    assert watched.greediest(102.0) is watched.trees[0]
    other = run.parent / "other"
    other.mkdir()
    (other / "used").write_text(f"{40 * MIB:20}\n")
    (other / "lock").touch()
    assert watched.greediest(102.0) is watched.trees[0], "the other does not run"
    monkeypatch.setattr(disk, "lives", lambda gang: gang == "../other")
    assert watched.greediest(102.0) is None
    (other / "used").write_text(f"{10 * MIB:20}\n")
    assert watched.greediest(102.0) is watched.trees[0]


def test_nobody_is_ended_for_little(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that others filled is no reason to end what takes next to nothing of it."""
    monkeypatch.setattr(disk, "Room", Scarce)
    (run / "host" / "file").write_bytes(b"x" * MIB)
    watched = watch(run / "host")
    watched.look(100.0)
    assert watched.greediest(102.0) is None


def test_nothing_is_counted_while_nothing_changes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Tree] = []

    def begin(tree: Tree) -> None:
        begun.append(tree)
        tree.walk = iter(())

    monkeypatch.setattr(Tree, "begin", begin)

    class Still(Scarce):
        scarce = False

    monkeypatch.setattr(disk, "Room", Still)
    watched = watch(run / "host")
    for second in range(10):
        watched.look(100.0 + second)
    assert len(begun) == 1
