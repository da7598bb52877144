"""Unix sockets at paths that may be longer than an address may be."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Give a folder a short name: the address of a unix socket has at most 104 bytes."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        link = Path(name) / "f"
        link.symlink_to(folder)
        yield str(link)
