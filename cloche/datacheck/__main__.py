"""`python -m cloche.datacheck FOLDER`: the findings of a job's pictures as JSON, a line each.

A process of its own, at the lowest priority: training goes first. Files that are not named like
pictures are passed over, for a job may read anything.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from cloche.datacheck.folder import check_files
from cloche.datacheck.names import pictures

LARGEST = 64 << 20  # bytes of a picture: what is larger is passed over


def main(root: Path) -> None:
    """Print the findings."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    files = (
        (path.relative_to(root).as_posix(), path.read_bytes())
        for path in pictures(root)
        if path.stat().st_size <= LARGEST
    )
    for finding in check_files(files):
        print(json.dumps(asdict(finding)))


main(Path(sys.argv[1]))
