"""Checkpoints: restored before a job, sent while it runs and when it has ended."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer, wait_for
from training_world import World

from cloche.core import beneath
from cloche.services.sagemaker.training import checkpoints
from cloche.services.sagemaker.training.status import SecondaryStatus as S
from cloche.testing.platform import Platform

CONFIG = {"CheckpointConfig": {"S3Uri": "s3://bucket/check/"}}
FOLDER = "/opt/ml/checkpoints"


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket(check__old="old", check__deep__one="1", checkmate="no")
    yield made
    made.close()


def counted(world: World) -> list[str]:
    """Return the keys that are put from now on."""
    real, put = world.s3.put_file, list[str]()

    async def put_file(bucket: str, key: str, *more: Any) -> Any:
        put.append(key)
        return await real(bucket, key, *more)

    world.s3.put_file = put_file  # type: ignore[method-assign]
    return put


async def test_restored_then_only_what_is_new_is_sent(world: World) -> None:
    await world.create(**CONFIG)
    await world.until(S.TRAINING)
    folder = world.path(FOLDER)
    assert (folder / "old").read_text() == "old" and (folder / "deep/one").read_text() == "1"
    assert not (folder / "mate").exists()
    stored = world.s3.find("bucket", "check/old")
    assert stored is not None and not os.path.samefile(stored.path, folder / "old")
    put = counted(world)
    (folder / "new").write_text("1")
    (folder / "deep/one").write_text("2!")
    os.symlink("/etc/passwd", folder / "link")
    os.symlink("/etc", folder / "etc")
    (folder / "old").unlink()
    for _ in range(6):
        await world.step()
    assert sorted(put) == ["check/deep/one", "check/new"]
    assert world.read("check/deep/one") == b"2!"
    assert world.keys("check/") == ["check/deep/one", "check/new", "check/old"]
    (folder / "last").write_text("at the end")
    world.engine.end(1)
    await world.until(S.FAILED)
    assert put[2:] == ["check/last"]


async def test_a_file_that_still_changes_waits(world: World) -> None:
    await world.create(**CONFIG)
    await world.until(S.TRAINING)
    put, file = counted(world), world.path(FOLDER) / "growing"
    for number in range(8):
        file.write_text("x" * (number + 1))
        await world.step()
    assert put == []
    for _ in range(5):
        await world.step()
    assert put == ["check/growing"]


async def test_killed_between_put_and_note_repeats_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create(**CONFIG)
    await world.until(S.TRAINING)
    put = counted(world)
    (world.path(FOLDER) / "new").write_text("1")

    class Killed(BaseException):
        pass

    def write_known(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "write_known", write_known)
        with pytest.raises(Killed):
            for _ in range(8):
                await world.step()
    assert put == ["check/new"]
    for _ in range(6):
        await world.step(restart=True)
        await world.step()
    world.engine.end()
    await world.until(S.COMPLETED, restart=True)
    assert put == ["check/new"]


async def test_what_came_while_the_job_waited_is_there(world: World) -> None:
    world.engine.full = "no room"
    await world.create(**CONFIG)
    await world.until(S.PENDING)
    await world.s3.put_bytes("bucket", "check/late", b"by another job")
    world.engine.full = None
    await world.until(S.TRAINING)
    assert (world.path(FOLDER) / "late").read_text() == "by another job"


async def test_every_host_has_all_and_sends_its_own(world: World) -> None:
    resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2}
    await world.create(ResourceConfig=resources, **CONFIG)
    await world.until(S.TRAINING)
    for host in ("algo-1", "algo-2"):
        assert (world.path(FOLDER, host) / "old").read_text() == "old"
        (world.path(FOLDER, host) / host).write_text(host)
    put = counted(world)
    world.engine.end(host="algo-1")
    world.engine.end(host="algo-2")
    await world.until(S.COMPLETED)
    assert sorted(put) == ["check/algo-1", "check/algo-2"]


async def test_a_lost_machine_loses_no_checkpoint(world: World) -> None:
    await world.create(**CONFIG)
    await world.until(S.TRAINING)
    (world.path(FOLDER) / "new").write_text("1")
    world.engine.states.clear()
    await world.until(S.FAILED)
    assert world.read("check/new") == b"1"


async def test_a_bucket_that_is_gone_fails_the_job(world: World) -> None:
    await world.create(CheckpointConfig={"S3Uri": "s3://nowhere/x"})
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        "ClientError: Data download failed:NoSuchBucket: "
        "The specified bucket does not exist: nowhere"
    )


def test_a_file_changed_while_it_is_copied_is_not_sent(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("abc")
    target = tmp_path / "copy"
    with beneath.folder(folder) as root:
        states = checkpoints.scan(root)
        assert checkpoints.copy_whole(root, "sub/file", states["sub/file"], target)
        (folder / "sub/file").write_text("abcd")
        assert checkpoints.copy_whole(root, "sub/file", states["sub/file"], target) is None
        (folder / "sub").rename(folder / "moved")
        os.symlink("moved", folder / "sub")
        assert checkpoints.copy_whole(root, "sub/file", (4, 0), target) is None


def test_names_that_are_no_keys_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("")
    os.mkfifo(tmp_path / "pipe")
    with beneath.folder(tmp_path) as root:
        assert list(checkpoints.scan(root)) == ["good"]


async def test_looks_are_seconds_apart(world: World) -> None:
    ml = world.config.home.instances / "g/algo-1/ml"
    (ml / "checkpoints").mkdir(parents=True)
    (ml / "checkpoints/a").write_text("a")
    sent, put = checkpoints.Checkpoints(), counted(world)
    start = datetime(2021, 1, 1)
    for second, expected in ((0, 0), (1, 0), (2, 1), (4, 1)):
        await sent.sync(
            world.s3_of_role,
            checkpoints.places(CONFIG, "job"),
            [ml],
            start + timedelta(seconds=second),
        )
        assert len(put) == expected


DEBUG = {"DebugHookConfig": {"S3OutputPath": "s3://bucket/debug"}}
BOARD = {"TensorBoardOutputConfig": {"S3OutputPath": "s3://bucket/board"}}


@pytest.mark.parametrize(
    ("config", "folder", "sent"),
    [
        # smdebug's: what is renamed when it is whole is not sent before, nor what names it.
        (DEBUG, "output/tensors", ["events/0.tfevents"]),
        (BOARD, "output/tensorboard", ["events/0.tfevents", "index/0.json"]),
        # A checkpoint may have any name; only AWS's own mark keeps it back.
        (CONFIG, "checkpoints", ["events/0.tfevents", "index/0.json", "index/1.json.tmp"]),
    ],
)
async def test_only_what_is_complete_is_sent(
    world: World, config: dict[str, Any], folder: str, sent: list[str]
) -> None:
    ml = world.config.home.instances / "g/algo-1/ml"
    root = ml / folder
    for name in ("events/0.tfevents", "index/0.json", "index/1.json.tmp", "a.sagemaker-ignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    places, syncs = checkpoints.places(config, "job"), checkpoints.Checkpoints()
    put, start = counted(world), datetime(2021, 1, 1)
    await syncs.sync(world.s3_of_role, places, [ml], start)
    (root / "events/1.tfevents").write_text("being written")
    await syncs.sync(world.s3_of_role, places, [ml], start + timedelta(seconds=2))
    prefix = places[0].prefix
    assert [key.removeprefix(prefix) for key in put] == sent
    (root / "index/1.json.tmp").rename(root / "index/1.json")
    put.clear()
    for second in (4, 6):  # it is seen, then seen again
        await syncs.sync(world.s3_of_role, places, [ml], start + timedelta(seconds=second))
    found = [key.removeprefix(prefix) for key in put]
    assert found[0] == "events/1.tfevents" and found[-1] == "index/1.json"
    (root / "index/2.json.tmp").write_text("")  # the script ended here
    (root / "last").write_text("")
    put.clear()
    await syncs.finish(world.s3_of_role, places, [ml])
    left = ["index/2.json.tmp", "last"] if config is CONFIG else ["last"]
    assert [key.removeprefix(prefix) for key in put] == left


RESUMES = """
import os, sys, time
folder = sys.argv[sys.argv.index('--folder') + 1]
step = os.path.join(folder, 'step')
done = int(open(step).read()) if os.path.exists(step) else 0
print('resumes at', done, flush=True)
open(step + '.tmp', 'w').write(str(done + 1))
os.replace(step + '.tmp', step)
while done == 0:
    time.sleep(0.1)
