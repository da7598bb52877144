"""Starts a script in an understudy: a fork of an interpreter that has imported the packages.

The engine puts it into the sandbox where it can (`cloche/engine/fork_server.py` says how) and
gives the runner a socket to it. Used only where a script can't tell the difference; everything
else starts as an ordinary process. Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DESCRIPTOR = 6  # where the engine leaves the socket
STANDING_WITHIN_S = 2.0
STATUS_LIMIT = 64
# Variables that are read when an interpreter or a numeric library is loaded: too late for them.
LOAD_TIME = re.compile(
    r"\b(?:(?:OMP|KMP|GOMP|MKL|OPENBLAS|ATEN|DNNL|ONEDNN|PYTORCH|MALLOC|LC)_[A-Z]\w*"
    r"|TORCH_(?!HOME)[A-Z]\w*|LD_PRELOAD|LD_LIBRARY_PATH|LANG|PYTHON[A-Z]+)\b"
)
# Those that an understudy obeys, with the values for which it does (None: any).
OBEYED: Mapping[str, str | None] = {
    "OMP_NUM_THREADS": None,
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": None,
    "LC_CTYPE": "C.UTF-8",
}
# Those that a script may mention: PASSIVE is so already, the other is read by new processes only.
MENTIONED = ("OMP_WAIT_POLICY", "PYTHONHASHSEED")
ACTIVE = re.compile(r"""["']active["']""", re.IGNORECASE)


class Understudy:
    """A process that stands ready in this sandbox; looks like a `subprocess.Popen`."""

    def __init__(self, conversation: socket.socket) -> None:
        self.conversation = conversation
        self.pid = 0
        self.returncode: int | None = None

    def start(self, command: Sequence[str], folder: Path, stderr: int) -> bool:
        """Have it run `command`, output to ours and `stderr`; False: it does not, nothing ran."""
        request = {"argv": list(command), "env": dict(os.environ), "cwd": str(folder)}
        self.conversation.settimeout(STANDING_WITHIN_S)
        try:
            socket.send_fds(self.conversation, [json.dumps(request).encode()], [1, stderr])
            word, _, number = self.conversation.recv(STATUS_LIMIT).partition(b" ")
            if word != b"standing":
                return False
            self.pid = int(number)
            self.conversation.settimeout(None)
            self.conversation.send(b"go")
        except OSError:
            self.conversation.close()
            return False
        return True

    def wait(self) -> int:
        """Return the exit status, negative for a signal, once it has ended."""
        while self.returncode is None:
            self._take(0)
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._take(socket.MSG_DONTWAIT)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _take(self, flags: int) -> None:
        try:
            text = self.conversation.recv(STATUS_LIMIT, flags)
        except BlockingIOError:
            raise
        except OSError:
            text = b""
        if self.returncode is not None:  # a signal's handler was quicker
            return
        if not text:  # what looked after it was killed: nobody knows how it ended
            self.send_signal(signal.SIGKILL)
            self.returncode = -signal.SIGKILL
            return
        self.returncode = os.waitstatus_to_exitcode(int(text.split()[1]))


def found() -> socket.socket | None:
    """Return the socket that the engine left for us, if it did."""
    try:
        os.set_inheritable(DESCRIPTOR, False)
        conversation = socket.socket(fileno=DESCRIPTOR)
    except OSError:
        return None
    if (conversation.family, conversation.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        conversation.detach()
        return None
    return conversation


def hired(command: Sequence[str], code: Path, stderr: int) -> Understudy | None:
    """Return the understudy that runs `command` now; None: start it as an ordinary process."""
    conversation = found()
    if conversation is None:
        return None
    if fits(command, code, os.environ):
        understudy = Understudy(conversation)
        if understudy.start(command, code, stderr):
            return understudy
    conversation.close()
    return None


def fits(command: Sequence[str], code: Path, env: Mapping[str, str]) -> bool:
    """Return whether a script can't tell an understudy from an interpreter of its own.

    `python SCRIPT.py …`, no packages that the job brought, and no variable, in the environment or
    in the code, that an interpreter or a numeric library reads when it is loaded.
    """
    if command[:1] != [sys.executable] or not command[1].endswith(".py"):
        return False
    if (code / "requirements.txt").exists():
        return False
    for name, value in env.items():
        if LOAD_TIME.fullmatch(name) and (name not in OBEYED or OBEYED[name] not in (None, value)):
            return False
    for path in code.rglob("*.py"):
        text = path.read_text(errors="replace")
        mentioned = {match[0] for match in LOAD_TIME.finditer(text)}
        if mentioned.difference(MENTIONED):
            return False
        if "OMP_WAIT_POLICY" in mentioned and ACTIVE.search(text):
            return False
    return True
