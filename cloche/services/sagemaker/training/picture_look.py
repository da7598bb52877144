"""A look at a job's pictures, in a gang of its own: no picture of a user is decoded anywhere else.

The gang sees an interpreter, two libraries, the code of the check and the job's channels, which it
can't change; it has no doors, takes no capacity, and ends when nobody waits for it. What it prints
is what some picture may have made it print: a few sentences, on one line each, and no more.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cloche
from cloche.datacheck.names import printed
from cloche.engine import Engine, EngineError, GangSpec, Mount, Placed, ProcessSpec, Seen
from cloche.services.sagemaker.software.instance import system

logger = logging.getLogger("cloche.sagemaker")
PREFIX = "data-check-"
HOST = "pictures"
INSIDE = "/opt/cloche/pictures"
WITHIN_S = 1800.0
ENDS_WITHIN_S = 10.0
LOOK_S = 60.0  # between two looks at whether it has ended, which wakes who waits
ENDING_S = 0.05  # the same, for one that was told to end
MEMORY_MIB = 1024
DISK_MIB = 16
PROCESSES = 16
LOG_MIB = 1
SAID = 256 << 10  # bytes of what it printed that are read
MOST, LONGEST = 100, 8192  # findings, and characters of one
SEVERITIES = ("error", "warning")
LIBRARIES = ("numpy", "PIL")
INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters need it to start
ENVIRONMENT = {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Training goes first, from the start. No `site`: a .pth is code.
PROGRAM = """
import os, sys
os.nice(19)
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
sys.path += sys.argv.pop(1).split(os.pathsep)
from cloche.datacheck.child import main
main()
"""


@dataclass(eq=False)
class PictureCheck:
    """One look at a folder that only the server can change."""

    engine: Engine
    folder: Path
    name: str = field(default_factory=lambda: f"{PREFIX}{secrets.token_hex(8)}")
    woken: threading.Event = field(default_factory=threading.Event)  # set when it has ended
    stopped: bool = False

    def stop(self) -> None:
        """Have `run` end at once, from any thread; it then knows nothing."""
        self.stopped = True
        self.woken.set()

    def run(self) -> list[str] | None:
        """Return the findings as sentences; None: there was no end to it. Blocks."""
        if self.stopped:
            return None
        try:
            if not isinstance(self.engine.launch(spec(self)), Placed):
                return None
            ended = self.follow()
            if ended is None or ended.state != "exited" or ended.exit_code != 0 or ended.reason:
                return None
            return findings(self.engine.read_log(self.name, HOST, -SAID, SAID))
        except EngineError as error:
            logger.warning("the pictures of a job are not checked: %s", error)
            return None
        finally:
            end(self.engine, self.name)

    def follow(self) -> Seen | None:
        """Wait for its end and return it; None: it was stopped."""
        while not self.stopped:
            seen = (self.engine.see(self.name) or {}).get(HOST, Seen("lost"))
            if seen.state != "running":
                return seen
            self.woken.wait(LOOK_S)
            if not self.stopped:
                self.woken.clear()  # before the look: an end that comes after it sets it again
        return None


def spec(look: PictureCheck) -> GangSpec:
    """Return the gang, which can be printed."""
    libraries = sorted({library(name) for name in LIBRARIES})
    own = Path(cloche.__path__[0])
    paths = [own.parent, *libraries]
    stage = look.engine.stage
    mounts = [Mount(stage(look.folder), INSIDE)]
    shown: list[Path] = []
    for path in (Path(sys.base_prefix), *libraries, own / "__init__.py", own / "datacheck"):
        if not system(path) and not any(path.is_relative_to(outer) for outer in shown):
            shown.append(path)
            mounts.append(Mount(stage(path), str(path)))
    python = (os.path.realpath(sys.executable), "-I", "-S", "-B", "-W", "ignore", "-c", PROGRAM)
    process = ProcessSpec(
        name=HOST,
        argv=(*python, os.pathsep.join(map(str, paths)), INSIDE),
        env=ENVIRONMENT | {name: os.environ[name] for name in INHERITED if name in os.environ},
        mounts=tuple(mounts),
        memory_mib=MEMORY_MIB,
        disk_mib=DISK_MIB,
        processes=PROCESSES,
        log_mib=LOG_MIB,
    )
    return GangSpec(
        name=look.name,
        processes=(process,),
        max_run_s=WITHIN_S,
        stop_grace_s=0.0,
        egress=False,
        background=True,
        counted=False,
    )


def library(name: str) -> Path:
    """Return the folder that a library is imported from, without importing it."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None, name
    return Path(found.origin).parent.parent


def findings(said: bytes) -> list[str]:
    """Return the findings in a log, as sentences. Whatever else is there is passed over."""
    found: list[str] = []
    for record in said.splitlines():
        if len(found) == MOST:
            break
        try:
            each = json.loads(record.partition(b" ")[2])
        except (ValueError, RecursionError):
            continue
        if isinstance(each, dict) and each.get("severity") in SEVERITIES:
            found.append(printed(f"{each['severity']}: {each.get('text')}"[:LONGEST]))
    return found


def end(engine: Engine, gang: str) -> None:
    """End a gang and forget it. One that does not end is left for the next start."""
    until = time.monotonic() + ENDS_WITHIN_S
    with suppress(EngineError, OSError):
        engine.stop(gang)
        while any(each.state == "running" for each in (engine.see(gang) or {}).values()):
            if time.monotonic() > until:
                return
            time.sleep(ENDING_S)
        engine.forget(gang)
