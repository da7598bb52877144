"""Which requirements may be shared, and how they are found in an archive that is not trusted."""

import gzip
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from cloche.environments.table import FRAMEWORKS
from cloche.services.sagemaker.software import requirements
from cloche.services.sagemaker.software.images import Environment

SHARED = [
    "pandas\n",
    "# what we need\npandas==2.2.3  # pinned\n\nscikit-learn>=1.5,<2 ; python_version > '3.8'\n",
    "torch[opt]\r\nnumpy\r\n",
]
NOT_SHARED = [
    "",
    "# nothing\n",
    "--index-url https://packages.example/simple\npandas\n",
    "-r other.txt\n",
    "-e .\n",
    "./wheels/mine-1.0-py3-none-any.whl\n",
    "/opt/ml/input/data/wheels/mine-1.0-py3-none-any.whl\n",
    "mine @ https://example.com/mine.whl\n",
    "git+https://example.com/mine.git\n",
    "pandas==2.2.3 --hash=sha256:00\n",
    "pandas \\\n  ==2.2.3\n",
    "pandas==\xff\n",
    f"pandas; {'(' * 900}python_version > '3'\n",
    f"pandas{'[' * 60_000}\n",
]


@pytest.mark.parametrize("text", SHARED)
def test_names_of_packages_are_shared(text: str) -> None:
    assert requirements.shareable(text.encode())


@pytest.mark.parametrize("text", NOT_SHARED)
def test_what_may_mean_something_else_each_time_is_not(text: str) -> None:
    assert not requirements.shareable(text.encode("latin-1"))


def archive(folder: Path, files: list[tuple[str, bytes]]) -> Path:
    path = folder / "sourcedir.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_at_the_root_of_the_archive(tmp_path: Path) -> None:
    files = [("lib/requirements.txt", b"no"), ("./requirements.txt", b"yes"), ("hpo.py", b"")]
    assert requirements.look_through(archive(tmp_path, files)).requirements == b"yes"


def test_none(tmp_path: Path) -> None:
    assert (
        requirements.look_through(archive(tmp_path, [("lib/requirements.txt", b"no")])).requirements
        is None
    )
    assert requirements.look_through(tmp_path / "missing").requirements is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar" * 1000)],
    ids=["empty", "other", "compressed"],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sourcedir.tar.gz").write_bytes(content)
    assert requirements.look_through(tmp_path / "sourcedir.tar.gz").requirements is None


def test_too_long(tmp_path: Path) -> None:
    files = [("requirements.txt", b"#" * (requirements.LONGEST + 1))]
    assert requirements.look_through(archive(tmp_path, files)).requirements is None


