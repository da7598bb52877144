"""Which requirements may be shared, and how they are found in an archive that is not trusted."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from cloche.services.sagemaker import requirements

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


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no tar" * 1000)])
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
