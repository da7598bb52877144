"""What jobs read of public buckets of the real S3, for which a server on loopback stands in."""

import asyncio
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder

from cloche.core.authorization import Actor, Refused
from cloche.core.clock import ManualClock
from cloche.core.identity import Principal
from cloche.outside import OutsideError, PublicBuckets
from cloche.outside import real_s3 as outside
from cloche.records.store import Store
from cloche.services.s3 import S3, Inputs, PublicObject, Sources
from cloche.services.s3 import inputs as module
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in

MANY = {f"many/{n:04}": b"%d" % n for n in range(2500)}


ROLE = Principal(
    kind="assumed-role",
    account="123456789012",
    arn="arn:aws:sts::123456789012:assumed-role/r/SageMaker",
    user_id="AROA:SageMaker",
    role_arn="arn:aws:iam::123456789012:role/r",
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An object store with an empty bucket."""
    folder = tmp_path_factory.mktemp("here")
    store = Store.open(folder / "cloche.db")
    s3 = S3(store, folder / "blobs")
    asyncio.run(s3.create_bucket("here", ROLE.account, "us-east-1"))
    yield s3
    s3.close()
    store.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        objects = {"a/ä b+&.txt": b"text", **MANY}
        made.buckets = {
            "sevir": Bucket("us-west-2", objects=objects),
            "here": Bucket(objects={"a": b"of the real S3"}),
            "unknown": Bucket(objects={"a": b"x"}),
        }
        yield made


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def inputs(
    real: StandInS3, here: S3, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> Inputs:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    real.instead = None
    real.seen.clear()
    sources = Sources(here, outside.RealS3(real.address), PublicBuckets(["here"]))
    return sources.acting_as(Actor(ROLE, recorder, ManualClock().now))


def test_lists_go_on_over_pages(inputs: Inputs) -> None:
    found = list(inputs.list("sevir", "many/"))
    assert [one.key for one in found] == sorted(MANY)
    assert [one.size for one in found] == [len(MANY[key]) for key in sorted(MANY)]


def test_an_object_arrives_whole_and_can_not_be_written(inputs: Inputs, tmp_path: Path) -> None:
    found = inputs.find("sevir", "a/ä b+&.txt")
    assert isinstance(found, PublicObject) and inputs.read(found) == b"text"
    inputs.link(found, tmp_path / "deep/er")
    assert (tmp_path / "deep/er").read_bytes() == b"text"
    assert (tmp_path / "deep/er").stat().st_mode & 0o777 == 0o444
    with pytest.raises(FileExistsError):
        inputs.link(found, tmp_path / "deep/er")
    assert inputs.find("sevir", "nothing") is None


def test_what_is_here_or_unknown_is_not_asked_for(inputs: Inputs, real: StandInS3) -> None:
    assert inputs.find("here", "a") is None and inputs.find("unknown", "a") is None
    assert inputs.bucket_exists("here") and not inputs.bucket_exists("unknown")
    assert real.seen == []


@pytest.mark.parametrize("wrong", ["content", "size"])
def test_what_arrives_otherwise_is_no_input(
    inputs: Inputs, real: StandInS3, tmp_path: Path, wrong: str
) -> None:
    etag = hashlib.md5(b"as it is", usedforsecurity=False).hexdigest()
    found = PublicObject("sevir", "a", 8 if wrong == "content" else 9, etag)
    sent = b"as it's!" if wrong == "content" else b"as it is"

    def forge(handler: Any) -> bool:
        handler.answer(200, sent, {})
        return True

    real.instead = forge
    with pytest.raises(OutsideError, match=r"did not arrive|changed while"):
        inputs.link(found, tmp_path / "a")
    assert not (tmp_path / "a").exists() and len(real.seen) == module.TRIES


def test_a_passing_failure_is_tried_again(inputs: Inputs, real: StandInS3, tmp_path: Path) -> None:
    def fail_once(handler: Any) -> bool:
        if len(real.seen) > 2:
            return False
        handler.answer(503, b"", {})
        return True

    found = PublicObject("sevir", "a/ä b+&.txt", 4, hashlib.md5(b"text").hexdigest())
    real.instead = fail_once
    inputs.link(found, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"text"


def test_the_disk_is_not_filled(inputs: Inputs, real: StandInS3, tmp_path: Path) -> None:
    huge = PublicObject("sevir", "a", 1 << 60, "")
    with pytest.raises(OSError) as full:
        inputs.link(huge, tmp_path / "a")
    assert full.value.errno == errno.ENOSPC and real.seen == []


def test_a_stopped_one_reads_no_more(inputs: Inputs, real: StandInS3, tmp_path: Path) -> None:
    own = Sources(inputs.s3.s3, inputs.real, inputs.public).acting_as(inputs.s3.actor)
    own.halted.set()
    with pytest.raises(OutsideError, match="It was stopped"):
        own.link(PublicObject("sevir", "many/0001", 1, ""), tmp_path / "a")
    assert not inputs.halted.is_set()
    inputs.real.close()
    with pytest.raises(OutsideError, match="Cloche is stopping"):
        inputs.find("sevir", "many/0001")
    assert real.seen == []


def test_reads_outside_are_asked_as_those_here(
    inputs: Inputs, real: StandInS3, recorder: Recorder, tmp_path: Path
) -> None:
    found = inputs.find("sevir", "many/0001")
    assert found is not None
    inputs.link(found, tmp_path / "a")
    inputs.read(found)
    next(inputs.list("sevir", "many/"))
    one = ("s3:GetObject", "arn:aws:s3:::sevir/many/0001")
    assert recorder.take() == [one, one, one, ("s3:ListBucket", "arn:aws:s3:::sevir")]
    recorder.denied |= {"s3:GetObject", "s3:ListBucket"}
    real.seen.clear()
    for read in (
        lambda: inputs.find("sevir", "many/0001"),
        lambda: inputs.link(found, tmp_path / "b"),
        lambda: inputs.read(found),
        lambda: next(inputs.list("sevir", "many/")),
    ):
        with pytest.raises(Refused, match="is not authorized to perform: s3:"):
            read()
    assert real.seen == [] and not (tmp_path / "b").exists()
