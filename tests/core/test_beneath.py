"""What a sandbox can change: opened, walked, repaired, given away and removed beneath a folder."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.core import beneath

ROOT = os.geteuid() == 0
OTHER = 60_001  # a user that nobody is


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything, and a secret beside it."""
    (tmp_path / "secret").write_text("SECRET")
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("text")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder-link").symlink_to(tmp_path)
    (root / "inner-link").symlink_to("a")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "sock"))
    return root


def deep(root: Path, names: list[str]) -> None:
    """Make nested folders, one name at a time: the path may be longer than any call takes."""
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


DEEP = {
    "1,200 folders": ["d"] * 1200,
    "30 of 200 characters": ["x" * 200] * 30,
    "3,000 of 250": ["y" * 250] * 3000,
}
NAMES = ["new\nline", "\udcff\udcfe", "-rf", " ", "…", "a" * 255, "*", "\\"]


@pytest.fixture(params=list(DEEP))
def deep_tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "deep"
    root.mkdir()
    deep(root, DEEP[request.param])
    yield root
    beneath.remove(root)


@pytest.mark.parametrize("openat2", [True, False])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("link", errno.ELOOP),
        ("folder-link/secret", None),
        ("inner-link/b/f", None),
        ("../secret", errno.EXDEV),
        ("a/../../secret", errno.EXDEV),
        ("/etc/passwd", errno.EXDEV),
        ("fifo", errno.EINVAL),
        ("sock", errno.ENXIO),
        ("a/b", errno.EINVAL),
        ("none", errno.ENOENT),
        ("a\0b", errno.EINVAL),
    ],
)
def test_only_regular_files_beneath_are_opened(
    tree: Path, name: str, error: int | None, openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openat2:
        monkeypatch.setattr(beneath.sys, "platform", "other")
    with beneath.folder(tree) as root, pytest.raises(OSError) as raised:
        beneath.open_file(root, name)
    assert raised.value.errno == (error or raised.value.errno)
    assert error is not None or raised.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_reads_begin_and_end_and_no_more(tree: Path) -> None:
    assert beneath.read(tree, "a/b/f", 2) == b"te"
    assert beneath.read(tree, "a/b/f", 2, end=True) == b"xt"
    assert beneath.read(tree, "link", 9) is None and beneath.read(tree, "fifo", 9) is None


def test_a_walk_yields_everything_in_order_and_follows_no_link(tree: Path) -> None:
    with beneath.folder(tree) as root:
        found = [entry.path for entry in beneath.walk(root)]
    assert found == ["a", "fifo", "folder-link", "inner-link", "link", "sock", "a/b", "a/b/f"]


def test_a_walk_goes_as_deep_as_a_tree_is(deep_tree: Path) -> None:
    with beneath.folder(deep_tree) as root:
        found = [entry.name for entry in beneath.walk(root, paths=False)]
    assert found[-1] == "last" and len(found) in [len(names) + 1 for names in DEEP.values()]


def test_a_walk_knows_every_name(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with beneath.folder(tmp_path) as root:
        found = [entry.path for entry in beneath.walk(root)]
    assert sorted(found) == sorted([*NAMES, *(f"{name}/{name}" for name in NAMES)])


def test_a_walk_has_bounds(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}").mkdir()
        (tmp_path / f"{number:02d}/x").touch()
    with beneath.folder(tmp_path) as root:
        assert len(list(beneath.walk(root, beneath.WalkBounds(40, 1000)))) == 40
        with pytest.raises(beneath.TooMuch, match="there are too many files"):
            list(beneath.walk(root, beneath.WalkBounds(39, 1000)))
        with pytest.raises(beneath.TooMuch, match="the names are too long altogether"):
            list(beneath.walk(root, beneath.WalkBounds(40, 100)))
        assert len(list(beneath.walk(root, beneath.WalkBounds(40, 0), paths=False))) == 40


def test_a_walk_does_not_leave_the_tree_with_a_folder_that_is_moved(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a/b").mkdir(parents=True)
    (root / "z").mkdir()
    outside.mkdir()
    (outside / "z").mkdir()
    (outside / "z/secret").touch()
    seen = []
    with beneath.folder(root) as descriptor, pytest.raises(beneath.Moved):
        for entry in beneath.walk(descriptor):
            seen.append(entry.path)
            if entry.path == "a/b":
                (root / "a").rename(outside / "a")
    assert seen == ["a", "z", "a/b"]


def test_a_walk_leaves_out_what_vanishes_or_becomes_a_link(tree: Path) -> None:
    seen = []
    with beneath.folder(tree) as root:
        for entry in beneath.walk(root):
            seen.append(entry.path)
            if entry.path == "a":
                (tree / "fifo").unlink()
                (tree / "a").rename(tree.parent / "elsewhere")
                (tree / "a").symlink_to(tree.parent)
    assert seen == ["a", "folder-link", "inner-link", "link", "sock"]


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_an_owner_is_changed_by_descriptor_and_only_of_what_was_looked_at(tree: Path) -> None:
    with beneath.folder(tree) as root:
        beneath.change_owner(root, "link", OTHER)
        beneath.change_owner(root, "fifo", OTHER)
        beneath.change_owner(root, "a", OTHER, lambda status: stat.S_ISREG(status.st_mode))
    assert (tree / "link").lstat().st_uid == OTHER and (tree / "link").stat().st_uid == 0
    assert (tree / "fifo").stat().st_uid == OTHER and (tree / "a").stat().st_uid == 0


def test_a_mode_is_changed_of_no_link(tree: Path) -> None:
    before = (tree.parent / "secret").stat().st_mode
    with beneath.folder(tree) as root:
        beneath.change_mode(root, "link", lambda mode: mode | 0o777)
        beneath.change_mode(root, "fifo", lambda _: 0o123)
    assert (tree.parent / "secret").stat().st_mode == before
    assert stat.S_IMODE((tree / "fifo").stat().st_mode) == 0o123


def test_a_repair_gives_the_owner_his_rights_back(tree: Path) -> None:
    (tree / "a/b/f").chmod(0)
    (tree / "a/b").chmod(0)
    (tree / "a").chmod(0o011)
    with beneath.folder(tree) as root:
        found = {e.path: stat.S_IMODE(e.status.st_mode) for e in beneath.walk(root, repair=True)}
    assert (found["a"], found["a/b"], found["a/b/f"]) == (0o711, 0o700, 0o400)


def test_a_tree_is_removed_however_deep(deep_tree: Path) -> None:
    beneath.remove(deep_tree)
    assert not deep_tree.exists()


def test_a_tree_is_removed_whatever_lies_in_it(tree: Path) -> None:
    for name in NAMES:
        (tree / name / name).mkdir(parents=True)
        (tree / name / name / "f").touch()
        (tree / name / name).chmod(0)
        (tree / name).chmod(0o111)
    beneath.remove(tree)
    assert [path.name for path in tree.parent.iterdir()] == ["secret"]
    beneath.remove(tree)  # twice is fine
    beneath.remove(tree.parent / "none/below")


def test_a_link_is_removed_and_not_what_it_leads_to(tree: Path) -> None:
    (tree.parent / "to").symlink_to(tree)
    beneath.remove(tree.parent / "to")
    assert (tree / "a/b/f").read_text() == "text" and not (tree.parent / "to").is_symlink()


def test_a_wide_tree_is_removed_in_time_that_grows_with_it(tmp_path: Path) -> None:
    root = tmp_path / "wide"
    for number in range(300):
        (root / f"{number}").mkdir(parents=True)
        for inner in range(5):
            (root / f"{number}/{inner}").mkdir()
            (root / f"{number}/{inner}/f").touch()
    beneath.remove(root)
    assert not root.exists()


def test_what_can_not_be_removed_is_told_and_the_rest_is_gone(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refused(name: str, *, dir_fd: int) -> None:
        if name == "f":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(beneath.os, "unlink", refused)
    with pytest.raises(OSError):
        beneath.remove(tree)
    monkeypatch.undo()
    assert [path.name for path in tree.rglob("*") if not path.is_dir()] == ["f"]


def test_nothing_outside_is_listed_or_changed_while_folders_and_links_are_swapped(
    tmp_path: Path,
) -> None:
    """A folder and a link to a folder outside change places all the time."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner/secret").touch(0o600)
    (root / "x/inner").mkdir(parents=True)
    (root / "x/inner/mine").touch()
    (root / "y").symlink_to(outside)
    done, swaps = threading.Event(), 0

    def swap() -> None:
        nonlocal swaps
        while not done.is_set():
            os.rename(root / "x", root / "t")
            os.rename(root / "y", root / "x")
            os.rename(root / "t", root / "y")
            swaps += 1

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[str] = set()
    try:
        with beneath.folder(root) as descriptor:
            for _ in range(2000):
                for entry in beneath.walk(descriptor, repair=True):
                    seen.add(entry.name)
                    if ROOT:
                        try:
                            beneath.change_owner(entry.folder, entry.name, OTHER)
                        except FileNotFoundError:
                            continue
    finally:
        done.set()
        swapping.join()
    assert swaps > 100 and "mine" in seen and "secret" not in seen
    for path in (outside, outside / "inner", outside / "inner/secret"):
        assert path.stat().st_uid == os.getuid()


def test_the_disk_that_a_tree_takes(deep_tree: Path, tmp_path: Path) -> None:
    (deep_tree / "one").write_bytes(bytes(100_000))
    os.link(deep_tree / "one", deep_tree / "two")
    (deep_tree / "outside").symlink_to("/")
    assert 100_000 <= beneath.disk_used(deep_tree) < 120_000
    assert beneath.disk_used(tmp_path / "none") == 0
