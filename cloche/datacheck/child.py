"""The process that looks at a job's pictures: `child.py FOLDER`, a finding a line, as JSON.

Whoever made the pictures may have made them for us: what decodes them is alone in a sandbox (where
there are any), takes no more than it was given, and is believed nothing. Files that are not named
like pictures are passed over, for a job may read anything.
"""

import json
import os
import resource
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict

from cloche.datacheck.folder import check_files
from cloche.datacheck.names import hidden, picture_named

LARGEST = 64 << 20  # bytes of a picture: what is larger is passed over
MEMORY = 900 << 20  # bytes of address space
CPU_S = 300
FILE_BYTES = 1 << 20  # it writes none
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def main() -> None:
    """Print the findings."""
    bound()
    for finding in check_files(pictures(sys.argv[1])):
        print(json.dumps(asdict(finding)))


def bound() -> None:
    """Give up, for good, what is more than pictures need."""
    limits = ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_S))
    for what, most in (*limits, (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (least, least))
        except (ValueError, OSError):  # macOS knows no bound of address space
            continue


def pictures(root: str) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files below `root` that are named like pictures; no link is followed."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not hidden(name))
        for name in sorted(filter(picture_named, names)):
            path = os.path.join(folder, name)
            data = content(path)
            if data is not None:
                yield os.path.relpath(path, root), data


def content(path: str) -> bytes | None:
    """Return what a regular file holds; None when it is none, or too large."""
    try:
        descriptor = os.open(path, OPEN)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        data = file.read(LARGEST + 1)
    return data if len(data) <= LARGEST else None
