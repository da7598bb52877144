"""Servers that are killed, disks that are full, clients that go away."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from s3_server import ACCOUNT, Served, client
from wire import body, refused

from cloche.core.errors import AwsError
from cloche.records.store import StorageFull, Store
from cloche.services.s3 import S3
from cloche.services.s3 import blobs as blobs_module

SERVER = Path(__file__).parent / "s3_server.py"
ROUNDS, WRITERS = 3, 4


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


class Writer(threading.Thread):
    """Puts, replaces and deletes until the server is gone; notes what was acknowledged."""

    def __init__(self, port: int, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.client = client(port)
        self.number, self.random = number, random.Random(seed)
        self.known: dict[str, set[str | None]] = {}  # key: MD5s that it may have now
        self.puts = 0

    def run(self) -> None:
        try:
            while True:
                self.step()
        except (ClientError, BotoCoreError):
            return

    def step(self) -> None:
        key = f"{self.number}/{self.random.randrange(12)}"
        before = self.known.get(key, {None})
        if self.random.random() < 0.2:
            self.known[key] = before | {None}
            self.client.delete_object(Bucket="kill-1", Key=key)
            self.known[key] = {None}
            return
        data = os.urandom(self.random.choice((10, 5_000, 300_000)))
        md5 = hashlib.md5(data).hexdigest()
        self.known[key] = before | {md5}
        self.client.put_object(Bucket="kill-1", Key=key, Body=data)
        self.known[key] = {md5}
        self.puts += 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_kill_9_loses_no_acknowledged_object(tmp_path: Path) -> None:
    """What was acknowledged is there and whole; what was not is there whole or not at all."""
    port, expected, puts = free_port(), dict[str, set[str | None]](), 0
    moments = random.Random(7)
    for number in range(ROUNDS):
        server = subprocess.Popen([sys.executable, str(SERVER), str(tmp_path), str(port)])
        try:
            wait_for(lambda: answers(port))
            if number == 0:
                client(port).create_bucket(Bucket="kill-1")
            writers = [Writer(port, one, number * 10 + one) for one in range(WRITERS)]
            for writer in writers:
                mine = f"{writer.number}/"
                writer.known = {k: v for k, v in expected.items() if k.startswith(mine)}
                writer.start()
            wait_for(lambda w=writers: all(one.puts > 1 for one in w))
            time.sleep(moments.uniform(0, 0.2))  # in step with nothing
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
        for writer in writers:
            writer.join(30)
            expected |= writer.known
            puts += writer.puts
    store = Store.open(tmp_path / "cloche.db")
    s3 = S3(store, tmp_path / "blobs")
    for key, allowed in expected.items():
        found = s3.find("kill-1", key)
        if found is None:
            assert None in allowed, key
        else:
            assert hashlib.md5(found.path.read_bytes()).hexdigest() == found.etag
            assert found.etag in allowed, key
    s3.swept.result(60)
    named = {found.path for found in s3.list("kill-1")}
    assert set((tmp_path / "blobs").glob("??/*")) == named  # orphans are swept
    assert puts > ROUNDS * WRITERS
    s3.close()
    store.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Store, S3, Path]]:
    store = Store.open(tmp_path / "cloche.db")
    s3 = S3(store, tmp_path / "blobs")
    yield store, s3, tmp_path
    s3.close()
    store.close()


async def test_orphans_are_swept_at_start_only(home: tuple[Store, S3, Path]) -> None:
    store, s3, folder = home
    await s3.create_bucket("b", ACCOUNT, "us-east-1")
    kept = await s3.put_bytes("b", "k", b"kept")
    orphan = s3.blobs.create()
    orphan.write([b"never committed"])
    orphan.keep()
    path = s3.blobs.path(orphan.blob)
    assert path.exists()
    again = S3(store, folder / "blobs")
    again.swept.result(60)
    assert not path.exists()
    assert kept.path.read_bytes() == b"kept"
    again.close()


def test_what_is_written_meanwhile_is_not_swept(tmp_path: Path) -> None:
    blobs = blobs_module.LocalBlobs(tmp_path / "blobs")
    before, lost = blobs_module.LocalBlobs(tmp_path / "blobs").create(), "0" * 32
    before.keep()
    mine = blobs.create()
    mine.keep()
    copied = blobs.copy(mine.blob)
    assert blobs.sweep({lost}) == {lost}
    assert not blobs.path(before.blob).exists()
    assert blobs.path(mine.blob).exists() and blobs.path(copied).exists()


def test_a_store_in_use_by_another_process_is_not_swept(
    home: tuple[Store, S3, Path],
) -> None:
    _, s3, folder = home
    orphan = s3.blobs.create()
    orphan.keep()
    path = s3.blobs.path(orphan.blob)
    script = (
        "import sys; from pathlib import Path\n"
        "from cloche.services.s3.blobs import LocalBlobs\n"
        "LocalBlobs(Path(sys.argv[1])).sweep(set())\n"
    )
    command = [sys.executable, "-c", script, str(folder / "blobs")]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert path.exists()


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_and_passes(
    served: Served, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    before = served.blobs()
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, "fsync", no_space)
        answer = refused(
            "InsufficientStorage",
            None,
            507,
            lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"after"),
        )
        assert "home folder is full" in answer["Error"]["Message"]
    assert served.blobs() == before
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"before"
    s3.put_object(Bucket=bucket, Key="k", Body=b"after")
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"after"


def test_a_full_index_leaves_no_blob(served: Served, s3: Any, bucket: str) -> None:
    """The content is written, but its row finds no space."""
    store = served.running.store
    (pages,) = store.read().exec_driver_sql("PRAGMA page_count").scalars()
    before = served.blobs()
    store.write_now(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}"))
    try:
        with pytest.raises(ClientError) as caught:
            for number in range(1000):
                s3.put_object(
                    Bucket=bucket, Key=f"k{number}", Body=b"x", Metadata={"m": "x" * 2000}
                )
        assert caught.value.response["Error"]["Code"] == "InsufficientStorage"
    finally:
        store.write_now(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1073741823"))
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    assert len(served.blobs() - before) == len(listed)
    s3.put_object(Bucket=bucket, Key="again", Body=b"x")


def test_a_client_that_goes_away_leaves_nothing(served: Served, s3: Any, bucket: str) -> None:
    before = served.blobs()
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}, HttpMethod="PUT")
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.putrequest("PUT", url[url.index(f"/{bucket}") :])
    connection.putheader("Content-Length", str(5 << 20))
    connection.endheaders()
    connection.send(os.urandom(3 << 20))
    wait_for(lambda: served.blobs() != before)
    connection.close()
    wait_for(lambda: served.blobs() == before)
    refused("404", None, 404, lambda: s3.head_object(Bucket=bucket, Key="k"))


async def test_readers_and_writers_of_one_key(served: Served, s3: Any, bucket: str) -> None:
    """A reader gets one of the contents, whole, whatever replaces it meanwhile."""
    contents = {bytes([n]) * 200_000 for n in range(4)}
    s3.put_object(Bucket=bucket, Key="k", Body=next(iter(contents)))
    done = threading.Event()

    def replace() -> None:
        other = served.client()
        for _ in range(10):
            for content in contents:
                other.put_object(Bucket=bucket, Key="k", Body=content)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    reads = 0
    while not done.is_set():
        assert body(s3.get_object(Bucket=bucket, Key="k")) in contents
        reads += 1
    thread.join()
    assert reads > 5
    assert len([p for p in served.blobs() if p.stat().st_size == 200_000]) == 1


async def test_links_of_a_channel(home: tuple[Store, S3, Path]) -> None:
    _, s3, folder = home
    await s3.create_bucket("b", ACCOUNT, "us-east-1")
    source = folder / "source"
    source.write_bytes(b"from a file")
    made = await s3.put_file("b", "train/a/1", source, "text/plain")
    source.unlink()
    assert (made.content_type, made.size, made.metadata) == ("text/plain", 11, {})
    for n in range(2, 6):
        await s3.put_bytes("b", f"train/a/{n}", str(n).encode())
    for found in s3.list("b", "train/"):
        s3.link(found, folder / "ml" / found.key)
    linked = folder / "ml/train/a/1"
    assert linked.read_bytes() == b"from a file"
    assert linked.stat().st_ino == made.path.stat().st_ino
    stale = s3.find("b", "train/a/2")
    assert stale is not None
    await s3.put_bytes("b", "train/a/2", b"newer")
    await asyncio.get_running_loop().run_in_executor(
        None, wait_for, lambda: not stale.path.exists()
    )
    s3.link(stale, folder / "ml/newer")
    assert (folder / "ml/newer").read_bytes() == b"newer"
    assert s3.find("b", "none") is None
    assert not s3.bucket_exists("none")
    with pytest.raises(AwsError) as caught:
        await s3.put_bytes("none", "k", b"")
    assert caught.value.code == "NoSuchBucket"


async def test_more_than_a_page_is_listed(home: tuple[Store, S3, Path]) -> None:
    _, s3, _ = home
    await s3.create_bucket("b", ACCOUNT, "us-east-1")
    keys = [f"k/{n:04}" for n in range(1100)]
    await asyncio.gather(*[s3.put_bytes("b", key, b"") for key in keys])
    assert [found.key for found in s3.list("b", "k/")] == keys
    assert issubclass(StorageFull, AwsError)
