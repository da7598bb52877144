"""`aws s3 …` as people type it, against a whole platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.testing.platform import Platform

Aws = Callable[..., str]


@pytest.fixture
def aws(platform: Platform) -> Aws:
    command = shutil.which("aws", path=str(Path(sys.executable).parent))
    assert command is not None, "awscli belongs to the development extra"
    environment = {**os.environ, **platform.environment()}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, command, "s3", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


def test_a_folder_there_and_back(aws: Aws, platform: Platform, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    files = {"a.txt": b"a", "dir/b c.bin": os.urandom(100_000), "dir/ü/big": os.urandom(9 << 20)}
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    assert "make_bucket: cli-1" in aws("mb", "s3://cli-1")
    aws("cp", "--recursive", "--no-progress", str(source), "s3://cli-1/data")
    listed = aws("ls", "--recursive", "s3://cli-1/data/")
    assert [line.split(maxsplit=3)[2:] for line in listed.splitlines()] == [
        [str(len(content)), f"data/{name}"] for name, content in sorted(files.items())
    ]
    assert "PRE data/" in aws("ls", "s3://cli-1")
    (source / "a.txt").write_bytes(b"changed")
    (source / "dir/b c.bin").unlink()
    output = aws("sync", "--delete", "--no-progress", str(source), "s3://cli-1/data")
    assert output.count("upload:") == 1  # what did not change is left alone
    assert "delete: s3://cli-1/data/dir/b c.bin" in output
    aws("sync", "--no-progress", "s3://cli-1/data", str(back))
    assert (back / "a.txt").read_bytes() == b"changed"
    assert (back / "dir/ü/big").read_bytes() == files["dir/ü/big"]
    assert not (back / "dir/b c.bin").exists()
    aws("rm", "--recursive", "s3://cli-1/data/dir")
    s3 = platform.client("s3")
    left = s3.list_objects_v2(Bucket="cli-1")["Contents"]
    assert [one["Key"] for one in left] == ["data/a.txt"]
    aws("rb", "--force", "s3://cli-1")
    assert s3.list_buckets()["Buckets"] == []
