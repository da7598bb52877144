"""Uploads in parts on the wire."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from typing import Any

import pytest
from awscrt import checksums as crt
from s3_server import KEY, Served
from wire import body, refused

from cloche.core.errors import AwsError
from cloche.records.objects import PartRow
from cloche.services.s3.assembly import assemble, choose
from cloche.services.s3.document import Document

MIB = 1 << 20
NO_UPLOAD = (
    "The specified upload does not exist. The upload ID may be invalid, or the upload may have "
    "been aborted or completed."
)
FIRST, SECOND = os.urandom(5 * MIB), os.urandom(1 * MIB + 7)


def upload(s3: Any, bucket: str, *parts: bytes, **arguments: Any) -> tuple[str, list[Any]]:
    """Begin an upload and send its parts; return its id and the parts as Complete wants them."""
    id = s3.create_multipart_upload(Bucket=bucket, Key="k", **arguments)["UploadId"]
    same = {k: v for k, v in arguments.items() if k == "ChecksumAlgorithm"}
    sent = []
    for number, data in enumerate(parts, 1):
        answer = s3.upload_part(
            Bucket=bucket, Key="k", UploadId=id, PartNumber=number, Body=data, **same
        )
        sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        sent.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
    return id, sent


def complete(s3: Any, bucket: str, id: str, parts: list[Any], **arguments: Any) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=id, MultipartUpload={"Parts": parts}, **arguments
    )


def test_upload_in_parts(s3: Any, bucket: str, served: Served) -> None:
    before = served.blobs()
    id, parts = upload(
        s3, bucket, FIRST, SECOND, Metadata={"a": "b"}, ContentType="x/y", Tagging="t=1"
    )
    done = complete(s3, bucket, id, parts)
    digests = hashlib.md5(FIRST).digest() + hashlib.md5(SECOND).digest()
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert done["Location"].endswith(f"/{bucket}/k")
    assert len(served.blobs() - before) == 1  # the parts are gone
    got = s3.get_object(Bucket=bucket, Key="k")
    assert body(got) == FIRST + SECOND
    assert (got["Metadata"], got["ContentType"], got["TagCount"]) == ({"a": "b"}, "x/y", 1)
    assert complete(s3, bucket, id, parts)["ETag"] == done["ETag"]  # sent again: the same answer
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
    assert body(second) == SECOND
    assert second["PartsCount"] == 2
    answer = refused(
        "InvalidPartNumber",
        "The requested partnumber is not satisfiable",
        416,
        lambda: s3.get_object(Bucket=bucket, Key="k", PartNumber=3),
    )
    assert answer["Error"]["ActualPartCount"] == "2"
    shown = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectParts", "ObjectSize", "Checksum"]
    )
    assert shown["ObjectSize"] == len(FIRST) + len(SECOND)
    assert shown["ObjectParts"]["TotalPartsCount"] == 2


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256"])
def test_composite_checksums(s3: Any, bucket: str, algorithm: str) -> None:
    id, parts = upload(s3, bucket, FIRST, SECOND, ChecksumAlgorithm=algorithm)
    done = complete(s3, bucket, id, parts)
    raw = b"".join(base64.b64decode(part[f"Checksum{algorithm}"]) for part in parts)
    hashes = {
        "CRC32": lambda data: crt.crc32(data).to_bytes(4, "big"),
        "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
        "SHA1": lambda data: hashlib.sha1(data).digest(),
        "SHA256": lambda data: hashlib.sha256(data).digest(),
    }
    expected = base64.b64encode(hashes[algorithm](raw)).decode() + "-2"
    assert done[f"Checksum{algorithm}"] == expected
    assert done["ChecksumType"] == "COMPOSITE"
    shown = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"])
    assert [
        (one["Size"], one[f"Checksum{algorithm}"]) for one in shown["ObjectParts"]["Parts"]
    ] == [
        (size, part[f"Checksum{algorithm}"])
        for size, part in zip((len(FIRST), len(SECOND)), parts, strict=True)
    ]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_checksums_of_the_whole(s3: Any, bucket: str, algorithm: str) -> None:
    id, parts = upload(
        s3, bucket, FIRST, SECOND, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT"
    )
    function = {"CRC32": crt.crc32, "CRC32C": crt.crc32c, "CRC64NVME": crt.crc64nvme}[algorithm]
    value = function(FIRST + SECOND).to_bytes(8 if algorithm == "CRC64NVME" else 4, "big")
    expected = base64.b64encode(value).decode()
    wrong = base64.b64encode(bytes(len(value))).decode()
    refused(
        "BadDigest",
        f"The {algorithm} you specified did not match the calculated checksum.",
        400,
        lambda: complete(s3, bucket, id, parts, **{f"Checksum{algorithm}": wrong}),
    )
    done = complete(s3, bucket, id, parts, **{f"Checksum{algorithm}": expected})
    assert done[f"Checksum{algorithm}"] == expected
    assert done["ChecksumType"] == "FULL_OBJECT"


def test_types_that_do_not_go_together(s3: Any, bucket: str) -> None:
    refused(
        "InvalidRequest",
        "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm.",
        400,
        lambda: s3.create_multipart_upload(
            Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT"
        ),
    )
    id, parts = upload(s3, bucket, SECOND, ChecksumAlgorithm="CRC32")
    refused(
        "InvalidRequest",
        "Checksum Type mismatch occurred, expected checksum Type: crc32, actual checksum Type: "
        "sha256",
        400,
        lambda: s3.upload_part(
            Bucket=bucket,
            Key="k",
            UploadId=id,
            PartNumber=2,
            Body=b"",
            ChecksumAlgorithm="SHA256",
        ),
    )
    bare = [{name: part[name] for name in ("PartNumber", "ETag")} for part in parts]
    refused(
        "InvalidRequest",
        "The upload was created using a crc32 checksum. The complete request must include the "
        "checksum for each part. It was missing for part 1 in the request.",
        400,
        lambda: complete(s3, bucket, id, bare),
    )


def test_completions_that_fail(s3: Any, bucket: str) -> None:
    id, parts = upload(s3, bucket, SECOND, SECOND)
    order = "The list of parts was not in ascending order. Parts must be ordered by part number."
    part = (
        "One or more of the specified parts could not be found.  The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag."
    )
    small = "Your proposed upload is smaller than the minimum allowed size"
    for code, text, wrong in (
        ("InvalidPartOrder", order, parts[::-1]),
        ("InvalidPart", part, [{**parts[0], "PartNumber": 7}]),
        ("InvalidPart", part, [{**parts[0], "ETag": '"other"'}]),
        ("EntityTooSmall", small, parts),
    ):
        refused(code, text, 400, lambda w=wrong: complete(s3, bucket, id, w))
    refused("NoSuchUpload", NO_UPLOAD, 404, lambda: complete(s3, bucket, "no-such-upload", parts))
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=id)
    refused("NoSuchUpload", NO_UPLOAD, 404, lambda: complete(s3, bucket, id, parts))


def test_conditional_completion(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    id, parts = upload(s3, bucket, SECOND)
    text = "At least one of the pre-conditions you specified did not hold"
    refused(
        "PreconditionFailed", text, 412, lambda: complete(s3, bucket, id, parts, IfNoneMatch="*")
    )
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"there"
    complete(s3, bucket, id, parts)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == SECOND


def test_parts_are_listed_and_replaced(s3: Any, bucket: str, served: Served) -> None:
    id, parts = upload(s3, bucket, b"a", b"bb", b"ccc")
    before = served.blobs()
    s3.upload_part(Bucket=bucket, Key="k", UploadId=id, PartNumber=2, Body=b"dddd")
    assert len(served.blobs()) == len(before)
    page = s3.list_parts(Bucket=bucket, Key="k", UploadId=id, MaxParts=2)
    assert [(one["PartNumber"], one["Size"]) for one in page["Parts"]] == [(1, 1), (2, 4)]
    assert page["IsTruncated"]
    rest = s3.list_parts(
        Bucket=bucket, Key="k", UploadId=id, PartNumberMarker=page["NextPartNumberMarker"]
    )
    assert [one["ETag"] for one in rest["Parts"]] == [parts[2]["ETag"]]
    assert rest["Initiator"]["ID"] == KEY.principal.arn
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=id)
    refused(
        "NoSuchUpload",
        NO_UPLOAD,
        404,
        lambda: s3.list_parts(Bucket=bucket, Key="k", UploadId=id),
    )
    assert len(served.blobs()) == len(before) - 3


def test_part_numbers(s3: Any, bucket: str) -> None:
    id, _ = upload(s3, bucket)
    for number in (0, 10001):
        refused(
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            400,
            lambda n=number: s3.upload_part(
                Bucket=bucket, Key="k", UploadId=id, PartNumber=n, Body=b""
            ),
        )


def test_parts_copied_from_objects(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=FIRST + SECOND)
    id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = []
    for number, asked in ((1, f"bytes=0-{len(FIRST) - 1}"), (2, "bytes=10-19")):
        answer = s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=id,
            PartNumber=number,
            CopySource=f"{bucket}/source",
            CopySourceRange=asked,
        )["CopyPartResult"]
        sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
    complete(s3, bucket, id, parts)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == FIRST + FIRST[10:20]
    id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    size = len(FIRST) + len(SECOND)
    refused(
        "InvalidArgument",
        f"Range specified is not valid for source object of size: {size}",
        400,
        lambda: s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=id,
            PartNumber=1,
            CopySource=f"{bucket}/source",
            CopySourceRange=f"bytes=0-{size}",
        ),
    )


def test_a_copy_is_one_piece(s3: Any, bucket: str) -> None:
    id, parts = upload(s3, bucket, FIRST, SECOND)
    complete(s3, bucket, id, parts)
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert head["ETag"] == f'"{hashlib.md5(FIRST + SECOND).hexdigest()}"'


def test_uploads_are_listed(s3: Any, bucket: str) -> None:
    keys = ["a/1", "a/2", "b", "b", "c"]
    ids = [s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in keys]
    page = s3.list_multipart_uploads(Bucket=bucket)
    assert [(one["Key"], one["UploadId"]) for one in page["Uploads"]] == [
        *zip(keys[:2], ids[:2], strict=True),
        *[("b", id) for id in sorted(ids[2:4])],
        ("c", ids[4]),
    ]
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [one["Prefix"] for one in rolled["CommonPrefixes"]] == ["a/"]
    assert [one["Key"] for one in rolled["Uploads"]] == ["b", "b", "c"]
    for size in (1, 2, 3):
        pages = s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size}
        )
        seen = [one["UploadId"] for page in pages for one in page["Uploads"]]
        assert seen == [one["UploadId"] for one in page["Uploads"]]
    only = s3.list_multipart_uploads(Bucket=bucket, Prefix="c")
    assert [one["Key"] for one in only["Uploads"]] == ["c"]


def test_managed_transfers(s3: Any, bucket: str) -> None:
    """boto3's own upload and download in parts, several threads at a time."""
    data = os.urandom(18 * MIB)
    s3.upload_fileobj(io.BytesIO(data), bucket, "k")
    into = io.BytesIO()
    s3.download_fileobj(bucket, "k", into)
    assert into.getvalue() == data


