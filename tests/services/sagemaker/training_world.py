"""A training loop on real records, objects and logs, with an engine that tests drive by hand."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from recorder import Recorder

from cloche.core.clock import ManualClock, to_ms
from cloche.core.config import Config, Home
from cloche.core.typed import encode
from cloche.engine import (
    Capacity,
    EngineError,
    GangSpec,
    Input,
    InsufficientCapacity,
    Placed,
    Seen,
    Usage,
)
from cloche.outside import PublicBuckets, RealS3
from cloche.records.store import Store
from cloche.services.cloudwatch import Datum
from cloche.services.iam import Identity
from cloche.services.logs import Logs
from cloche.services.s3 import S3, ActingS3, Sources
from cloche.services.sagemaker import SageMaker
from cloche.services.sagemaker.training.loop import TrainingJobs
from cloche.services.sagemaker.training.record import TRAINING_JOB, TrainingJob, training_job
from cloche.services.sagemaker.training.status import SecondaryStatus, TrainingJobStatus
from cloche.services.sagemaker.training.submission import new_training_job
from cloche.testing.platform import NOWHERE

ACCOUNT, REGION = "123456789012", "us-east-1"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:1.8-cpu-py36"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"

METRIC = [{"Name": "loss", "Regex": "Loss: ([0-9.]+)"}, {"Name": "acc", "Regex": "Acc: (\\S+)"}]


class FakeEngine:
    """Gangs start at once and end when the test says so."""

    layered = True

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.specs: dict[str, GangSpec] = {}
        self.states: dict[str, dict[str, Seen]] = {}
        self.launched: list[str] = []
        self.stopped: list[str] = []
        self.forgotten: list[str] = []
        self.cleared: list[str] = []
        self.collected: list[tuple[str, Path]] = []
        self.full: str | None = None
        self.most = 1000  # gangs that there is room for
        self.broken: str | None = None
        self.program: Callable[[GangSpec], None] = lambda spec: None

    def stage(self, path: Path) -> Input:
        return Input(str(path))

    def collect(self, gang: str, path: Path, *, own: bool = False) -> None:
        self.collected.append((gang, path))

    def launch(self, gang: GangSpec) -> Placed | InsufficientCapacity:
        if self.broken:
            raise EngineError(self.broken)
        if gang.name in self.states:
            return Placed()
        if (refused := self.room(gang)) is not None:
            return refused
        for process in gang.processes:
            for mount in process.mounts:
                if mount.target.startswith("/opt/ml"):
                    assert Path(mount.source.place).is_dir(), mount
        self.specs[gang.name] = gang
        self.launched.append(gang.name)
        self.states[gang.name] = {
            p.name: Seen("running", started=self.clock.now()) for p in gang.processes
        }
        self.program(gang)
        return Placed()

    def room(self, gang: GangSpec, beside: Sequence[GangSpec] = ()) -> InsufficientCapacity | None:
        running = {name for name in self.states if self.runs(name)}
        taken = (running | {each.name for each in beside}) - {gang.name}
        if len(taken) >= self.most:
            return InsufficientCapacity(f"{gang.name} needs more", tuple(sorted(taken)))
        return InsufficientCapacity(self.full) if self.full else None

    def runs(self, gang: str) -> bool:
        return any(seen.state == "running" for seen in self.states[gang].values())

    def see(self, gang: str) -> Mapping[str, Seen] | None:
        return self.states.get(gang)

    def end(self, code: int = 0, reason: Any = None, host: str = "algo-1") -> None:
        for states in self.states.values():
            if host in states and states[host].state == "running":
                states[host] = Seen("exited", code, reason, None, self.clock.now())

    def lose(self) -> None:
        for states in self.states.values():
            states["algo-1"] = Seen("lost")

    def stop(self, gang: str) -> None:
        self.stopped.append(gang)
        states = self.states.get(gang, {})
        for host, seen in states.items():
            if seen.state == "running":
                states[host] = Seen("exited", -15, "Stopped", None, self.clock.now())

    def forget(self, gang: str) -> None:
        self.forgotten.append(gang)
        self.states.pop(gang, None)

    def clear(self, gang: str) -> None:
        self.cleared.append(gang)

    def adopt(self) -> tuple[str, ...]:
        return tuple(self.states)

    def doors(self, gang: str) -> None:
        return None

    def usage(self, gang: str) -> Mapping[str, Usage]:
        seconds = (self.clock.now() - self.clock.start).total_seconds()  # type: ignore[attr-defined]
        return {"algo-1": Usage(cpu_s=1.5 * seconds, memory_mib=1024)}

    def share(self, cpus: float) -> int:
        return 2

    def capacity(self) -> Capacity:
        return Capacity(2, 4096, 0, 0)


class FakeDoors:
    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.closed: list[str] = []

    async def open(self, gang: str, *, account: str, region: str, role_arn: str) -> None:
        assert (account, region, role_arn) == (ACCOUNT, REGION, ROLE)
        self.opened.add(gang)

    async def close(self, gang: str) -> None:
        self.closed.append(gang)


class FakeCloudWatch:
    def __init__(self) -> None:
        self.data: list[Datum] = []

    async def put(self, account: str, region: str, namespace: str, data: Sequence[Datum]) -> None:
        assert (account, region, namespace) == (ACCOUNT, REGION, "/aws/sagemaker/TrainingJobs")
        self.data += data


class Killed(BaseException):
    """The server went away."""


class World:
    """One platform's worth of a training loop."""

    def __init__(self, home: Path) -> None:
        self.clock = ManualClock()
        self.clock.start = self.clock.now()  # type: ignore[attr-defined]
        config = Config(home=Home(home), account=ACCOUNT)
        config.home.bundle.parent.mkdir(parents=True)
        config.home.bundle.write_text("")
        self.store = Store.open(config.home.database, self.clock)
        self.s3 = S3(self.store, config.home.blobs)
        self.authorizer = Recorder()
        self.engine, self.doors, self.cloudwatch = (
            FakeEngine(self.clock),
            FakeDoors(),
            FakeCloudWatch(),
        )
        self.sagemaker = SageMaker(
            store=self.store,
            engine=self.engine,  # type: ignore[arg-type]
            s3=self.s3,
            logs=Logs(self.store, config.home.logs),
            cloudwatch=self.cloudwatch,  # type: ignore[arg-type]
            identity=Identity(self.store, self.clock, self.authorizer),
            doors=self.doors,
            config=config,
            sources=Sources(self.s3, RealS3(NOWHERE), PublicBuckets()),
        )
        self.config = config
        self.loop = TrainingJobs(self.sagemaker)

    def close(self) -> None:
        self.s3.close()
        self.store.close()

    @property
    def s3_of_role(self) -> ActingS3:
        """The object store as the jobs see it."""
        return self.sagemaker.s3_as(ROLE)

    async def bucket(self, **objects: str) -> None:
        """Make the bucket, with a script and these objects (`__` stands for a slash)."""
        await self.s3.create_bucket("bucket", ACCOUNT, REGION)
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo("hpo.py"))
        await self.s3.put_bytes("bucket", "code/sourcedir.tar.gz", data.getvalue())
        for name, text in objects.items():
            await self.s3.put_bytes("bucket", name.replace("__", "/"), text.encode())

    async def create(self, name: str = "job", **changes: Any) -> None:
        """Record a job as CreateTrainingJob does after its checks."""
        request = {
            "HyperParameters": {
                "sagemaker_program": '"hpo.py"',
                "sagemaker_submit_directory": '"s3://bucket/code/sourcedir.tar.gz"',
                "epochs": "3",
            },
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "InputDataConfig": [],
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/out/"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "EnableNetworkIsolation": False,
        } | changes
        place = (ACCOUNT, REGION)
        resource = new_training_job(place, name, request, [], self.clock.now())
        await self.store.insert(resource)
        self.clock.advance(0.001)

    def job(self, name: str = "job") -> TrainingJob:
        resource = self.store.get(TRAINING_JOB, ACCOUNT, REGION, name)
        assert resource is not None
        return training_job(resource)

    def restart(self) -> None:
        """Forget what the loop remembers, as a new server would."""
        self.loop = TrainingJobs(self.sagemaker)

    async def step(self, *, restart: bool = False) -> None:
        """Let the loop make one step for each job."""
        if restart:
            self.restart()
        for resource in self.loop.load():
            await self.loop.step(resource)
        self.clock.time += timedelta(seconds=1)

    async def until(
        self, secondary: SecondaryStatus, name: str = "job", *, restart: bool = False
    ) -> TrainingJob:
        """Step until a job is there."""
        for _ in range(20):
            if self.job(name).secondary is secondary:
                return self.job(name)
            await self.step(restart=restart)
        raise AssertionError(f"{name} is {self.job(name).secondary}, and not {secondary}")

    def die_at(self, number: int, when: str) -> list[int]:
        """Die just before, or just after, the n-th write of a record (from 0).

        Returns the number of writes so far, in a list of one.
        """
        writes = [0]

        def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
            async def write(*args: Any, **kwargs: Any) -> Any:
                writes[0] += 1
                mine = writes[0]
                if mine == number + 1 and when == "before":
                    raise Killed
                result = await real(*args, **kwargs)
                if mine == number + 1:
                    raise Killed
                return result

            return write

        self.store.update = mortal(self.store.update)  # type: ignore[method-assign]
        self.store.delete = mortal(self.store.delete)  # type: ignore[method-assign]
        return writes

    def path(self, target: str, host: str = "algo-1") -> Path:
        """Return what a host of the newest gang sees at `target`."""
        spec = self.engine.specs[self.engine.launched[-1]]
        process = next(p for p in spec.processes if p.name == host)
        mounts = sorted(process.mounts, key=lambda m: -len(m.target))
        mount = next(m for m in mounts if target == m.target or target.startswith(f"{m.target}/"))
        return Path(mount.source.place) / target[len(mount.target) :].lstrip("/")

    def log(self, text: str, host: str = "algo-1") -> None:
        """Append lines to a host's log, as its supervisor does."""
        spec = self.engine.specs[self.engine.launched[-1]]
        log = next(p.log for p in spec.processes if p.name == host)
        assert log is not None
        with Path(log.place).open("a") as file:
            for line in text.splitlines():
                file.write(f"{to_ms(self.clock.now())} {line}\n")

    def keys(self, prefix: str = "out/") -> list[str]:
        return [stored.key for stored in self.s3.list("bucket", prefix)]

    def read(self, key: str) -> bytes:
        stored = self.s3.find("bucket", key)
        assert stored is not None, key
        return stored.path.read_bytes()

    def tar(self, key: str) -> dict[str, bytes | None]:
        """Return an archive's files; None for what is none."""
        with tarfile.open(fileobj=io.BytesIO(self.read(key))) as tar:
            found = {}
            for member in tar.getmembers():
                file = tar.extractfile(member) if member.isreg() else None
                found[member.name] = file.read() if file else None
            return found


def channel(name: str, uri: str, **more: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri} | more
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def config_file(world: World, name: str, host: str = "algo-1") -> Any:
    return json.loads(world.path(f"/opt/ml/input/config/{name}", host).read_text())


def statuses(job: TrainingJob) -> list[SecondaryStatus]:
    return [t.status for t in job.progress.transitions]


def trainer(world: World) -> None:
    """Have every gang write a model and its log when it starts."""

    def program(spec: GangSpec) -> None:
        world.path("/opt/ml/model/model.pth").write_text("weights")
        world.path("/opt/ml/output/data/curve.csv").write_text("1,2")
        world.log("Loss: 0.5\nLoss: 0.25\nAcc: nothing\nAcc: nan")

    world.engine.program = program


def algorithm(**more: Any) -> dict[str, Any]:
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.0-cpu-py310"
    return {"TrainingImage": image, "TrainingInputMode": "File"} | more


async def stop(world: World) -> None:
    job = world.job()
    progress = job.progress
    if progress.ending is None:
        progress = progress.go(SecondaryStatus.STOPPING, world.clock.now())
    await world.store.update(
        job.resource, status=TrainingJobStatus.STOPPING, document=encode(progress)
    )
