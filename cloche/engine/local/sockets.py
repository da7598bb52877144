"""Sockets that processes serve: where they lie, and binding them."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloche.core.unix import short_path

BACKLOG = 128  # connections that wait for a process to accept them


OLDER = "serve.sock"  # beside a folder of the sandbox's, in version 1


def serving(folder: Path, process: str) -> Path:
    """Return where the socket of a process that serves lies, in its run directory."""
    return folder / f"serve-{process}.sock"


def older_serving(planned: Mapping[str, Any], process: str) -> Path | None:
    """Return where it lies for a supervisor of version 1: the caller chose it, near a mount."""
    (spec,) = (each for each in planned["processes"] if each["name"] == process)
    shown = (*planned["sources"].values(), *spec["writable"], *spec.get("carried", {}).values())
    beside = (Path(path).with_name(OLDER) for path in shown)
    return next((path for path in beside if path.is_socket()), None)


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
