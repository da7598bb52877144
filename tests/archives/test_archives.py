"""What decent programs pack comes out as it went in; attempts are in tests/attacks."""

import gzip
import io
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from cloche.archives.reader import ArchiveReader, BadArchive
from cloche.archives.unpacking import ArchiveBounds, Unpacking

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
FILES = {
    "name": b"a",
    "./code/inference.py": b"print(1)\n",
    "empty": b"",
    "block": bytes(512),
    "long": b"x" * 700_001,
}
LONG = {
    "/".join(["folder" * 8] * 4) + "/" + "n" * 120: b"long",
    "näme/ü": b"utf-8",
}


def packed(files: dict[str, bytes], kind: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for name, kind_of in (("", tarfile.DIRTYPE), ("made", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind_of
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 1_700_000_000, 0o640
            tar.addfile(info, io.BytesIO(data))
        for name, kind_of, target in (
            ("code/link", tarfile.SYMTYPE, "../name"),
            ("hard", tarfile.LNKTYPE, "./code/inference.py"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind_of, target
            tar.addfile(info)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


def unpack(data: bytes, folder: Path, into: str = "", **bounds: int) -> None:
    archive = folder.with_name("archive")
    archive.write_bytes(data)
    Unpacking(ArchiveBounds(**{"size": 1 << 30, **bounds})).unpack(archive, folder, into)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("zipped", [True, False])
def test_all_formats(folder: Path, kind: str, zipped: bool) -> None:
    files = FILES if kind == "ustar" else FILES | LONG
    data = packed(files, FORMATS[kind])
    unpack(gzip.compress(data) if zipped else data, folder)
    for name, content in files.items():
        assert (folder / name).read_bytes() == content
        assert (folder / name).stat().st_mtime == 1_700_000_000
    assert (folder / "made").is_dir()
    assert (folder / "code/link").is_symlink() and (folder / "code/link").read_bytes() == b"a"
    assert (folder / "hard").samefile(folder / "code/inference.py")


def test_what_tar_packs(folder: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / ("d" * 200)).mkdir(parents=True)
    (tree / ("d" * 200) / "f").write_text("text")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    for format_ in ("gnu", "posix", "v7", "ustar"):
        out = folder / format_
        out.mkdir()
        long = [] if format_ in ("v7", "ustar") else ["."]
        subprocess.run(
            ["tar", "-czf", tmp_path / "archive", f"--format={format_}", "run", *long],
            cwd=tree,
            check=True,
        )
        Unpacking(ArchiveBounds(size=1 << 20)).unpack(tmp_path / "archive", out)
        assert (out / "run").stat().st_mode & 0o777 == 0o755
        assert not long or (out / ("d" * 200) / "f").read_text() == "text"


def test_several_parts_of_gzip_and_padding(folder: Path) -> None:
    data = packed(FILES, tarfile.PAX_FORMAT)
    parts = gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(100)
    unpack(parts, folder)
    assert (folder / "long").read_bytes() == FILES["long"]


def test_later_entry_takes_an_earlier_ones_place(folder: Path) -> None:
    unpack(packed(FILES, tarfile.PAX_FORMAT), folder)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("inference.py", "link"):
            tar.addfile(tarfile.TarInfo(name))
    unpack(stream.getvalue(), folder, into="code")
    assert (folder / "code/inference.py").read_bytes() == b""
    assert not (folder / "code/link").is_symlink()
    assert (folder / "hard").read_bytes() == FILES["./code/inference.py"]
    assert (folder / "name").read_bytes() == b"a"


WRONG = {
    "nothing": (b"", "it is not a tar archive, or it is truncated"),
    "text": (b"no archive" * 100, "it is not a tar archive, or it is damaged"),
    "a cut one": (packed(FILES, tarfile.PAX_FORMAT)[:9000], "it is truncated"),
    "a cut gzip": (gzip.compress(packed(FILES, tarfile.PAX_FORMAT))[:-9], "it is truncated"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_archive(folder: Path, name: str) -> None:
    data, why = WRONG[name]
    with pytest.raises(BadArchive) as refused:
        unpack(data, folder)
    assert str(refused.value) == why


def test_flipped_bit_is_seen_by_gzips_checksum(folder: Path) -> None:
    data = bytearray(gzip.compress(packed({"zeros": bytes(5000)}, tarfile.PAX_FORMAT), 0))
    data[-3000] ^= 1
    with pytest.raises(BadArchive, match=r"it is not a gzip file: .*incorrect data check"):
        unpack(bytes(data), folder)


def test_stopped_from_another_thread_or_before_it_began(folder: Path) -> None:
    archive = folder.with_name("archive")
    zeros = tarfile.TarInfo("zeros")
    zeros.size = 64 << 30
    archive.write_bytes(zeros.tobuf())
    with archive.open("ab") as file:
        file.truncate(zeros.size)  # a hole
    unpacking = Unpacking(ArchiveBounds(size=128 << 30))
    errors: list[str] = []

    def run() -> None:
        try:
            unpacking.unpack(archive, folder)
        except BadArchive as error:
            errors.append(str(error))

    worker = threading.Thread(target=run)
    worker.start()
    until = time.monotonic() + 30
    while not (folder / "zeros").exists() and time.monotonic() < until:
        time.sleep(0.005)
    unpacking.stop()
    worker.join(10)
    run()
    assert errors == ["it was stopped", "it was stopped"]


def test_content_that_is_not_asked_for_is_skipped() -> None:
    data = packed(FILES, tarfile.PAX_FORMAT)
    names = [entry.name for entry in ArchiveReader(io.BytesIO(data), 1 << 30).entries()]
    assert names[2:7] == [name.encode() for name in FILES]
