"""Starts the child that unpacks an archive, and can end it."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from cloche.archives.reader import BadArchive
from cloche.core import beneath

PACKAGE = Path(__file__).resolve().parent
PYTHON = (sys.executable, "-I", "-S", "-c")
CHILD = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from archives.walk import main; main()"
INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters need it to start
LONGEST_ANSWER = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveBounds:
    """How much an archive may become; `free` is what is left on the disk for others."""

    size: int  # bytes of the unpacked archive, headers and all
    entries: int = 250_000  # files, links, folders, also those that are made on the way
    depth: int = 100  # folders in each other
    memory: int = 512 << 20  # bytes of the child's address space
    cpu_s: int = 1800
    free: int = 256 << 20  # bytes


class Unpacking:
    """One archive on its way into a folder; `stop` ends it from any thread."""

    def __init__(self, bounds: ArchiveBounds) -> None:
        self.bounds = bounds
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def stop(self) -> None:
        """End it; whoever waits for it gets BadArchive."""
        with self.lock:
            self.stopped = True
            if self.child is not None:
                self.child.kill()

    def unpack(self, archive: Path, folder: Path, into: str = "") -> None:
        """Unpack a tar archive (gzip or plain) into a folder that only the server can change.

        `into`: a folder in there, made if need be. BadArchive says why not; what was unpacked by
        then is left. Blocks: call it from a thread.
        """
        with archive.open("rb") as stream, beneath.folder(folder) as root:
            settings = json.dumps(asdict(self.bounds) | {"into": into})
            with self.lock:
                if self.stopped:
                    raise BadArchive("it was stopped")
                self.child = child = subprocess.Popen(
                    [*PYTHON, CHILD, str(PACKAGE.parent), str(root), settings],
                    stdin=stream,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(root,),
                    start_new_session=True,
                    env={name: os.environ[name] for name in INHERITED if name in os.environ},
                )
        assert child.stdout is not None
        with child.stdout:
            answer = child.stdout.read(LONGEST_ANSWER).decode(errors="replace")
        code = child.wait()
        with self.lock:
            self.child = None
        if self.stopped:
            raise BadArchive("it was stopped")
        if code != 0 or answer != "ok":
            raise BadArchive(answer if code == 1 and answer else f"unpacking ended with {code}")
