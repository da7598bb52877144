"""`cloche fsck`: whether everything that S3 keeps is as it was put."""

from hashlib import md5
from pathlib import Path

import pytest
from cli_command import Cloche

from cloche.testing.platform import free_port


@pytest.fixture(scope="module")
def cloche(tmp_path_factory: pytest.TempPathFactory) -> Cloche:
    cloche = Cloche(tmp_path_factory.mktemp("fsck") / "home", free_port())
    cloche.up()
    s3 = cloche.client("s3")
    s3.create_bucket(Bucket="kept")
    for number in range(5):
        s3.put_object(Bucket="kept", Key=f"object {number}", Body=b"%d" % number * 50_000)
    for key, done in (("parts", True), ("part\nial", False)):
        upload = s3.create_multipart_upload(Bucket="kept", Key=key)["UploadId"]
        place = {"Bucket": "kept", "Key": key, "UploadId": upload}
        tags = [
            s3.upload_part(**place, PartNumber=number, Body=body)["ETag"]
            for number, body in ((1, b"a" * (5 << 20)), (2, b"b"))
        ]
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        if done:
            s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    s3.copy_object(Bucket="kept", Key="copy", CopySource="kept/parts")
    return cloche


def blob(cloche: Cloche, content: bytes) -> Path:
    """Return the file with this content."""
    files = [path for path in (cloche.home / "blobs").rglob("*") if path.is_file()]
    (found,) = [
        path
        for path in files
        if path.stat().st_size == len(content) and path.read_bytes() == content
    ]
    found.chmod(0o644)
    return found


def test_what_is_whole_what_is_damaged_and_what_is_missing(cloche: Cloche) -> None:
    assert cloche("fsck").stdout == ("9 contents (15.2 MiB) checked: all are intact.\n"), (
        "while the server is up"
    )
    cloche("down")
    assert "all are intact" in cloche("fsck").stdout
    flipped, short = blob(cloche, b"1" * 50_000), blob(cloche, b"2" * 50_000)
    with flipped.open("r+b") as file:
        file.seek(40_000)
        file.write(b"0")
    with short.open("r+b") as file:
        file.truncate(49_999)
    blob(cloche, b"3" * 50_000).unlink()
    for each in (cloche.home / "blobs").rglob("*"):
        if each.is_file() and each.stat().st_size == (5 << 20) + 1:
            each.chmod(0o644)
            with each.open("r+b") as file:
                file.seek(5 << 20)
                file.write(b"c")
            break
    done = cloche("fsck", code=1)
    copy, one, two, three, parts = sorted(done.stdout.splitlines())
    content = bytearray(b"1" * 50_000)
    before, content[40_000] = md5(content).hexdigest(), ord("0")
    assert one == (
        f"damaged: s3://kept/object 1: its MD5 is {md5(content).hexdigest()} instead of {before}"
    )
    assert two == "damaged: s3://kept/object 2: it has 49,999 bytes instead of 50,000"
    assert three == "damaged: s3://kept/object 3: its content is missing"
    whole = md5(b"a" * (5 << 20) + b"c").hexdigest()
    assert copy.startswith(f"damaged: s3://kept/copy: its MD5 is {whole} instead of ")
    assert parts.startswith("damaged: s3://kept/parts: its MD5 is ")
    assert done.stderr.endswith(
        " checked: 5 damaged or missing. Upload them again, or restore the home folder from a "
        "backup; nothing was changed.\n"
    )


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    done = Cloche(tmp_path, free_port())("fsck", "--home", str(tmp_path), code=1)
    assert done.stderr == f"There is no home folder of Cloche's at {tmp_path}.\n"
