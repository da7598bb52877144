"""What is kept free of the disk for the server's own records.

Sandboxes are started only while it is whole, and the greediest is ended once it is touched
(`supervisor/disk.py`). For one that takes the whole disk between two looks there is a
part of it in files, space and inodes: its supervisor removes them, so that the server can write
down what happened and clear away.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from cloche.engine import EngineError
from cloche.engine.local.supervisor.disk import Room
from cloche.engine.local.supervisor.namespaces import allocate

SPACE, PART = 64 << 20, 50  # bytes in files: the smaller of this and one of so many parts
FILES = 64


class Reserve:
    """The reserve of the disk that an engine's folder is on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root.with_name(f".{root.name}-reserve")
        self.make()

    def make(self) -> None:
        """Make the files of the reserve that are not there; on a full disk later."""
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if len(os.listdir(self.folder)) == FILES or Room(str(self.root)).scarce:
                return
            told = os.statvfs(self.root)
            size = min(SPACE, told.f_blocks * told.f_frsize // PART) // FILES
            for number in range(FILES):
                descriptor = os.open(
                    self.folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
                allocate(descriptor, size)
                os.close(descriptor)

    def refusal(self) -> str | None:
        """Return why nothing is started now; None: the reserve is whole."""
        room = Room(str(self.root))
        if not room.scarce:
            return None
        return (
            f"waits for space on the disk: {room.bytes >> 20} MiB and {room.inodes} inodes are "
            "free, and they are kept for the server"
        )


def disk_full(error: BaseException) -> bool:
    """Tell whether an error means that no space is left, here or for the supervisor."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, EngineError) and os.strerror(errno.ENOSPC) in str(error)
