"""The data check's warnings in a job's log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_pictures import leak, picture, slow
from training_client import BUCKET, Trainer, channel

from cloche.core.clock import SystemClock
from cloche.engine import Seen
from cloche.engine.local.probe import probe
from cloche.services.sagemaker.gangs import Gangs
from cloche.services.sagemaker.training.data_warnings import MOST_KEPT, DataWarnings
from cloche.services.sagemaker.training.picture_look import LOOK_S, PREFIX, PictureCheck, spec
from cloche.testing.engine_lab import Lab, wait_until
from cloche.testing.local_engine import local_lab
from cloche.testing.platform import Platform, start

SAID = "Cloche's data check: "
LEAK = "error: the same file is in train and test 1 time: train/a/1.jpg = test/a/1.jpg"


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture(scope="module")
def dogs(trainer: Trainer) -> str:
    """An image folder in S3 of which nothing is wrong."""
    for number, key in enumerate(
        f"dogs/{split}/{label}/{n}.jpg"
        for split in ("train", "test")
        for label in ("akita", "boxer")
        for n in range(2)
    ):
        trainer.put(key, picture(number))
    return f"s3://{BUCKET}/dogs"


def said(log: str) -> list[str]:
    return [line.partition(SAID)[2] for line in log.splitlines() if SAID in line]


def test_good_pictures_are_passed_over_in_silence(trainer: Trainer, dogs: str) -> None:
    log = trainer.completed("print('done')", InputDataConfig=[channel("training", dogs)])
    assert said(log) == []


def test_a_job_without_input_is_not_looked_at(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    request = trainer.request("print('done')")
    del request["InputDataConfig"]
    trainer.sagemaker.create_training_job(**request)
    assert trainer.ended(request["TrainingJobName"])["TrainingJobStatus"] == "Completed"
    assert [one.message for one in caplog.records if "data check" in one.message] == []


def test_training_on_the_test_folder_is_noticed(trainer: Trainer, dogs: str) -> None:
    channels = [channel("train", f"{dogs}/test"), channel("test", f"{dogs}/test")]
    log = trainer.completed("print('done')", InputDataConfig=channels)
    assert said(log) == [
        f"error: channel train is {dogs}/test, a folder for testing",
        "error: the same file is in train and test 4 times: train/akita/0.jpg = test/akita/0.jpg; "
        "train/akita/1.jpg = test/akita/1.jpg; train/boxer/0.jpg = test/boxer/0.jpg and 1 more",
    ]


def test_a_leak_inside_one_channel_is_told_to_every_job_and_looked_for_once(
    trainer: Trainer, dogs: str, platform: Platform
) -> None:
    trainer.put("leak/train/akita/1.jpg", picture(1))
    trainer.put("leak/test/akita/2.jpg", picture(1))
    inputs = [channel("training", f"s3://{BUCKET}/leak")]
    expected = [
        "error: the same file is in train and test 1 time: "
        "training/train/akita/1.jpg = training/test/akita/2.jpg"
    ]
    kept: Path = platform.home.data_checks
    assert said(trainer.completed("print('one')", InputDataConfig=inputs)) == expected
    files = sorted(kept.iterdir())
    assert said(trainer.completed("print('two')", InputDataConfig=inputs)) == expected
    assert sorted(kept.iterdir()) == files


# ---------------------------------------------------------------- looks that go on


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with local_lab(tmp_path, probe()) as lab:
        yield lab


def told(lab: Lab) -> Gangs:
    """Return what hears of the ends of the engine's gangs, as the platform wires it."""
    events, gangs = asyncio.get_running_loop(), Gangs()
    lab.engine.on_ended(lambda gang: events.call_soon_threadsafe(gangs.ended, gang))
    return gangs


@dataclass
class Checked:
    """A job whose pictures take long, and its server's part that looks at them."""

    lab: Lab
    log: Path

    def __post_init__(self) -> None:
        self.folder, self.kept = self.lab.folder / "channels", self.lab.folder / "kept"
        slow(self.folder)
        self.log.touch()
        self.gangs = told(self.lab)
        self.warnings = self.start()

    def start(self) -> DataWarnings:
        return DataWarnings(self.kept, self.lab.engine, self.gangs, SystemClock())

    async def begin(self) -> asyncio.Task[None]:
        """Return the check of the job, at work."""
        task = asyncio.create_task(self.warnings.warn([], self.folder, self.log))
        await self.until(lambda: self.runs() and self.lab.engine.adopt() != ())
        return task

    def runs(self) -> bool:
        seen = [self.lab.engine.see(gang) or {} for gang in self.lab.engine.adopt()]
        return any(each.state == "running" for gang in seen for each in gang.values())

    async def until(self, condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition)

    def nothing_left(self) -> bool:
        left = list(self.kept.iterdir()) if self.kept.exists() else []
        return self.lab.engine.adopt() == () and left == [] and self.log.read_text() == ""


