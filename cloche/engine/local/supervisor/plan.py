"""What a supervisor is told of its gang: `plan.json` of a run directory.

Supervisors import this for type checks only: `typing` is more than they start with.
"""

from typing import TypedDict


class PlannedBounds(TypedDict):
    """What bounds a process; 0: nothing does."""

    groups: dict[str, str]  # its control group's folders by controller; where none is: watched
    memory_mib: int
    processes: int
    disk_mib: int
    files: int  # folders count
    log_mib: int
    writable: list[str]  # the folders whose files count one by one
    volume: str  # the file system that has all others; "": none
    image: str  # of that, in the run directory
    carried: dict[str, str]  # name in the volume -> where the server sees it, too


class PlannedProcess(PlannedBounds):
    """How the supervisor starts one process."""

    name: str
    argv: list[str]
    env: dict[str, str]
    environ: list[str]  # NAME=VALUE of the command's, handed in by a descriptor
    cwd: str  # of the first program in argv, outside the sandbox
    log: str
    sandboxed: bool


class GangPlan(TypedDict):
    """`plan.json` of a run directory: all that the supervisor knows of its gang."""

    version: int  # plans of the first have none
    gang: str
    sandboxed: bool
    processes: list[PlannedProcess]
    ports: list[int]  # the doors to open inside the private network
    user: int | None  # root becomes this one first; None: stay who we are
    place: str  # where `sources` appear to that user
    sources: dict[str, str]  # name below `place` -> path
    mapped: list[str]  # the names whose owner, root, is shown as the sandbox's root
    max_run_s: float | None
    stop_grace_s: float
    cpus: float  # what it counts for while it runs
    memory_mib: int
    background: bool
