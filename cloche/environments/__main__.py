"""The process that builds one environment in the background (`environments.background`).

python -m cloche.environments HOME LOCK NAME OVER PACKAGE…

LOCK: the descriptor it inherited, locked; OVER: the environment it stands on, or empty
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from cloche.core.config import Home
from cloche.environments.background import Files, fail, say_of
from cloche.environments.build import BuildError, build
from cloche.environments.ready import folder_of
from cloche.environments.table import Framework


def main() -> None:
    """Build, and leave in files how it ended; SIGTERM ends it with nothing left."""
    home, descriptor, name, over, *packages = sys.argv[1:]
    signal.signal(signal.SIGTERM, told_to_end)
    with os.fdopen(int(descriptor), "r+") as lock:
        try:
            run(Framework(name, (), tuple(packages), over=over), Home(Path(home)))
        finally:
            say_of(lock, {})


def run(framework: Framework, home: Home) -> None:
    """Build; write down why it failed."""
    say, files = Voice(), Files(folder_of(framework, home))
    say(f"Building the environment {framework.name}: {', '.join(framework.packages)}")
    try:
        build(framework, home, say)
    except BuildError as error:
        fail(files, str(error), error.lines)
    except OSError as error:
        fail(files, str(error), ())


class Voice:
    """Prints records. No two have the same time: a reader knows by it how far it has read."""

    def __init__(self) -> None:
        self.last_ms = 0

    def __call__(self, line: str) -> None:
        """Print one line."""
        self.last_ms = max(time.time_ns() // 1_000_000, self.last_ms + 1)
        print(f"{self.last_ms} {line}", flush=True)


def told_to_end(_number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that what was begun is removed."""
    sys.exit("told to end")


if __name__ == "__main__":
    main()
