"""Folders that a job writes and the server reads, sends, packs, gives away and removes."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_client import BUCKET, Trainer, wait_for

from cloche.core import beneath
from cloche.engine.local.engine import LocalEngine
from cloche.testing.platform import Platform

SECRET = "SECRET-of-another-user"
TREE = """
import os, sys
def nest(folder, names):
    os.makedirs(folder, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open('last', os.O_CREAT | os.O_WRONLY, dir_fd=here))
"""
ODD = """
import os
ml = '/opt/ml/'
for folder in ('/tmp', '/root', ml + 'model', ml + 'checkpoints', ml + 'input/data/training'):
    for name in (b'new\\nline', b'\\xff\\xfe', b'-rf', b'*', b'a' * 255):
        path = os.path.join(folder.encode(), name)
        os.mkdir(path)
        open(os.path.join(path, name), 'w').close()
        os.symlink('/', os.path.join(path, b'link'))
        os.mkfifo(os.path.join(path, b'fifo'))
        os.chmod(os.path.join(path, name), 0)
        os.chmod(path, 0)
"""
# Exchanges two names as fast as it can, for as long as the job runs.
SWAP = """
import ctypes, os, time
libc = ctypes.CDLL(None)
def swap(one, other, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(1000):
            libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
"""


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture(autouse=True)
def nothing_is_left(platform: Platform, trainer: Trainer) -> Iterator[None]:
    """After each attempt the server answers, and the job's folders are gone."""
    yield
    assert trainer.s3.list_buckets()["Buckets"]
    wait_for(lambda: not list(platform.home.instances.glob("*")))
    wait_for(lambda: not list(platform.home.runs.glob(".gone-*")))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder outside every sandbox, which only the server may read."""
    folder = tmp_path / "outside"
    (folder / "tensors").mkdir(parents=True, mode=0o700)
    for name in ("key", "data", "tensors/key"):
        (folder / name).write_text(SECRET)
        (folder / name).chmod(0o600)
    return folder


def stored(trainer: Trainer) -> Iterator[bytes]:
    """Yield every object of the bucket, archives unpacked."""
    pages = trainer.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    for page in pages:
        for item in page.get("Contents", ()):
            data = trainer.get(item["Key"])
            yield data
            if item["Key"].endswith(".tar.gz"):
                with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                    for member in tar:
                        file = tar.extractfile(member) if member.isreg() else None
                        yield file.read() if file else b""


def kept_out(trainer: Trainer, job: dict[str, Any]) -> None:
    """Assert that the secret is in no answer, log or object."""
    assert SECRET not in str(job)
    assert SECRET not in trainer.log(job["TrainingJobName"])
    assert not any(SECRET.encode() in data for data in stored(trainer))


def model(trainer: Trainer, job: dict[str, Any]) -> list[str]:
    data = trainer.get(f"out/{job['TrainingJobName']}/output/model.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def checkpoints(trainer: Trainer) -> dict[str, Any]:
    uri = f"s3://{BUCKET}/checkpoints{trainer.number}/"
    return {"CheckpointConfig": {"S3Uri": uri}}


# ------------------------------------------------------------------ depth, length, names, modes


@pytest.mark.control("At 0e393ec the job never ended and the next start died of RecursionError.")
@pytest.mark.parametrize("names", ["['d'] * 1200", "['x' * 200] * 30", "['y' * 250] * 1000"])
@pytest.mark.parametrize("folder", ["/tmp/t", "/root/t", "/opt/ml/input/data/training/t"])
def test_a_deep_tree_in_private_folders(trainer: Trainer, names: str, folder: str) -> None:
    job = trainer.train(f"{TREE}\nnest({folder!r}, {names})")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")


@pytest.mark.control("At 0e393ec the job stayed Uploading, with RecursionErrors in the log.")
def test_a_deep_tree_in_the_model(trainer: Trainer) -> None:
    job = trainer.train(f"{TREE}\nnest('/opt/ml/model', ['d'] * 1200)")
    assert job["TrainingJobStatus"] == "Completed"
    assert "d/" * 1200 + "last" in model(trainer, job)


@pytest.mark.control("At 0e393ec the job stayed Uploading, or completed without these files.")
def test_a_model_whose_paths_nobody_can_unpack(trainer: Trainer) -> None:
    job = trainer.train(f"{TREE}\nnest('/opt/ml/model', ['x' * 200] * 30)")
    assert job["FailureReason"] == (
        "ClientError: Artifact upload failed:ArtifactTooLarge: a path has more than 4,095 bytes: "
        f"{'x' * 80}…"
    )


@pytest.mark.control("At 0e393ec the job stayed Uploading, with RecursionErrors in the log.")
@pytest.mark.parametrize("names", ["['d'] * 1200", "['x' * 200] * 30"])
def test_a_deep_tree_in_the_checkpoints(trainer: Trainer, names: str) -> None:
    script = f"{TREE}\nnest('/opt/ml/checkpoints', {names})"
    job = trainer.train(script, **checkpoints(trainer))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")


@pytest.mark.control("At 0e393ec LocalEngine(root) raised RecursionError: no start ever again.")
def test_a_deep_tree_that_a_killed_server_left_stops_no_start(tmp_path: Path) -> None:
    for name in (".gone-x", "gang"):
        here = os.open(tmp_path, os.O_RDONLY)
        for part in (name, *["d"] * 1200):
            os.mkdir(part, dir_fd=here)
            inner = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
    os.utime(tmp_path / ".gone-x", (0, 0))
    LocalEngine(tmp_path)
    wait_for(lambda: not list(tmp_path.iterdir()))


@pytest.mark.control(
    "Held at 0e393ec, but for FIFOs; `test_without_descriptors` shows what a FIFO does."
)
def test_odd_names_modes_links_and_fifos_everywhere(trainer: Trainer) -> None:
    job = trainer.train(ODD, **checkpoints(trainer))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    names = model(trainer, job)
    assert "new\nline/link" in names and "\udcff\udcfe/\udcff\udcfe" in names
    assert not any(name.endswith("fifo") for name in names)


# ------------------------------------------------------------------ links, FIFOs, sockets


@pytest.mark.control(
    "Held at 0e393ec (replicas' did not); `test_without_descriptors` shows what it leads to."
)
def test_the_failure_file_is_a_link(trainer: Trainer, secret: Path) -> None:
    job = trainer.train(f"""
import os, sys
os.symlink({str(secret / "key")!r}, '/opt/ml/output/failure')
sys.exit(1)""")
    assert job["FailureReason"].startswith("AlgorithmError: ")
    kept_out(trainer, job)


@pytest.mark.control(
    "Held at 0e393ec while nothing raced; `test_without_descriptors` shows what it leads to."
)
def test_the_folder_of_the_failure_file_is_a_link(trainer: Trainer, secret: Path) -> None:
    (secret / "failure").write_text(SECRET)
    job = trainer.train(f"""
import os, shutil, sys
shutil.rmtree('/opt/ml/output')
os.symlink({str(secret)!r}, '/opt/ml/output')
sys.exit(1)""")
    kept_out(trainer, job)


@pytest.mark.control(
    "Held at 0e393ec (replicas' froze the server); `test_without_descriptors` shows it."
)
@pytest.mark.parametrize("kind", ["os.mkfifo(p)", "socket.socket(socket.AF_UNIX).bind(p)"])
def test_the_failure_file_is_a_fifo_or_a_socket(trainer: Trainer, kind: str) -> None:
    job = trainer.train(
        f"import os, socket, sys; p = '/opt/ml/output/failure'; {kind}; sys.exit(1)"
    )
    assert job["FailureReason"].startswith("AlgorithmError: ")


@pytest.mark.control(
    "Held at 0e393ec while nothing raced; `test_without_descriptors` shows what it leads to."
)
@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
@pytest.mark.parametrize("name", ["model", "output/data", "output"])
def test_an_artifact_folder_is_a_link(
    trainer: Trainer, secret: Path, compression: str, name: str
) -> None:
    output = {"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": compression}
    job = trainer.train(
        f"""
import os, shutil
shutil.rmtree('/opt/ml/{name}')
os.symlink({str(secret)!r}, '/opt/ml/{name}')""",
        OutputDataConfig=output,
    )
    kept_out(trainer, job)


@pytest.mark.control("At 0e393ec files in a folder that was a link two levels up were sent to S3.")
@pytest.mark.parametrize("config", ["DebugHookConfig", "TensorBoardOutputConfig"])
def test_the_folder_above_the_tensors_is_a_link(
    trainer: Trainer, secret: Path, config: str
) -> None:
    (secret / "tensorboard").symlink_to("tensors")
    shutil.copytree(secret / "tensors", secret / "real")
    (secret / "tensorboard").unlink()
    (secret / "real").rename(secret / "tensorboard")
    job = trainer.train(
        f"""
import os, shutil, time
shutil.rmtree('/opt/ml/output')
os.symlink({str(secret)!r}, '/opt/ml/output')
time.sleep(7)""",
        **{config: {"S3OutputPath": f"s3://{BUCKET}/tensors"}},
    )
    kept_out(trainer, job)


@pytest.mark.control(
    "Held at 0e393ec; by its path the file is read: `test_without_descriptors_a_race_is_lost`."
)
def test_the_checkpoints_folder_and_a_link_change_places(trainer: Trainer, secret: Path) -> None:
    job = trainer.train(
        f"""{SWAP}
os.symlink({str(secret)!r}, '/opt/ml/other')
open('/opt/ml/checkpoints/key', 'w').write('mine')
swap('/opt/ml/checkpoints', '/opt/ml/other', 8)""",
        **checkpoints(trainer),
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    kept_out(trainer, job)


@pytest.mark.control(
    "Held at 0e393ec; by its path the file is read: `test_without_descriptors_a_race_is_lost`."
)
def test_a_checkpoint_a_folder_and_links_change_places(trainer: Trainer, secret: Path) -> None:
    job = trainer.train(
        f"""{SWAP}
import threading
os.makedirs('/opt/ml/checkpoints/sub')
for name in ('key', 'sub/key'):
    open('/opt/ml/checkpoints/' + name, 'w').write('mine')
os.symlink({str(secret)!r}, '/opt/ml/checkpoints/link')
os.symlink({str(secret / "key")!r}, '/opt/ml/checkpoints/file')
pairs = (('sub', 'link'), ('key', 'file'))
threads = [
    threading.Thread(target=swap, args=[f'/opt/ml/checkpoints/{{each}}' for each in pair] + [8])
    for pair in pairs
]
[each.start() for each in threads]
[each.join() for each in threads]""",
        **checkpoints(trainer),
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    kept_out(trainer, job)


@pytest.mark.control(
    "At 0e393ec the second job never started: RecursionError in the folder's removal and chown."
)
def test_links_in_a_warm_pool_that_the_next_job_gets(
    trainer: Trainer, secret: Path, platform: Platform
) -> None:
    """The next job's start gives the folder to the sandbox's user."""
    cache = "/opt/ml/sagemaker/warmpoolcache"
    resources = {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "VolumeSizeInGB": 1,
        "KeepAlivePeriodInSeconds": 60,
    }
    first = trainer.train(
        f"""{TREE}
os.symlink({str(secret / "key")!r}, '{cache}/key')
os.symlink({str(secret)!r}, '{cache}/folder')
nest('{cache}/deep', ['d'] * 1200)""",
        ResourceConfig=resources,
    )
    before = {path: path.stat() for path in secret.rglob("*")}
    second = trainer.train(
        f"import os; print('kept', sorted(os.listdir('{cache}')))", ResourceConfig=resources
    )
    assert "kept ['deep', 'folder', 'key']" in trainer.log(second["TrainingJobName"])
    for path, status in before.items():
        assert (path.stat().st_uid, path.stat().st_mode) == (status.st_uid, status.st_mode)
    for job in (first, second):
        kept_out(trainer, job)
    trainer.sagemaker.update_training_job(
        TrainingJobName=second["TrainingJobName"], ResourceConfig={"KeepAlivePeriodInSeconds": 0}
    )
    wait_for(lambda: not list(platform.home.warm_pools.iterdir()))


@pytest.mark.control("Held at 0e393ec; `test_without_an_overlay` shows what a hard link does.")
def test_hard_links_to_the_input_change_no_object(trainer: Trainer, platform: Platform) -> None:
    trainer.put("linked/object", "as it was put")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/linked/"}
    job = trainer.train(
        """
import os
data = '/opt/ml/input/data/training/'
for target in ('/opt/ml/model/x', '/tmp/x', '/opt/ml/checkpoints/x', data + 'second'):
    try:
        os.link(data + 'object', target)
        os.chmod(target, 0o777)
        open(target, 'a').write('HACKED')
    except OSError as error:
        print(target, error)
open(data + 'object', 'a').write('HACKED')
os.chown(data + 'object', 33, 33)""",
        InputDataConfig=[{"ChannelName": "training", "DataSource": {"S3DataSource": source}}],
        **checkpoints(trainer),
    )
    assert job["TrainingJobStatus"] == "Completed"
    assert trainer.get("linked/object") == b"as it was put"
    for blob in (path for path in platform.home.blobs.glob("??/*")):
        assert (blob.stat().st_uid, blob.stat().st_mode & 0o777) == (os.getuid(), 0o444)


# ------------------------------------------------------------------ sizes and numbers


@pytest.mark.control("At 0e393ec a terabyte of zeros was packed, or copied to the disk, for hours.")
@pytest.mark.parametrize("where", ["model", "checkpoints", "single"])
def test_a_sparse_file_of_a_terabyte(trainer: Trainer, platform: Platform, where: str) -> None:
    folder = "checkpoints" if where == "checkpoints" else "model"
    free, spent = shutil.disk_usage(platform.home.path).free, cpu_s()
    output = {"S3OutputPath": f"s3://{BUCKET}/out"}
    job = trainer.train(
        f"open('/opt/ml/{folder}/sparse', 'w').truncate(1 << 40)",
        OutputDataConfig=output | ({"CompressionType": "NONE"} if where == "single" else {}),
        **checkpoints(trainer),
    )
    assert job["FailureReason"] == (
        "ClientError: Artifact upload failed:InsufficientDiskSpace: Insufficient disk space"
    )
    assert cpu_s() - spent < 10
    assert shutil.disk_usage(platform.home.path).free > free - (8 << 30)


def cpu_s() -> float:
    """Return the CPU time of this process, which is the server's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest.mark.control("At 0e393ec every file was packed: 60,000 took 275 s, more took longer.")
def test_more_files_than_are_taken(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = beneath.WalkBounds(entries=2000, path_bytes=1 << 20)
    monkeypatch.setattr("cloche.services.sagemaker.training.output_archive.BOUNDS", bounds)
    monkeypatch.setattr("cloche.services.sagemaker.training.checkpoints.BOUNDS", bounds)
    for folder, text in (
        ("model", "there are too many files: at most 2,000 files are taken"),
        ("checkpoints", "/opt/ml/checkpoints: there are too many files"),
    ):
        script = f"for n in range(2001): open(f'/opt/ml/{folder}/{{n}}', 'w').close()"
        job = trainer.train(script, **checkpoints(trainer))
        assert job["FailureReason"] == (
            f"ClientError: Artifact upload failed:ArtifactTooLarge: {text}"
        )


@pytest.mark.control("At 0e393ec packing 60,000 files took 275 s of the server's time.")
def test_many_files_cost_little(trainer: Trainer) -> None:
    spent = cpu_s()
    job = trainer.train("for n in range(6_000): open(f'/opt/ml/model/{n}', 'w').close()")
    assert job["TrainingJobStatus"] == "Completed" and len(model(trainer, job)) == 6_000
    assert cpu_s() - spent < 10


# ------------------------------------------------------------------ keys of S3 that are no paths


@pytest.mark.control(
    "At 0e393ec the job was Downloading for ever (ValueError: embedded null byte)."
)
@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("key", ["a\0b", "../../up", "x" * 300, "./a", "a/../b"])
def test_keys_that_are_no_paths(trainer: Trainer, key: str, restored: bool) -> None:
    prefix = f"odd{trainer.number}/"
    trainer.put(prefix + key, "x")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}
    changes: dict[str, Any] = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/{prefix}"}}
    if not restored:
        channel = {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
        changes = {"InputDataConfig": [channel]}
    job = trainer.train("", **changes)
    assert job["FailureReason"].startswith("ClientError: Data download failed:")
    trainer.s3.delete_object(Bucket=BUCKET, Key=prefix + key)


def test_without_descriptors(secret: Path, tmp_path: Path) -> None:
    """The control: what the attacks plant leads there when it is opened by its path."""
    ml = tmp_path / "ml"
    ml.mkdir()
    (ml / "output").symlink_to(secret)
    assert (ml / "output/tensors/key").read_text() == SECRET
    assert beneath.read(ml, "output/tensors/key", 100) is None
    assert [path.name for path in sorted((ml / "output").iterdir())] == ["data", "key", "tensors"]
    with beneath.folder(ml) as root:
        assert [entry.path for entry in beneath.walk(root)] == ["output"]
    os.mkfifo(ml / "failure")
    reader = subprocess.Popen([sys.executable, "-c", "open('failure').read()"], cwd=ml)
    with pytest.raises(subprocess.TimeoutExpired):
        reader.wait(0.5)
    reader.kill()
    reader.wait()
    assert beneath.read(ml, "failure", 100) is None


def test_without_descriptors_a_race_is_lost(secret: Path, tmp_path: Path) -> None:
    """The control: a check by path, and then an open by path, read what is outside."""
    root = tmp_path / "root"
    (root / "mine").mkdir(parents=True)
    (root / "mine/key").write_text("mine")
    (root / "link").symlink_to(secret)
    script = f"{SWAP}\nswap('mine', 'link', 60)"
    swapping = subprocess.Popen([sys.executable, "-c", script], cwd=root)
    read, safe = set[str](), set[bytes | None]()
    try:
        until = time.monotonic() + 30
        while SECRET not in read and time.monotonic() < until:
            if not (root / "mine").is_symlink():
                read.add((root / "mine/key").read_text())
            safe.add(beneath.read(root, "mine/key", 100))
    finally:
        swapping.kill()
        swapping.wait()
    assert SECRET in read and safe <= {b"mine", None}


def test_without_an_overlay(tmp_path: Path) -> None:
    """The control: what is written to a hard link is written to the object."""
    (tmp_path / "object").write_text("as it was put")
    os.link(tmp_path / "object", tmp_path / "x")
    with (tmp_path / "x").open("a") as file:
        file.write("HACKED")
    assert (tmp_path / "object").read_text() == "as it was putHACKED"