"""


@pytest.mark.parametrize("path", [None, "/root/kept/here"])
def test_synced_while_it_runs_and_restored_on_the_next_job(
    trainer: Trainer, path: str | None
) -> None:
    uri = f"s3://{BUCKET}/resumed{trainer.number}"
    config = {"S3Uri": uri} | ({"LocalPath": path} if path else {})
    changes = {"CheckpointConfig": config, "HyperParameters": {"folder": f'"{path or FOLDER}"'}}
    first = trainer.start(RESUMES, **changes)
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    wait_for(lambda: trainer.keys(f"{prefix}/") == [f"{prefix}/step"])
    assert trainer.describe(first)["TrainingJobStatus"] == "InProgress"
    assert trainer.describe(first)["CheckpointConfig"] == config
    trainer.sagemaker.stop_training_job(TrainingJobName=first)
    trainer.ended(first)
    assert "resumes at 1" in trainer.completed(RESUMES, **changes)
    assert trainer.get(f"{prefix}/step") == b"2"


@pytest.mark.parametrize("path", ["relative", "/", "/usr/share", "/opt/ml/model", "/proc"])
def test_a_path_that_can_not_be_is_refused(trainer: Trainer, path: str) -> None:
    config = {"S3Uri": f"s3://{BUCKET}/x", "LocalPath": path}
    with pytest.raises(ClientError, match=r"Invalid CheckpointConfig\.LocalPath"):
        trainer.start("", CheckpointConfig=config)


@pytest.mark.parametrize("path", [None, "/root/boards"])
def test_tensorboard_is_sent_and_not_restored(trainer: Trainer, path: str | None) -> None:
    config = {"S3OutputPath": f"s3://{BUCKET}/boards/"} | ({"LocalPath": path} if path else {})
    script = f"""
