"""Whole files: the old content or the new, for every reader and after every failure."""

import os
import stat
import threading
from pathlib import Path

import pytest

from cloche.core import atomic


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"old")
    atomic.write(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_for_this_user_alone(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "file", {"a": ["b"]})
    assert (tmp_path / "file").read_text() == '{\n  "a": [\n    "b"\n  ]\n}\n'
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_link_in_its_place_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    atomic.write(tmp_path / "file", b"new")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(4)]
    atomic.write(path, contents[0])
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    def write(content: bytes) -> None:
        for _ in range(20):
            atomic.write(path, content)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert seen <= set(contents) and seen
    assert list(tmp_path.iterdir()) == [path]
