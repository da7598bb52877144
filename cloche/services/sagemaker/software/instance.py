"""What an instance offers to the code in it: its type, its environment, what it sees mounted."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import cloche.runtime
from cloche.core import trust
from cloche.core.clock import to_ms
from cloche.core.config import Config
from cloche.core.identity import GangDoors
from cloche.engine import Engine, Mount
from cloche.records.store import Resource
from cloche.services.sagemaker.software.images import Environment

RUNTIME = "/opt/cloche/runtime"  # where the runners lie inside
AUTHORITY = "/opt/cloche/ca-bundle.pem"  # whom TLS clients trust inside
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What is read when the interpreter and its libraries are loaded: the same for all.
LOAD_TIME = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "UTF-8",
    # Instances share the machine's cores: a thread that spins while it waits takes one from the
    # others (the same training took 9 minutes instead of 4).
    "OMP_WAIT_POLICY": "PASSIVE",
    # No process sees a GPU, whatever its instance type has on AWS and this machine has.
    "CUDA_VISIBLE_DEVICES": "",
}
SYSTEM_PREFIXES = ("/usr", "/bin", "/lib", "/lib64")  # every sandbox has these


def gang_name(name: str, arn: str, created: datetime) -> str:
    """Return a short name for the gang behind a resource: stable, and new for each creation."""
    digest = hashlib.sha256(f"{arn} {to_ms(created)}".encode()).hexdigest()
    return f"{name[:24].rstrip('-')}-{digest[:10]}"


async def open_doors(
    doors: GangDoors, gang: str, resource: Resource, role_arn: str, *, isolated: bool
) -> None:
    """Serve the platform, and the role's credentials, to a gang; not where its network is isolated.

    The engine gives such a gang no doors (`GangSpec.egress`), so that there is nothing to open.
    """
    if not isolated:
        place = {"account": resource.account, "region": resource.region}
        await doors.open(gang, **place, role_arn=role_arn)


def platform_environment(config: Config, *, isolated: bool) -> dict[str, str]:
    """Return the variables by which any AWS client inside finds the platform and the way out.

    Code in an isolated network has no platform, no credentials, no way out: only what is said of
    where it runs.
    """
    place = {
        "AWS_REGION": config.region,
        "AWS_DEFAULT_REGION": config.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        **dict.fromkeys(trust.VARIABLES, AUTHORITY),
    }
    if isolated:
        return place
    gateway = f"http://127.0.0.1:{config.port}"
    proxy = f"http://127.0.0.1:{config.proxy_port}"
    local = "127.0.0.1,localhost"
    return place | {
        "AWS_ENDPOINT_URL": gateway,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{gateway}/_cloche/credentials",
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
        "http_proxy": proxy,
        "https_proxy": proxy,
        "NO_PROXY": local,
        "no_proxy": local,
    }


def base_environment(
    environment: Environment, config: Config, hosts: tuple[str, ...], *, isolated: bool
) -> dict[str, str]:
    """Return what every user process has: PATH with the interpreter, the platform, its hosts."""
    variables = platform_environment(config, isolated=isolated)
    if not isolated:
        names = ",".join((variables["NO_PROXY"], *hosts))
        variables |= {"NO_PROXY": names, "no_proxy": names}
    return variables | {
        "PATH": f"{environment.python.parent}:{SYSTEM_PATH}",
        "VIRTUAL_ENV": str(environment.prefixes[0]),
        **LOAD_TIME,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "SAGEMAKER_TRAINING_MODULE": environment.framework.training_module,
    }


def base_mounts(environment: Environment, config: Config, engine: Engine) -> tuple[Mount, ...]:
    """Return the interpreter, the runners and the certificates, as every instance sees them.

    The virtual environment is an overlay: `pip install` works inside and changes nothing outside.
    """
    first, *others = environment.prefixes
    mounts = [Mount(engine.stage(first), str(first), "overlay" if others else "ro")]
    mounts += [Mount(engine.stage(prefix), str(prefix)) for prefix in others if not system(prefix)]
    mounts.append(Mount(engine.stage(Path(cloche.runtime.__path__[0])), RUNTIME))
    mounts.append(Mount(engine.stage(config.home.bundle), AUTHORITY))
    return tuple(mounts)


def system(prefix: Path) -> bool:
    """Return whether every sandbox has this folder anyway."""
    return any(prefix == Path(p) or Path(p) in prefix.parents for p in SYSTEM_PREFIXES)