async def test_a_job_that_ended_ends_its_look(lab: Lab, tmp_path: Path) -> None:
    checked = Checked(lab, tmp_path / "log")
    task = await checked.begin()
    task.cancel()
    await checked.until(checked.nothing_left)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert checked.warnings.turns == {} and checked.warnings.looks == set()
    await checked.warnings.close()


async def test_a_server_that_goes_down_ends_its_looks(lab: Lab, tmp_path: Path) -> None:
    checked = Checked(lab, tmp_path / "log")
    task = await checked.begin()
    await checked.warnings.close()
    assert checked.nothing_left()
    await task
    await checked.warnings.warn([], checked.folder, checked.log)
    assert checked.nothing_left()


async def test_looks_of_a_killed_server_are_ended_at_the_next_start(
    lab: Lab, tmp_path: Path
) -> None:
    checked = Checked(lab, tmp_path / "log")
    look = PictureCheck(lab.engine, checked.folder)
    lab.place(spec(look))  # whose server is gone
    checked.kept.mkdir(exist_ok=True)
    for number in range(MOST_KEPT + 1):
        (checked.kept / f"{number}.json").write_text("[]")
    (checked.kept / ".cut off.json.12ab.new").write_text("[")
    os.utime(checked.kept / "7.json", (0, 0))
    again = checked.start()
    await checked.until(lambda: lab.engine.adopt() == ())
    await again.close()
    assert {each.name for each in checked.kept.iterdir()} == {
        f"{number}.json" for number in range(MOST_KEPT + 1) if number != 7
    }
    await checked.warnings.close()


async def test_jobs_of_one_content_share_a_look(lab: Lab, tmp_path: Path) -> None:
    leak(tmp_path / "channels")
    logs = [tmp_path / f"log-{number}" for number in range(3)]
    warnings = DataWarnings(tmp_path / "kept", lab.engine, told(lab), SystemClock())
    for log in logs:
        log.touch()
    await asyncio.gather(*(warnings.warn([], tmp_path / "channels", log) for log in logs))
    assert [said(log.read_text()) for log in logs] == [[LEAK]] * 3
    assert len(list((tmp_path / "kept").iterdir())) == 1 and warnings.turns == {}
    await warnings.close()


async def test_a_look_is_told_of_its_end_and_asks_for_it_a_few_times_only(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak(tmp_path / "channels")
    (tmp_path / "log").touch()
    looked, see = list[str](), lab.engine.see

    def counted(gang: str) -> Mapping[str, Seen] | None:
        looked.append(gang)
        return see(gang)

    warnings = DataWarnings(tmp_path / "kept", lab.engine, told(lab), SystemClock())
    monkeypatch.setattr(lab.engine, "see", counted)
    async with asyncio.timeout(LOOK_S / 2):
        await warnings.warn([], tmp_path / "channels", tmp_path / "log")
    assert said((tmp_path / "log").read_text()) == [LEAK]
    mine = [gang for gang in looked if gang.startswith(PREFIX)]
    assert 2 <= len(mine) <= 6  # as it begins, when it has ended, and as it is forgotten
    assert warnings.gangs.expected == {}
    await warnings.close()


def test_the_gang_takes_nothing_from_jobs(lab: Lab, tmp_path: Path) -> None:
    gang = spec(PictureCheck(lab.engine, tmp_path))
    assert (gang.egress, gang.background, gang.counted) == (False, True, False)
    (process,) = gang.processes
    assert {mount.mode for mount in process.mounts} == {"ro"}
    assert not any(Path.home().is_relative_to(mount.source.place) for mount in process.mounts)


def test_a_platform_that_goes_down_leaves_the_job_and_not_the_look(tmp_path: Path) -> None:
    slow(tmp_path / "pictures")
    with start(tmp_path / "home") as platform:
        trainer, engine = Trainer(platform), platform.app.engine
        for path in (tmp_path / "pictures").rglob("*.png"):
            trainer.put(f"slow/train/{path.name}", path.read_bytes())
        inputs = [channel("training", f"s3://{BUCKET}/slow")]
        trainer.start("import time; time.sleep(99)", InputDataConfig=inputs)
        wait_until(lambda: any(gang.startswith(PREFIX) for gang in engine.adopt()))
        platform.stop(end_gangs=False)
        try:
            (job,) = engine.adopt()
            assert job.startswith("job-1-")
            assert [each.state for each in (engine.see(job) or {}).values()] == ["running"]
        finally:
            for gang in engine.adopt():
                engine.stop(gang)
