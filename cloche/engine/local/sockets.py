"""Unix sockets at paths that may be longer than an address may be."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 128  # connections that wait for a process to accept them


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


def bound(path: Path) -> socket.socket:
    """Return a unix socket that listens at the path; what was there goes."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path.parent) as folder:
            listening.bind(f"{folder}/{path.name}")
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
