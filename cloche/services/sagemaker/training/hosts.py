"""A job's hosts: the folders behind `/opt/ml`, the configuration files, the gang to launch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.core.beneath import remove as remove_tree
from cloche.core.clock import Clock, to_ms
from cloche.core.config import Config
from cloche.engine import Engine, GangSpec, Mount, Preload, ProcessSpec
from cloche.environments.table import Framework, asked_for, fitting, modules_of, over
from cloche.services.sagemaker import no_effect
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.s3_objects import (
    Outside,
    Staged,
    link_all,
    objects,
    require_bucket,
    split_uri,
)
from cloche.services.sagemaker.software import instance_types
from cloche.services.sagemaker.software.images import (
    Environment,
    environment_of,
    framework_of,
)
from cloche.services.sagemaker.software.instance import (
    LOAD_TIME,
    RUNTIME,
    base_environment,
    gang_name,
)
from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES
from cloche.services.sagemaker.software.layers import INSIDE, Layer
from cloche.services.sagemaker.software.prepared import Prepared
from cloche.services.sagemaker.software.requirements import (
    NAME,
    Wanted,
    imported_in,
    look_through,
    read,
    wanted,
)
from cloche.services.sagemaker.training import checkpoints, inputs, launchers
from cloche.services.sagemaker.training.attempts import remaining_s
from cloche.services.sagemaker.training.inputs import archive, shard
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.status import MESSAGES, SecondaryStatus
from cloche.services.sagemaker.training.warm_pools import (
    decide as warm_pools,
)
from cloche.services.sagemaker.training.warm_pools import (
    record as warm_pool_record,
)

if TYPE_CHECKING:
    from cloche.services.s3 import Inputs
    from cloche.services.sagemaker import SageMaker

STOP_GRACE_S = 120.0  # from SIGTERM to SIGKILL (StopTrainingJob)
NETWORK_INTERFACE = "lo"  # what a gang's hosts reach one another by
SOURCE = "/opt/cloche/sourcedir.tar.gz"  # where the runner finds the script's archive
CODE = "code"  # the channel in which SDK 3.x brings the script
FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a job's files lie outside: `home.instances/<gang>/`."""

    folder: Path

    def ml(self, host: str) -> Path:
        """Return what a host sees as `/opt/ml`."""
        return self.folder / host / "ml"

    def log(self, host: str) -> Path:
        """Return where a host's log goes when the role may not write logs."""
        return self.folder / "logs" / host

    def channel(self, name: str, host: str | None) -> Path:
        """Return a channel's links: of one host where they differ, else of all."""
        return self.folder / (host or "all") / "channels" / name

    @property
    def channels(self) -> Path:
        """The links that all hosts see."""
        return self.folder / "all" / "channels"

    @property
    def source(self) -> Path:
        """The archive of the script."""
        return self.folder / "sourcedir.tar.gz"

    @property
    def requirements(self) -> Path:
        """The requirements.txt that is in that archive."""
        return self.folder / NAME

    @property
    def outside(self) -> Path:
        """What the log says of input that came from the real S3, line by line."""
        return self.folder / "outside"

    @property
    def framework(self) -> Path:
        """Where it is written down that the script asks for another environment than its image."""
        return self.folder / "framework"


def ground_of(job: TrainingJob, config: Config) -> Ground:
    """Return where a job's files lie."""
    return Ground(config.home.instances / gang_of(job))


def mls_of(job: TrainingJob, config: Config) -> list[Path]:
    """Return what the hosts see as `/opt/ml`, host by host."""
    ground = ground_of(job, config)
    return [ground.ml(host) for host in job.hosts]


def collected(job: TrainingJob, sagemaker: SageMaker) -> list[Path]:
    """Return what the hosts see as `/opt/ml`, with all that they have written until now."""
    mls = mls_of(job, sagemaker.config)
    for host, ml in zip(job.hosts, mls, strict=True):
        written = [ml, *checkpoints.elsewhere(synced(job), ml)]
        if (cache := cache_of(job, host, sagemaker.config)) is not None:
            written.append(cache)
        for folder in written:
            sagemaker.engine.collect(gang_of(job), folder)
    return mls


def synced(job: TrainingJob) -> list[checkpoints.SyncedFolder]:
    """Return the folders that are kept in step with S3."""
    return checkpoints.places(job.request, job.resource.name)


def under_way(job: TrainingJob) -> str:
    """Return what a job's status says once its hosts run."""
    types = (group.instance_type for group in job.groups)
    return instance_types.in_status(MESSAGES[SecondaryStatus.TRAINING], types)


def gang_of(job: TrainingJob) -> str:
    """Return the name of a job's gang."""
    return gang_name(job.resource.name, job.resource.arn, job.resource.created)


