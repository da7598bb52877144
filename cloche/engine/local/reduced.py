"""Running without a sandbox, where the machine has none: real folders in place of mount targets.

What remains: a gang starts, stops and is adopted as elsewhere, its log and exit records are
exact, inputs can't be changed through it (they are copied; what is mounted at its own path, an
interpreter, is used as it is). What is missing: the machine's files and network are in reach,
`/opt/ml` exists only as the paths in SM_* variables, and the hosts of a gang share one machine
under the name localhost.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from cloche.engine import EngineError, GangSpec, ProcessSpec
from cloche.engine.local.folders import in_place
from cloche.engine.local.sandbox import (
    BY_DESCRIPTOR,
    UPPER,
    Claim,
    ResourceLimits,
    check,
    command,
    environment,
    host_folder,
    log_of,
    planned_bounds,
    settings,
)
from cloche.engine.local.supervisor.plan import GangPlan, PlannedProcess
from cloche.engine.local.supervisor.version import VERSION


def plan_reduced(
    gang: GangSpec,
    folder: Path,
    ports: dict[int, int],
    claim: Claim,
    bounds: Mapping[str, ResourceLimits],
) -> GangPlan:
    """Return the plan; `ports` maps a door's port to the one that is open in its place."""
    check(gang)
    if any(m.layers or m.changes for process in gang.processes for m in process.mounts):
        raise EngineError(f"{gang.name}: layers need sandboxes, and there are none here")
    return GangPlan(
        version=VERSION,
        gang=gang.name,
        sandboxed=False,
        processes=[
            bare(process, folder, ports, bounds[process.name]) for process in gang.processes
        ],
        ports=[],
        user=None,
        place="",
        sources={},
        mapped=[],
        max_run_s=gang.max_run_s,
        stop_grace_s=gang.stop_grace_s,
        cpus=claim.cpus,
        memory_mib=claim.memory_mib,
        background=claim.background,
    )


def bare(
    process: ProcessSpec, folder: Path, ports: dict[int, int], bounds: ResourceLimits
) -> PlannedProcess:
    """Return one process with every path and door in its texts made real."""
    own = host_folder(folder, process.name)
    real: dict[str, str] = {}
    for number, mount in enumerate(process.mounts):
        copied = mount.mode == "overlay" and not in_place(mount)
        real[mount.target] = str(
            own / f"overlay-{number}/{UPPER}" if copied else mount.source.place
        )
    real |= {f"127.0.0.1:{inside}": f"127.0.0.1:{outside}" for inside, outside in ports.items()}
    defaults = {"TMPDIR": str(own / "tmp"), "HOME": str(own / "root")}
    env = environment(process) | defaults | dict(process.env)
    env = {name: translate(value, real) for name, value in env.items()}
    if "MASTER_ADDR" in env:
        env["MASTER_ADDR"] = "127.0.0.1"  # host names resolve in a sandbox only
    argv = tuple(translate(text, real) for text in process.argv)
    written = [mount.source.place for mount in process.mounts if mount.mode == "rw"]
    return PlannedProcess(
        name=process.name,
        argv=command(argv, env),
        env={"PATH": env["PATH"]},
        environ=settings(env) if BY_DESCRIPTOR else [],
        cwd=translate(process.workdir, real),
        log=str(log_of(process, folder)),
        sandboxed=False,
        **planned_bounds(process, bounds, str(own), written),
    )


def translate(text: str, real: dict[str, str]) -> str:
    """Return `text` with each key of `real`, where it stands as a whole, replaced."""
    if not real:
        return text
    keys = []
    for key in sorted(real, key=len, reverse=True):
        before = r"(?<![\w./-])" if key.startswith("/") else r"(?<![\w.])"
        keys.append(before + re.escape(key))
    pattern = rf"(?:{'|'.join(keys)})(?![\w.-])"
    return re.sub(pattern, lambda found: real[found[0]], text)