import os
folder = {path or "/opt/ml/output/tensorboard"!r}
assert os.listdir(folder) == [], os.listdir(folder)
os.mkdir(folder + '/run')
open(folder + '/run/events', 'w').write('x')
"""
    job = trainer.train(script, TensorBoardOutputConfig=config)
    name = job["TrainingJobName"]
    assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
    assert job["TensorBoardOutputConfig"] == config
    assert trainer.keys(f"boards/{name}/") == [f"boards/{name}/tensorboard-output/run/events"]


def test_tensors_are_sent_from_where_the_hook_is_told(trainer: Trainer) -> None:
    """What smdebug reads, and where what it writes goes (the SDK looks there)."""
    config = {
        "S3OutputPath": f"s3://{BUCKET}/tensors",
        "CollectionConfigurations": [{"CollectionName": "losses"}],
    }
    script = """
import json, os
told = json.load(open("/opt/ml/input/config/debughookconfig.json"))
os.makedirs(told["LocalPath"] + "/events", exist_ok=True)
json.dump(told, open(told["LocalPath"] + "/events/told", "w"))
"""
    for path in ("/opt/ml/output/tensors", "/root/tensors"):
        more = {} if path.startswith("/opt") else {"LocalPath": path}
        job = trainer.train(script, DebugHookConfig=config | more)
        name = job["TrainingJobName"]
        assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
        key = f"tensors/{name}/debug-output/events/told"
        assert trainer.keys(f"tensors/{name}/") == [key]
        assert json.loads(trainer.get(key)) == {**config, "LocalPath": path}


def test_two_folders_of_one_path_are_refused(trainer: Trainer) -> None:
    told = "CheckpointConfig and TensorBoardOutputConfig have the same LocalPath: /root/x"
    with pytest.raises(ClientError, match=told):
        trainer.start(
            "",
            CheckpointConfig={"S3Uri": f"s3://{BUCKET}/c", "LocalPath": "/root/x"},
            TensorBoardOutputConfig={"S3OutputPath": f"s3://{BUCKET}/t", "LocalPath": "/root/x/"},
        )


async def test_shared_by_jobs_at_once(world: World) -> None:
    """Trials of one search share the URI: each sends its own, later ones start with all."""
    for number in range(3):
        await world.create(f"job{number}", **CONFIG)
    for number in range(3):
        await world.until(S.TRAINING, f"job{number}")
    put = counted(world)
    for spec in world.engine.specs.values():
        mount = next(m for m in spec.processes[0].mounts if m.target == "/opt/ml")
        (Path(mount.source.place) / "checkpoints" / spec.name).write_text(spec.name)
    await asyncio.sleep(0)
    world.engine.end()
    for number in range(3):
        await world.until(S.COMPLETED, f"job{number}")
    assert len(put) == 3
    await world.create("later", **CONFIG)
    await world.until(S.TRAINING, "later")
    assert len(os.listdir(world.path(FOLDER))) == 3 + 2