def modes(job: TrainingJob) -> dict[str, str]:
    """Return each channel's input mode."""
    default = job.request["AlgorithmSpecification"]["TrainingInputMode"]
    return {c["ChannelName"]: c.get("InputMode", default) for c in job.request["InputDataConfig"]}


def prepare(job: TrainingJob, s3: Inputs, config: Config) -> None:
    """Make a job's folders again: configuration, channels, the script. DownloadError when wrong.

    Blocks (0.2 s for 10,000 objects): call it from a thread.
    """
    ground = ground_of(job, config)
    remove_tree(ground.folder)
    for host in job.hosts:
        ml = ground.ml(host)
        for folder in FOLDERS:
            (ml / folder).mkdir(parents=True)
        for name, content in configuration(job, host).items():
            (ml / "input/config" / name).write_text(json.dumps(content))
        for channel in channels_of(job, host):
            (ml / "input/data" / channel["ChannelName"]).mkdir()
        if (cache := cache_of(job, host, config)) is not None:
            cache.mkdir(parents=True, exist_ok=True)
    channels = job.request["InputDataConfig"]
    outside = Outside(volume_bytes=job.request["ResourceConfig"].get("VolumeSizeInGB", 0) << 30)
    found = [one for channel in channels for one in fill(job, channel, s3, ground, outside)]
    require_bucket(s3.s3, split_uri(job.request["OutputDataConfig"]["S3OutputPath"])[0])
    base = base_framework(job, config)
    modules = asked_for(base)
    imported = imported_in(ground.channel(CODE, None), modules)  # SDK 3.x has it in a channel
    uri = submit_directory(job)
    if uri.startswith("s3://"):
        found += archive(s3, uri, ground.source, outside)
        code = look_through(ground.source, modules)
        imported |= code.imported
        if code.requirements is not None:
            ground.requirements.write_bytes(code.requirements)
    if imported:
        ground.framework.write_text(fitting(base, imported).name)
    inputs.write(ground.folder, found, s3.s3.s3)
    ground.outside.write_text("".join(f"{line}\n" for line in outside.lines))


def base_framework(job: TrainingJob, config: Config) -> Framework:
    """Return what stands for the job's image, whatever its script."""
    return framework_of(job.request["AlgorithmSpecification"]["TrainingImage"], config.home)


def framework(job: TrainingJob, config: Config) -> Framework:
    """Return what stands for the job's image with regard to what its script imports."""
    base, file = base_framework(job, config), ground_of(job, config).framework
    name = file.read_text() if file.exists() else base.name
    return next((each for each in over(base) if each.name == name), base)


def environment_for(job: TrainingJob, config: Config) -> Environment:
    """Return what the job runs in (when it is there)."""
    image = job.request["AlgorithmSpecification"]["TrainingImage"]
    return environment_of(framework(job, config), image, config.home)


def cache_of(job: TrainingJob, host: str, config: Config) -> Path | None:
    """Return what a host of a job with a warm pool finds, and leaves, as its persistent cache."""
    pool = job.progress.pool
    return None if pool is None else warm_pool_record.folder(pool.name, config) / host


def channels_of(job: TrainingJob, host: str) -> list[Request]:
    """Return the channels that a host gets."""
    return [c for c in job.request["InputDataConfig"] if host in receivers(job, c)]


def receivers(job: TrainingJob, channel: Request) -> list[str]:
    """Return the hosts that get a channel: of the groups that it names, else all."""
    names = channel["DataSource"]["S3DataSource"].get("InstanceGroupNames")
    return [host for g in job.groups if not names or g.name in names for host in g.hosts]


def fill(
    job: TrainingJob, channel: Request, s3: Inputs, ground: Ground, outside: Outside
) -> list[Staged]:
    """Link one channel's objects: once for all hosts, or each host its share."""
    source, name = channel["DataSource"]["S3DataSource"], channel["ChannelName"]
    placed = objects(s3, source, modes(job)[name])
    outside.take(f"The channel {name}, {source['S3Uri']},", [item.stored for item in placed])
    distribution = source.get("S3DataDistributionType", "FullyReplicated")
    if distribution == "FullyReplicated":
        return link_all(s3, placed, ground.channel(name, None))
    hosts, found = receivers(job, channel), list[Staged]()
    for number, host in enumerate(hosts):
        mine = shard(placed, number, len(hosts), distribution)
        found += link_all(s3, mine, ground.channel(name, host))
    return found


