"""`cloche data check`, on a folder and on S3."""

import os
from pathlib import Path

from cli_command import Cloche
from PIL import Image


def folder(root: Path) -> Path:
    for number, name in enumerate(("train/a/1.png", "train/b/1.png", "test/a/1.png")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").rotate(90 * number).save(path)
    return root


def test_a_folder_with_nothing_wrong(cloche: Cloche, tmp_path: Path) -> None:
    done = cloche("data", "check", str(folder(tmp_path / "pictures")))
    assert done.stdout.splitlines() == [
        "warning: classes of train that test does not have: b",
        f"{tmp_path}/pictures: 3 files checked, 1 warning.",
    ]


def test_a_leak_ends_with_code_1(cloche: Cloche, tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures")
    (root / "test/b").mkdir()
    (root / "test/b/9.png").write_bytes((root / "train/b/1.png").read_bytes())
    done = cloche("data", "check", str(root), code=1)
    assert done.stdout.splitlines() == [
        "error: the same file is in train and test 1 time: train/b/1.png = test/b/9.png"
    ]
    assert done.stderr == (
        f"{root}: 1 error in 4 files. Fix the folder before you train: a test on pictures that "
        "were trained on is worthless.\n"
    )


def test_objects(cloche: Cloche, tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures")
    cloche.up()
    s3 = cloche.client("s3")
    s3.create_bucket(Bucket="pictures")
    for path in root.rglob("*.png"):
        key = f"data/{path.relative_to(root).as_posix()}"
        s3.put_object(Bucket="pictures", Key=key, Body=path.read_bytes())
    again = (root / "train/a/1.png").read_bytes()
    s3.put_object(Bucket="pictures", Key="data/valid/a/9.png", Body=again)
    done = cloche("data", "check", "s3://pictures/data", code=1)
    assert "error: the same file is in train and valid 1 time: " in done.stdout
    none = cloche("data", "check", "s3://nobodys/data", code=1)
    assert "s3://nobodys/data can't be listed: " in none.stderr
    assert "NoSuchBucket" in none.stderr


def test_what_is_no_folder_is_told(cloche: Cloche, tmp_path: Path) -> None:
    done = cloche("data", "check", str(tmp_path / "nothing"), code=1)
    assert done.stderr == (
        f"{tmp_path}/nothing is neither a folder nor an S3 URI (s3://BUCKET/PREFIX).\n"
    )
    empty = cloche("data", "check", str(tmp_path), code=1)
    assert empty.stderr == f"{tmp_path} has no files.\n"


def test_what_is_no_file_and_folders_that_lead_into_themselves(
    cloche: Cloche, tmp_path: Path
) -> None:
    root = folder(tmp_path / "pictures")
    (root / "train/a/loop").symlink_to("..")
    os.mkfifo(root / "train/a/2.png")
    with (root / "train/a/3.png").open("wb") as file:
        file.truncate(1 << 40)
    (root / "train/a/\x1b[2J.png").write_bytes(b"")
    done = cloche("data", "check", str(root), code=1)
    assert (
        "error: 3 files can't be used: train/a/\\x1b[2J.png is not a picture; "
        "train/a/2.png is not a picture; train/a/3.png has more than 256 MiB\n"
    ) in done.stdout