def test_behind_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that unpacks without end is looked at for so long only."""
    monkeypatch.setattr(requirements, "LOOKED_AT", 1 << 16)
    files = [("zeros", bytes(1 << 20)), ("requirements.txt", b"pandas")]
    assert requirements.look_through(archive(tmp_path, files)).requirements is None


def test_a_link_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "sourcedir.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("requirements.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert requirements.look_through(path).requirements is None


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_archivers_write(tmp_path: Path, kind: int) -> None:
    """Folders, links, long and foreign names before it: the file behind them is found."""
    path = tmp_path / "sourcedir.tar.gz"
    with tarfile.open(path, "w:gz", format=kind) as tar:
        for name, type_ in (("lib", tarfile.DIRTYPE), ("a", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_, "hpo.py"
            tar.addfile(info)
        for name, data in (
            (f"lib/{'long' * 20}/{'long' * 20}.py", b"import smdebug"),
            ("lib/größe.txt", b"x" * 700),
            ("requirements.txt", b"pandas"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    code = requirements.look_through(path, {"smdebug"})
    assert (code.requirements, code.imported) == (b"pandas", {"smdebug"})


def member(name: bytes, kind: bytes, size: bytes, data: bytes) -> bytes:
    """Return a member as it stands in an archive."""
    header = name.ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    header += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + data + bytes(-len(data) % 512)


NO_SIZES = [
    member(b"requirements.txt", b"0", b"-0000000001", b""),
    member(b"requirements.txt", b"0", b"\xff" * 12, b""),
    member(b"p", b"x", b"%o" % 11, b"11 size=-4\n") + member(b"requirements.txt", b"0", b"1", b"a"),
    member(b"p", b"x", b"%o" % 60_000, b"9" * 60_000) + member(b"requirements.txt", b"0", b"", b""),
    member(b"p", b"x", b"%o" % (40 << 20), b"9" * (40 << 20)),
    member(b"p", b"L", b"%o" % (40 << 20), b"9" * (40 << 20)),
    member(b"p", b"g", b"%o" % 60_000, b"9" * 60_000),
]


@pytest.mark.parametrize("content", NO_SIZES)
def test_headers_that_were_made_up(tmp_path: Path, content: bytes) -> None:
    """They take the time that reading takes, and no file is found by them."""
    path = tmp_path / "sourcedir.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1 << 20), 1))
    begun = time.process_time()
    assert requirements.look_through(path).requirements is None
    assert time.process_time() - begun < 2


def test_a_requirements_file_that_is_a_link(tmp_path: Path) -> None:
    """A model's archive can't have the server read another file."""
    (tmp_path / "secret").write_text("pandas\n")
    (tmp_path / "code").mkdir()
    link = tmp_path / "code/requirements.txt"
    link.symlink_to(tmp_path / "secret")
    assert requirements.read(tmp_path / "code") is None
    link.unlink()
    os.mkfifo(link)
    assert requirements.read(tmp_path / "code") is None
    link.unlink()
    link.write_text("pandas\n")
    assert requirements.read(tmp_path / "code") == b"pandas\n"
    link.write_bytes(b"#" * (requirements.LONGEST + 1))
    assert requirements.read(tmp_path / "code") is None


def test_another_role_has_another_layer(tmp_path: Path) -> None:
    environment = Environment(FRAMEWORKS[0], Path("/usr/bin/python3"), (tmp_path, tmp_path), {})
    text, settings = b"pandas\n", {"PIP_INDEX_URL": "https://example.com", "OTHER": "x"}
    roles = ("arn:aws:iam::111122223333:role/a", "arn:aws:iam::111122223333:role/b")
    found = [requirements.wanted(text, environment, settings, role) for role in roles]
    again = requirements.wanted(text, environment, settings, roles[0])
    assert found[0] is not None and found[1] is not None and found[0] == again
    assert found[0].digest != found[1].digest
    assert found[0].settings == {"PIP_INDEX_URL": "https://example.com"}


IMPORTS = [
    ("import smdebug.pytorch as smd\n", True),
    ("    from smdebug import modes  # in a block\n", True),
    ("import os, smdebug\n", True),
    ("# import smdebug\n", False),
    ("print('import smdebug')\n", False),
    ("import os  # not smdebug\n", False),
    ("import smdebugger\n", False),
]


@pytest.mark.parametrize(("line", "found"), IMPORTS)
def test_modules_that_a_script_imports(tmp_path: Path, line: str, found: bool) -> None:
    files = [("notes.txt", b"import smdebug\n"), ("lib/train.py", b"import os\n" + line.encode())]
    path = archive(tmp_path, files)
    assert requirements.look_through(path, {"smdebug", "other"}).imported == (
        {"smdebug"} if found else set()
    )


def test_nothing_is_imported_by_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "sourcedir.tar.gz").write_bytes(b"import smdebug\n")
    assert requirements.look_through(tmp_path / "sourcedir.tar.gz", {"smdebug"}).imported == set()


@pytest.mark.parametrize(("line", "found"), IMPORTS)
def test_modules_that_a_folders_scripts_import(tmp_path: Path, line: str, found: bool) -> None:
    (tmp_path / "code/lib").mkdir(parents=True)
    (tmp_path / "code/notes.txt").write_text("import smdebug\n")
    (tmp_path / "code/lib/inference.py").write_text("import os\n" + line)
    (tmp_path / "elsewhere.py").write_text("import other\n")
    (tmp_path / "code/link.py").symlink_to(tmp_path / "elsewhere.py")
    os.mkfifo(tmp_path / "code/fifo.py")
    modules = {"smdebug", "other"}
    assert requirements.imported_in(tmp_path / "code", modules) == ({"smdebug"} if found else set())
    assert requirements.imported_in(tmp_path / "none", modules) == set()