def configuration(job: TrainingJob, host: str) -> dict[str, Any]:
    """Return the files of `/opt/ml/input/config` (AWS: "How SageMaker Provides Training
    Information"), by name.
    """
    group = job.group_of(host)
    channels = {
        c["ChannelName"]: {
            "TrainingInputMode": modes(job)[c["ChannelName"]],
            "S3DistributionType": c["DataSource"]["S3DataSource"].get(
                "S3DataDistributionType", "FullyReplicated"
            ),
            "RecordWrapperType": c.get("RecordWrapperType", "None"),
        }
        | ({"ContentType": c["ContentType"]} if c.get("ContentType") else {})
        for c in channels_of(job, host)
    }
    return {
        "hyperparameters.json": dict(job.request.get("HyperParameters", {})),
        "inputdataconfig.json": channels,
        **checkpoints.configuration(job.request),
        "resourceconfig.json": {
            "current_host": host,
            "current_instance_type": group.instance_type,
            "current_group_name": group.name,
            "hosts": list(job.hosts),
            "instance_groups": [
                {
                    "instance_group_name": one.name,
                    "instance_type": one.instance_type,
                    "hosts": list(one.hosts),
                }
                for one in job.groups
            ],
            "network_interface_name": NETWORK_INTERFACE,
        },
    }


def submit_directory(job: TrainingJob) -> str:
    """Return where the script comes from: an S3 URI, a path inside, or nothing."""
    sent = job.request.get("HyperParameters", {}).get("sagemaker_submit_directory")
    if sent is None:
        in_environment: str = job.request.get("Environment", {}).get("SAGEMAKER_SUBMIT_DIRECTORY")
        return in_environment or ""
    try:
        return str(json.loads(sent))
    except ValueError:
        return str(sent)


def requirements(job: TrainingJob, config: Config, engine: Engine) -> Wanted | None:
    """Return what the job's requirements.txt asks for that a layer may hold (when `prepare`d).

    Without egress there is none: pip would reach nothing, on AWS neither. A shell script installs
    what it wants by itself.
    """
    algorithm = job.request["AlgorithmSpecification"]
    program = job.request.get("HyperParameters", {}).get("sagemaker_program", "")
    scripted = not algorithm.get("ContainerEntrypoint") and not program.strip('"').endswith(".sh")
    if job.request["EnableNetworkIsolation"] or not (engine.layered and scripted):
        return None
    environment = environment_for(job, config)
    text = read(ground_of(job, config).requirements.parent)
    return wanted(text, environment, job.request.get("Environment", {}), job.request["RoleArn"])


def launch_spec(
    job: TrainingJob, logs: Mapping[str, Path], layer: Layer | None, sagemaker: SageMaker
) -> GangSpec:
    """Return the gang to launch; its logs begin with the software that it runs."""
    config, clock = sagemaker.config, sagemaker.store.clock
    software = Prepared(environment_for(job, config), layer)
    write_headings(job, logs.values(), clock, config, software)
    return gang(job, logs, config, sagemaker.engine, software)


def write_headings(
    job: TrainingJob, logs: Iterable[Path], clock: Clock, config: Config, software: Prepared
) -> None:
    """Say in each host's log which software really runs, once."""
    ground = ground_of(job, config)
    lines = ground.outside.read_text().splitlines() if ground.outside.exists() else []
    hooked = (job.request.get("DebugHookConfig") or {}).get("CollectionConfigurations")
    if hooked and "smdebug" not in modules_of(software.environment.framework):
        lines.append(
            "DebugHookConfig.CollectionConfigurations is not used: tensors are collected for "
            "PyTorch scripts that import smdebug"
        )
    image = job.request["AlgorithmSpecification"]["TrainingImage"]
    lines += no_effect.line(no_effect.in_training(job.request))
    where = instance_types.in_log(group.instance_type for group in job.groups)
    for log in logs:
        software.say(log, to_ms(clock.now()), image, lines, where)


def claim(job: TrainingJob) -> GangSpec:
    """Return what of a job's gang the engine needs to tell whether there is room for it."""
    types = {
        host: INSTANCE_TYPES[group.instance_type] for group in job.groups for host in group.hosts
    }
    processes = [
        ProcessSpec(name=host, argv=(), cpus=instance.vcpu, memory_mib=instance.memory_mib)
        for host, instance in types.items()
    ]
    return GangSpec(name=gang_of(job), processes=tuple(processes))


def gang(
    job: TrainingJob,
    logs: Mapping[str, Path],
    config: Config,
    engine: Engine,
    software: Prepared,
) -> GangSpec:
    """Return everything the engine needs to start the job."""
    return GangSpec(
        name=gang_of(job),
        processes=tuple(
            process(job, host, logs[host], config, engine, software) for host in job.hosts
        ),
        max_run_s=remaining_s(job),
        stop_grace_s=STOP_GRACE_S,
        egress=not job.request["EnableNetworkIsolation"],
    )


