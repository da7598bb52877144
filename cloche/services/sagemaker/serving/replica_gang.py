"""Where an endpoint keeps what on the disk, and the gang of one process that a replica is."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cloche.runtime
from cloche.core import beneath
from cloche.core.config import Config
from cloche.engine import Engine, GangSpec, Mount, ProcessSpec
from cloche.records.store import Resource
from cloche.services.sagemaker.serving.record import Replica, Variant
from cloche.services.sagemaker.software.instance import base_environment, gang_name
from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES
from cloche.services.sagemaker.software.layers import INSIDE
from cloche.services.sagemaker.software.prepared import Prepared

HOST = "model"  # the host name inside
LIBRARY = "/opt/cloche/lib"  # where `import cloche.runtime` finds the model server inside
PACKAGE = Path(cloche.runtime.__path__[0])
RUN = "/run/cloche"
FAILURE = "failure"  # what a replica leaves there when it fails
LAST = 8192  # bytes of that which are looked at
STOP_GRACE_S = 30.0  # SIGTERM to SIGKILL; what runs was drained before (hosting: 30 s)


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one endpoint."""

    root: Path

    @classmethod
    def of(cls, resource: Resource, config: Config) -> Folders:
        """Return those of an endpoint; a later endpoint of the same name has others."""
        name = gang_name(resource.name, resource.arn, resource.created)
        return cls(config.home.instances / name)

    def deployment(self, deployment: str) -> Path:
        """Return where the models of a deployment lie."""
        return self.root / "models" / deployment

    def model(self, deployment: str, variant: str) -> Path:
        """Return where a variant's model lies, unpacked."""
        return self.deployment(deployment) / variant

    def replica(self, replica: Replica) -> Path:
        """Return a replica's folder."""
        return self.root / "replicas" / replica.id

    def log(self, replica: Replica) -> Path:
        """Return where a replica's log goes when the role may not write logs."""
        return self.replica(replica) / "log"

    def ml(self, replica: Replica) -> Path:
        """Return what is /opt/ml inside."""
        return self.replica(replica) / "ml"

    def run(self, replica: Replica) -> Path:
        """Return the folder with what the replica left when it failed; it may write there."""
        return self.replica(replica) / "run"

    def library(self, replica: Replica) -> Path:
        """Return the folder with the replica's own copy of the model server."""
        return self.replica(replica) / "lib"


def gang_spec(
    replica: Replica,
    variant: Variant,
    *,
    folders: Folders,
    software: Prepared,
    config: Config,
    engine: Engine,
    log: Path,
) -> GangSpec:
    """Return the replica's gang."""
    environment = software.environment
    kind = INSTANCE_TYPES[variant.instance_type]
    stage, cpus = engine.stage, engine.share(kind.vcpu)
    variables = {
        "SAGEMAKER_REGION": config.region,
        "SM_MODEL_DIR": "/opt/ml/model",
        "SM_NUM_CPUS": str(cpus),
        "SM_NUM_GPUS": "0",
        "OMP_NUM_THREADS": str(cpus),
        **base_environment(environment, config, (HOST,), isolated=variant.network_isolation),
        **variant.environment,
        "PYTHONPATH": LIBRARY,
        "CLOCHE_FAILURE": f"{RUN}/{FAILURE}",
        "CLOCHE_HANDLERS": environment.framework.handlers,
        **({} if software.layer is None else {"CLOCHE_REQUIREMENTS": INSIDE}),
    }
    model = folders.model(replica.deployment, variant.name)
    own = (
        Mount(stage(folders.library(replica)), LIBRARY),
        Mount(stage(folders.run(replica)), RUN, "rw", volume=True),
        Mount(stage(folders.ml(replica)), "/opt/ml", "rw", volume=True),
        Mount(stage(model), "/opt/ml/model", "overlay"),
    )
    process = ProcessSpec(
        name=HOST,
        argv=(str(environment.python), "-m", "cloche.runtime.serving"),
        env=variables,
        mounts=software.mounts(config, engine) + own,
        log=stage(log),
        cpus=kind.vcpu,
        memory_mib=kind.memory_mib,
        disk_mib=variant.volume_gb * 1024,
        serves=True,
    )
    return GangSpec(
        name=replica.gang,
        processes=(process,),
        stop_grace_s=STOP_GRACE_S,
        egress=not variant.network_isolation,
        background=True,
    )


def claim(replica: Replica, variant: Variant) -> GangSpec:
    """Return what of a replica's gang the engine needs to tell whether there is room for it."""
    kind = INSTANCE_TYPES[variant.instance_type]
    process = ProcessSpec(name=HOST, argv=(), cpus=kind.vcpu, memory_mib=kind.memory_mib)
    return GangSpec(name=replica.gang, processes=(process,), background=True)


def prepare(replica: Replica, folders: Folders) -> None:
    """Make the folders that the replica's mounts need.

    The model server is copied, not mounted: an upgrade of Cloche does not change what runs, and
    without a sandbox (where mounts become plain paths) it is a package as well.
    """
    (folders.ml(replica) / "model").mkdir(parents=True, exist_ok=True)
    configuration = folders.ml(replica) / "input" / "config"
    configuration.mkdir(parents=True, exist_ok=True)
    resources = {"current_host": HOST, "hosts": [HOST], "network_interface_name": "eth0"}
    (configuration / "resourceconfig.json").write_text(json.dumps(resources))
    folders.run(replica).mkdir(parents=True, exist_ok=True)
    package = folders.library(replica) / "cloche"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, package / "runtime", ignore=ignored, dirs_exist_ok=True)
    (package / "__init__.py").touch()


def last_line(run: Path) -> str:
    """Return what a replica left as the reason why it failed; empty when it left nothing."""
    left = beneath.read(run, FAILURE, LAST, end=True) or b""
    lines = left.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
