"""Archives of what a script left: any name and depth, within bounds, in time that grows with it."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

from cloche.core import beneath
from cloche.core.errors import AwsError
from cloche.services.sagemaker.training import output_archive

NAMES = ["new\nline", "\udcff\udcfe", "-rf", " ", "…", "a" * 255]


def packed(*mls: Path, target: Path | None = None) -> dict[str, bytes | str | None]:
    """Archive the models of hosts; return name and content, or where a link leads."""
    target = target or mls[0].parent / "model.tar.gz"
    if not output_archive.archive(mls, "model", target, threading.Event()):
        assert not target.exists()
        return {}
    with tarfile.open(target) as tar:
        found: dict[str, bytes | str | None] = {}
        for member in tar:
            assert (member.uid, member.gid, member.uname) == (0, 0, "root")
            file = tar.extractfile(member) if member.isreg() else None
            found[member.name] = file.read() if file else member.linkname or None
        return found


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    (tmp_path / "host/ml/model").mkdir(parents=True)
    return tmp_path / "host/ml"


def test_every_name_and_kind(ml: Path) -> None:
    for name in NAMES:
        (ml / "model" / name).mkdir()
        (ml / "model" / name / "f").write_text(name.encode(errors="replace").decode())
    (ml / "model/link").symlink_to("/etc/passwd")
    (ml / "model/zero").touch()
    os.link(ml / "model/ /f", ml / "model/second")
    os.mkfifo(ml / "model/fifo")
    if os.geteuid() == 0:
        os.mknod(ml / "model/disk", 0o60600, os.makedev(7, 0))
    found = packed(ml)
    for name in NAMES:
        assert found.pop(name) is None
        content = found.pop(f"{name}/f")
        assert content == name.encode(errors="replace") or (name == " " and content == "second")
    assert found == {"link": "/etc/passwd", "zero": b"", "second": b" "}


def test_the_first_host_wins_and_links_on_the_way_lead_nowhere(ml: Path, tmp_path: Path) -> None:
    other, third = tmp_path / "other/ml", tmp_path / "third/ml"
    (other / "model/sub").mkdir(parents=True)
    (ml / "model/same").write_text("1")
    (other / "model/same").write_text("2")
    (other / "model/sub/own").write_text("3")
    third.mkdir(parents=True)
    (third / "model").symlink_to(tmp_path)
    assert packed(ml, other, third) == {"same": b"1", "sub": None, "sub/own": b"3"}
    assert packed(third) == {} and packed(tmp_path / "none") == {}


def test_depth(ml: Path) -> None:
    here = ml / "model"
    for _ in range(1200):
        here /= "d"
        here.mkdir()
    (here / "f").write_text("deep")
    assert packed(ml)["d/" * 1200 + "f"] == b"deep"


def test_a_path_that_nobody_could_unpack_is_refused(ml: Path) -> None:
    here = os.open(ml / "model", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 200, dir_fd=here)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(AwsError, match=r"a path has more than 4,095 bytes: x{80}…"):
        packed(ml)
    beneath.remove(ml)


def test_too_many_files_and_too_long_names_are_refused(
    ml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (ml / f"model/{number:050d}").touch()
    monkeypatch.setattr(output_archive, "BOUNDS", beneath.WalkBounds(29, 10_000))
    with pytest.raises(AwsError, match="there are too many files: at most 29 files are taken"):
        packed(ml)
    monkeypatch.setattr(output_archive, "BOUNDS", beneath.WalkBounds(30, 1000))
    with pytest.raises(AwsError, match="the names are too long altogether"):
        packed(ml)
    monkeypatch.setattr(output_archive, "BOUNDS", beneath.WalkBounds(30, 1500))
    assert len(packed(ml)) == 30


@pytest.mark.parametrize("files", [1, 20])
def test_holes_are_bounded(ml: Path, files: int) -> None:
    for number in range(files):
        with (ml / f"model/{number}").open("wb") as file:
            file.truncate((1 << 40) // files)
    start = time.process_time()
    with pytest.raises(AwsError, match="Insufficient disk space"):
        packed(ml)
    with pytest.raises(AwsError, match="Insufficient disk space"):
        os.close(output_archive.open_sent(ml, "model/0"))
    assert files > 1 or time.process_time() - start < 5


def test_whoever_stops_it_does_not_wait(ml: Path) -> None:
    stop = threading.Event()

    class Stopping(io.BytesIO):
        def write(self, data: object) -> int:
            stop.set()
            return super().write(data)  # type: ignore[arg-type]

    for number in range(3):
        (ml / f"model/{number}").write_bytes(bytes(3 << 20))
    with pytest.raises(output_archive.Stopped), output_archive.trees([ml], "model") as roots:
        tar = output_archive.Tar(io.BufferedWriter(Stopping()), stop)  # type: ignore[arg-type]
        for number, entry in output_archive.entries(roots):
            tar.add(number, entry)


def test_time_grows_with_the_files_and_not_faster(ml: Path) -> None:
    spent = []
    for number in (1000, 4000):
        for name in range(number):
            (ml / f"model/{number}-{name}").touch()
        start = time.thread_time()
        packed(ml)
        spent.append(time.thread_time() - start)
    assert spent[1] < 5 * 2.5 * spent[0] and spent[1] < 5  # 275 s for 60,000 before


def test_single_objects_have_keys(ml: Path) -> None:
    (ml / "model/a").mkdir()
    (ml / "model/a/b\nc").touch()
    (ml / "model/link").symlink_to("/etc/passwd")
    assert output_archive.regular([ml], "model", "p/") == [("a/b\nc", ml)]
    with pytest.raises(AwsError, match=r"Your key is too long: p{80}…"):
        output_archive.regular([ml], "model", "p" * 1020)
    (ml / "model/\udcff").touch()
    with pytest.raises(AwsError, match=r"a file's name is not UTF-8, so no object can have it"):
        output_archive.regular([ml], "model", "p/")