def process(
    job: TrainingJob,
    host: str,
    log: Path,
    config: Config,
    engine: Engine,
    software: Prepared,
) -> ProcessSpec:
    """Return one host's process: the runner, or the entrypoint that the request names."""
    algorithm = job.request["AlgorithmSpecification"]
    instance = INSTANCE_TYPES[job.group_of(host).instance_type]
    entrypoint: Sequence[str] = algorithm.get("ContainerEntrypoint", ())
    arguments: Sequence[str] = algorithm.get("ContainerArguments", ())
    cold = bool(entrypoint or launchers.tools(job))  # nothing here starts the script itself
    ground, cache = ground_of(job, config), cache_of(job, host, config)
    archive = (SOURCE,) if ground.source.exists() else ()
    environment = software.environment
    given = (*archive, *(() if software.layer is None else (INSIDE,)))
    runner = (str(environment.python), f"{RUNTIME}/training.py", *given)
    return ProcessSpec(
        name=host,
        argv=(*entrypoint, *arguments) if entrypoint else runner,
        env=variables(job, host, environment, config, share(job, host, engine)),
        workdir="/",
        mounts=(
            *software.mounts(config, engine),
            *launchers.mounts(job, config.home, engine),
            Mount(engine.stage(ground.ml(host)), "/opt/ml", "rw", volume=True),
            *channel_mounts(job, host, ground, engine),
            *checkpoints.mounts(synced(job), ground.ml(host), engine),
            *((Mount(engine.stage(cache), warm_pools.CACHE, "rw"),) if cache is not None else ()),
            *(Mount(engine.stage(ground.source), inside) for inside in archive),
        ),
        log=engine.stage(log),
        preload=None if cold else Preload(environment.framework.preload, LOAD_TIME),
        cpus=instance.vcpu,
        memory_mib=instance.memory_mib,
        disk_mib=job.request["ResourceConfig"].get("VolumeSizeInGB", 0) * 1024,
    )


def share(job: TrainingJob, host: str, engine: Engine) -> int:
    """Return how many CPUs a host has to itself: the job's hosts divide what it gets.

    Threads of several hosts on one core would only wait for each other.
    """
    declared = {g: INSTANCE_TYPES[g.instance_type].vcpu for g in job.groups}
    own, total = declared[job.group_of(host)], sum(n * len(g.hosts) for g, n in declared.items())
    return max(1, min(engine.share(own), engine.share(total) * own // total))


def channel_mounts(job: TrainingJob, host: str, ground: Ground, engine: Engine) -> list[Mount]:
    """Return an overlay for each channel: the job may write there, the store never changes."""
    mounts = []
    for channel in channels_of(job, host):
        name, source = channel["ChannelName"], channel["DataSource"]["S3DataSource"]
        shared = source.get("S3DataDistributionType", "FullyReplicated") == "FullyReplicated"
        folder = ground.channel(name, None if shared else host)
        mounts.append(Mount(engine.stage(folder), f"/opt/ml/input/data/{name}", "overlay"))
    return mounts


def variables(
    job: TrainingJob, host: str, environment: Environment, config: Config, cpus: int
) -> dict[str, str]:
    """Return a host's environment: the instance's, the job's, then what the request adds."""
    isolated = job.request["EnableNetworkIsolation"]
    found = base_environment(environment, config, job.hosts, isolated=isolated)
    found |= {
        "AWS_REGION": job.resource.region,
        "AWS_DEFAULT_REGION": job.resource.region,
        "TRAINING_JOB_NAME": job.resource.name,
        "TRAINING_JOB_ARN": job.resource.arn,
        "CURRENT_HOST": host,
        "OMP_NUM_THREADS": str(cpus),
        "SM_NUM_CPUS": str(cpus),
        "SM_NUM_GPUS": "0",
        "MASTER_ADDR": job.hosts[0],
        "MASTER_PORT": "7777",
        "SAGEMAKER_BASE_DIR": "/opt/ml",
        **launchers.variables(job, config.home),
    }
    entrypoint = job.request["AlgorithmSpecification"].get("ContainerEntrypoint")
    if environment.framework.shell and not entrypoint:
        found["CLOCHE_SHELL"] = "1"
    if job.progress.pool is not None:
        found[warm_pools.CACHE_VARIABLE] = warm_pools.CACHE
    for channel in channels_of(job, host):
        name = channel["ChannelName"]
        found[f"SM_CHANNEL_{name.upper()}"] = f"/opt/ml/input/data/{name}"
    return found | dict(job.request.get("Environment", {}))
