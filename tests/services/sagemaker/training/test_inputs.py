"""Which objects a channel presents, and where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorder import Anything

from cloche.core.authorization import Actor
from cloche.core.clock import ManualClock
from cloche.core.errors import AwsError
from cloche.core.identity import Principal
from cloche.records.store import Store
from cloche.services.s3 import S3, ActingS3
from cloche.services.sagemaker.s3_objects import (
    ChannelObject,
    DownloadError,
    link_all,
    objects,
    split_uri,
)
from cloche.services.sagemaker.training.inputs import shard

KEYS = ("data/train/a", "data/train/b/c", "data/train-2/x", "data/train.csv", "other", "é/ü")


@pytest.fixture
async def s3(tmp_path: Path) -> ActingS3:
    store = Store.open(tmp_path / "cloche.db")
    made = S3(store, tmp_path / "blobs")
    await made.create_bucket("bucket", "1", "r")
    for key in KEYS:
        await made.put_bytes("bucket", key, key.encode())
    principal = Principal(kind="assumed-role", account="1", arn="session", user_id="x")
    return made.acting_as(Actor(principal, Anything(), ManualClock().now))


@pytest.fixture(autouse=True)
def closed(s3: ActingS3) -> Iterator[None]:
    yield
    s3.s3.close()
    s3.s3.store.close()


def paths(s3: ActingS3, uri: str, kind: str = "S3Prefix", mode: str = "File") -> list[str]:
    return [placed.path for placed in objects(s3, {"S3DataType": kind, "S3Uri": uri}, mode)]


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("s3://bucket/data/train/", ["a", "b/c"]),
        ("s3://bucket/data/train", ["train-2/x", "train.csv", "a", "b/c"]),
        ("s3://bucket/data/train.", ["train.csv"]),
        ("s3://bucket/data/train.csv", ["train.csv"]),
        ("s3://bucket/data/train/b/c", ["c"]),
        ("s3://bucket", sorted(KEYS)),
        ("s3://bucket/é", ["ü"]),
    ],
)
async def test_prefix(s3: ActingS3, uri: str, found: list[str]) -> None:
    assert paths(s3, uri) == found


async def test_fast_file_takes_whole_files_and_folders_alone(s3: ActingS3) -> None:
    assert paths(s3, "s3://bucket/data/train/", mode="FastFile") == ["a", "b/c"]
    with pytest.raises(
        DownloadError, match="For FastFile mode, partial S3 prefix is not supported"
    ):
        paths(s3, "s3://bucket/data/train", mode="FastFile")


async def test_manifest(s3: ActingS3) -> None:
    async def put(content: object) -> None:
        await s3.put_bytes("bucket", "manifest", json.dumps(content).encode())

    await put([{"prefix": "s3://bucket/data/"}, "train/a", "train-2/x"])
    assert paths(s3, "s3://bucket/manifest", "ManifestFile") == ["train/a", "train-2/x"]
    for wrong in ([{"prefix": "s3://bucket/data/"}, "nothing"], ["s3://x"], {}, [{"prefix": 3}]):
        await put(wrong)
        with pytest.raises(DownloadError):
            paths(s3, "s3://bucket/manifest", "ManifestFile")
    with pytest.raises(DownloadError, match="Unable to find the manifest"):
        paths(s3, "s3://bucket/none", "ManifestFile")


async def test_shards_part_the_objects(s3: ActingS3) -> None:
    placed = objects(s3, {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket"}, "File")
    parts = [[p.path for p in shard(placed, n, 4, "ShardedByS3Key")] for n in range(4)]
    assert sorted(path for part in parts for path in part) == sorted(KEYS)
    assert {len(part) for part in parts} == {1, 2}
    assert shard(placed, 3, 4, "FullyReplicated") == placed


async def test_links_are_the_stored_files(s3: ActingS3, tmp_path: Path) -> None:
    placed = objects(s3, {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data/train/"}, "File")
    link_all(s3, placed, tmp_path / "channel")
    stored = s3.find("bucket", "data/train/b/c")
    assert stored is not None
    assert os.path.samefile(tmp_path / "channel/b/c", stored.path)
    link_all(s3, placed, tmp_path / "channel")  # again: nothing happens


@pytest.mark.parametrize("path", ["../up", "a/../../up", "./x"])
async def test_keys_do_not_lead_out_of_the_folder(s3: ActingS3, tmp_path: Path, path: str) -> None:
    stored = s3.find("bucket", "other")
    assert stored is not None
    with pytest.raises(DownloadError, match="not a path below a folder"):
        link_all(s3, [ChannelObject(stored, path)], tmp_path / "channel/deep")
    assert not (tmp_path / "channel/up").exists()


async def test_folder_markers_and_clashes(s3: ActingS3, tmp_path: Path) -> None:
    await s3.put_bytes("bucket", "m/dir/", b"")
    await s3.put_bytes("bucket", "m/dir/file", b"1")
    placed = objects(s3, {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/m/"}, "File")
    link_all(s3, placed, tmp_path / "one")
    assert (tmp_path / "one/dir/file").read_bytes() == b"1"
    await s3.put_bytes("bucket", "m/dir", b"a file")
    placed = objects(s3, {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/m/"}, "File")
    with pytest.raises(DownloadError):
        link_all(s3, placed, tmp_path / "two")
    long = objects(s3, {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/other"}, "File")[0]
    with pytest.raises(DownloadError):
        link_all(s3, [ChannelObject(long.stored, "x" * 300)], tmp_path / "three")


@pytest.mark.parametrize("uri", ["bucket/key", "http://bucket/key", "s3://", ""])
def test_uri_that_is_none(uri: str) -> None:
    with pytest.raises(AwsError, match="Invalid S3 URI"):
        split_uri(uri)


async def test_ten_thousand_links_are_no_copies(s3: ActingS3, tmp_path: Path) -> None:
    """The bench measures how long they take (0.4 s beside 8 s of copying)."""
    stored = s3.find("bucket", "other")
    assert stored is not None
    placed = [ChannelObject(stored, f"class{n % 100}/{n}.jpg") for n in range(10_000)]
    link_all(s3, placed, tmp_path / "channel")
    linked = list((tmp_path / "channel").rglob("*.jpg"))
    assert len(linked) == 10_000
    assert len({file.stat().st_ino for file in linked}) == 1
