"""Archives of users: nothing of one lands outside its folder, none takes more than its bounds."""

from __future__ import annotations

import os
import resource
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from evil_archives import ESCAPES, REFUSED, bomb, header, made
from serving_client import settled
from training_client import wait_for

from cloche.archives.reader import BadArchive
from cloche.archives.unpacking import ArchiveBounds, Unpacking
from cloche.services.sagemaker.software.requirements import look_through
from cloche.testing.platform import Platform

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
MIB = 1 << 20


class Attacker:
    """Who may put objects, and make models and endpoints of them."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.s3, self.sagemaker = platform.client("s3"), platform.client("sagemaker")
        self.role = platform.client("iam").list_roles()["Roles"][0]["Arn"]
        self.s3.create_bucket(Bucket="evil")
        self.number = 0

    def put(self, key: str, data: bytes) -> str:
        self.s3.put_object(Bucket="evil", Key=key, Body=data)
        return f"s3://evil/{key}"

    def deploy(self, container: dict[str, Any], **more: Any) -> str:
        self.number += 1
        name = f"evil-{self.number}"
        container = {"Image": IMAGE, **container}
        self.sagemaker.create_model(
            ModelName=name, PrimaryContainer=container, ExecutionRoleArn=self.role
        )
        variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1}
        variant |= {"InstanceType": "ml.t2.medium", **more}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return name

    def model(self, data: bytes, **more: Any) -> str:
        self.number += 1
        uri = self.put(f"model-{self.number}.tar.gz", data)
        return self.deploy({"ModelDataUrl": uri}, **more)

    def outcome(self, name: str) -> str:
        """Return why an endpoint failed, once it did, or its status; it is deleted then."""
        found = settled(self.sagemaker, name)
        self.delete(name)
        reason: str = found.get("FailureReason", found["EndpointStatus"])
        return reason

    def delete(self, name: str) -> None:
        self.sagemaker.delete_endpoint(EndpointName=name)
        wait_for(lambda: not self.exists(name))

    def exists(self, name: str) -> bool:
        try:
            self.sagemaker.describe_endpoint(EndpointName=name)
        except self.sagemaker.exceptions.ClientError:
            return False
        return True

    def models(self) -> list[Path]:
        return list(self.platform.home.instances.glob("*/models/*/*"))


@pytest.fixture(scope="module")
def attacker(platform: Platform) -> Attacker:
    return Attacker(platform)


@pytest.fixture
def secret(canary: Path) -> Iterator[Path]:
    """A file of the machine, with one name and its own text; checked at the end."""
    canary.write_text("secret")
    yield canary
    assert canary.read_text() == "secret"
    assert canary.stat().st_nlink == 1


TEXTS = {name: text for name, (_, text) in (ESCAPES | REFUSED).items()}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.control(
    "test_without_the_walk_it_gets_out: extractall without a filter writes the canary; with the "
    "filter that 0e393ec used, long_chain and long_chain_to_a_hard_link still do, as root."
)
def test_model_that_writes_elsewhere(attacker: Attacker, name: str, canary: Path) -> None:
    linked = name.startswith("hard_link")
    if linked:
        canary.write_text("secret")
    outcome = attacker.outcome(attacker.model(made(name, canary)))
    assert (
        (canary.read_text(), canary.stat().st_nlink) == ("secret", 1)
        if linked
        else (not canary.exists())
    )
    if TEXTS[name]:
        start = 'Failed to extract model data archive for container "container_1" from URL '
        assert outcome.startswith(start) and TEXTS[name] in outcome


@pytest.mark.parametrize("name", ESCAPES)
def test_without_the_walk_it_gets_out(name: str, canary: Path, tmp_path: Path) -> None:
    if name.startswith("hard_link"):
        canary.write_text("secret")
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "1/2/3"
    archive.write_bytes(made(name, canary))
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="fully_trusted")
    got_out = (
        canary.is_dir() if name == "folder_through_a_link" else canary.read_text() == "got out"
    )
    assert got_out


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.control(
    "At 0e393ec `sparse` and `pax_sparse` were taken, as files of 8 TiB; the long headers were "
    "read into the server's memory; `headers_without_end` and `nested` ended in RecursionError, "
    "`no_pax` in OverflowError. The others were refused in other words."
)
def test_model_that_is_not_what_a_model_is(
    attacker: Attacker, name: str, secret: Path, tmp_path: Path
) -> None:
    outcome = attacker.outcome(attacker.model(made(name, secret)))
    assert outcome.endswith(f"{TEXTS[name]})"), outcome
    assert attacker.models() == []


@pytest.mark.control("At 0e393ec the archive's mode was kept but for what the filter took away.")
def test_nothing_is_set_to_run_as_its_owner(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    folder.mkdir()
    with tarfile.open(archive, "w") as tar:
        for name, mode in (("suid", 0o6777), ("sticky", 0o1777), ("none", 0), ("exec", 0o755)):
            info = tarfile.TarInfo(name)
            info.mode, info.uid = mode, 4711
            tar.addfile(info)
    Unpacking(ArchiveBounds(size=MIB)).unpack(archive, folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"suid": 0o755, "sticky": 0o755, "none": 0o600, "exec": 0o755}
    assert {path.stat().st_uid for path in folder.iterdir()} == {os.geteuid()}


@pytest.mark.control(
    "At 0e393ec extractall went on for 300 MiB, and the server's memory was the only bound."
)
def test_bomb_stops_at_its_bound(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "out"
    folder.mkdir()
    archive.write_bytes(bomb(300 * MIB))
    with pytest.raises(BadArchive, match=r"^it holds more than 67108864 bytes$"):
        Unpacking(ArchiveBounds(size=64 * MIB)).unpack(archive, folder)
    assert used(folder) <= 64 * MIB


@pytest.mark.control("At 0e393ec all of them were made: there was no bound of entries.")
def test_entries_stop_at_their_bound(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    folder.mkdir()
    with archive.open("wb") as file:
        for number in range(1500):  # each makes two folders on its way
            file.write(header(b"a%d/b/c" % number, b"0", 0))
    with pytest.raises(BadArchive, match=r"^it holds more than 1000 files and folders$"):
        Unpacking(ArchiveBounds(size=64 * MIB, entries=1000)).unpack(archive, folder)
    assert sum(1 for _ in folder.rglob("*")) == 1000


@pytest.mark.control("At 0e393ec a disk with that little left was filled to its last byte.")
def test_disk_keeps_what_others_need(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "out"
    folder.mkdir()
    archive.write_bytes(bomb(MIB))
    disk = os.statvfs(folder)
    more_than_there_is = disk.f_blocks * disk.f_frsize
    with pytest.raises(BadArchive, match=r"^there is no space left on the disk$"):
        Unpacking(ArchiveBounds(size=64 * MIB, free=more_than_there_is)).unpack(archive, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.control("At 0e393ec this grew the server by the header's size; here by nothing.")
def test_endless_headers_grow_no_memory(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    folder.mkdir()
    with archive.open("wb") as file:
        file.write(header(b"x", b"x", 8 << 30))
        file.truncate(9 << 30)  # a hole: it costs no disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadArchive, match=r"^a header of more than 65536 bytes$"):
        Unpacking(ArchiveBounds(size=64 << 30)).unpack(archive, folder)
    assert look_through(archive).requirements is None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10  # KiB


@pytest.mark.control("At 0e393ec the archive that a script comes in was parsed with no such bound.")
def test_looking_for_imports_ends_soon(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    endless = [bomb(80 * MIB), gzip_members(200_000), pax_of_digits()]
    for data in endless:
        archive.write_bytes(data)
        started = time.thread_time()
        assert look_through(archive, {"torch"}).imported == set()
        assert time.thread_time() - started < 5


@pytest.mark.control("At 0e393ec unpacking went on for 3 GiB after DeleteEndpoint.")
def test_deleted_endpoints_archive_is_not_unpacked_further(attacker: Attacker) -> None:
    name = attacker.model(bomb(3 << 30))
    partial = wait_for(lambda: [path for path in attacker.models() if used(path) > 8 * MIB])
    child = [p for p in psutil.Process().children() if "archives.walk" in " ".join(p.cmdline())]
    assert len(partial) == len(child) == 1
    started = time.monotonic()
    attacker.delete(name)
    assert time.monotonic() - started < 10
    assert not child[0].is_running() and attacker.models() == []


@pytest.mark.control("At 0e393ec the keys of the prefix were joined to the folder as they are.")
def test_prefix_with_keys_that_lead_out(attacker: Attacker, canary: Path) -> None:
    attacker.put("tree/name", b"innocent")
    attacker.put(f"tree/../../../../../../../../../../../../..{canary}", b"got out")
    source = {"S3Uri": "s3://evil/tree/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    outcome = attacker.outcome(attacker.deploy({"ModelDataSource": {"S3DataSource": source}}))
    assert not canary.exists()
    assert "is not a path below a folder" in outcome


@pytest.mark.control(
    "At 0e393ec the code's archive was copied into `code` of the model's, through a link there."
)
def test_code_does_not_follow_the_models_link(attacker: Attacker, tmp_path: Path) -> None:
    model, code = tmp_path / "model.tar.gz", tmp_path / "code.tar.gz"
    (tmp_path / "inference.py").write_text("")
    with tarfile.open(model, "w:gz") as tar:
        link = tarfile.TarInfo("code")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
        info = tarfile.TarInfo("elsewhere")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    with tarfile.open(code, "w:gz") as tar:
        tar.add(tmp_path / "inference.py", "inference.py")
    submitted = attacker.put("code.tar.gz", code.read_bytes())
    uri = attacker.put("linked.tar.gz", model.read_bytes())
    variables = {"SAGEMAKER_SUBMIT_DIRECTORY": submitted}
    outcome = attacker.outcome(attacker.deploy({"ModelDataUrl": uri, "Environment": variables}))
    assert outcome.endswith("('code' leads through something that is not a folder)")


@pytest.mark.control("Two archives under one key: at 0e393ec too, the first was linked in time.")
def test_archive_replaced_while_it_is_unpacked(tmp_path: Path, secret: Path) -> None:
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "out"
    folder.mkdir()
    archive.write_bytes(bomb(200 * MIB))
    unpacking = Unpacking(ArchiveBounds(size=1 << 30))
    worker = threading.Thread(target=unpacking.unpack, args=(archive, folder))
    worker.start()
    wait_for(lambda: used(folder) > 0)
    (tmp_path / "b").write_bytes(made("dotdot", secret))
    os.rename(tmp_path / "b", archive)
    worker.join(60)
    assert (folder / "zeros").stat().st_size == 200 * MIB


def used(folder: Path) -> int:
    """Return the bytes of the files in a folder that may vanish meanwhile."""
    return sum(os.stat(os.path.join(where, name)).st_size for where, name in files(folder))


def files(folder: Path) -> Iterator[tuple[str, str]]:
    for where, _, names in os.walk(folder):
        yield from ((where, name) for name in names if os.path.exists(os.path.join(where, name)))


def gzip_members(count: int) -> bytes:
    """Return a gzip of very many parts that hold nothing."""
    empty = bytes.fromhex("1f8b08000000000000030300000000000000000000")[:20]
    return empty * count


def pax_of_digits() -> bytes:
    """Return a tar whose pax header makes a backtracking pattern take for ever (CVE-2024-6232)."""
    data = b"1" * 60_000
    return header(b"x", b"x", len(data)) + data + bytes(-len(data) % 512)
