"""A real disk that runs full: errors are clear, and nothing that was acknowledged is lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from cli_command import Cloche

from cloche.testing.platform import free_port

SIZE = "48m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """Take all that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_what_was_acknowledged_is_kept(small_disk: Path) -> None:
    cloche = Cloche(small_disk / "home", free_port())
    cloche.up()
    s3 = cloche.client("s3")
    s3.create_bucket(Bucket="full")
    acknowledged: dict[str, bytes] = {}
    with pytest.raises(ClientError, match="The disk that holds Cloche's home folder is full"):
        for number in range(100):
            body = os.urandom(2_000_000)
            s3.put_object(Bucket="full", Key=f"k{number}", Body=body)
            acknowledged[f"k{number}"] = body
    fill(small_disk / "filler")
    with pytest.raises(ClientError, match="The disk that holds Cloche's home folder is full"):
        s3.create_bucket(Bucket="no-more")
    # It still reads, says how it is, and goes down in peace.
    assert s3.list_objects_v2(Bucket="full")["KeyCount"] == len(acknowledged) > 5
    assert "on disk" in " ".join(cloche("status").stdout.split())
    assert "everything is kept" in cloche("down").stdout

    refused = cloche.up(code=1).stderr
    assert f"The disk of {cloche.home} is full: 0 MiB are free, 16 are needed" in refused
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=96m", str(small_disk)], check=True)
    cloche.up()
    s3 = cloche.client("s3")
    for key, body in acknowledged.items():
        assert s3.get_object(Bucket="full", Key=key)["Body"].read() == body
    s3.put_object(Bucket="full", Key="again", Body=b"room")
    cloche("down")