def test_two_completions_at_once_make_one_object(s3: Any, bucket: str, served: Served) -> None:
    before = served.blobs()
    id, parts = upload(s3, bucket, FIRST, SECOND)
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(complete(served.client(), bucket, id, parts)["ETag"])
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert len(set(answers)) == 1  # all get the same tag
    assert len(served.blobs() - before) == 1
    assert body(s3.get_object(Bucket=bucket, Key="k")) == FIRST + SECOND


def part(number: int, size: int, etag: str = "e") -> PartRow:
    return PartRow("u", number, size, etag, 0, f"blob{number}", '{"CRC64NVME":"AAAAAAAAAAA="}')


def test_choosing_parts_is_pure() -> None:
    there = {1: part(1, 5 * MIB), 3: part(3, 1), 4: part(4, 9)}
    asked = [{"PartNumber": 1, "ETag": '"e"'}, {"PartNumber": 3, "ETag": "e"}]
    chosen = choose(asked, there, Document())
    assert [one.number for one in chosen] == [1, 3]
    made = assemble(Document(checksum_type="FULL_OBJECT"), chosen, "u")
    assert [one.size for one in made.parts] == [5 * MIB, 1]
    assert made.upload == "u"
    with pytest.raises(AwsError) as caught:
        choose([], there, Document())
    assert caught.value.code == "MalformedXML"
