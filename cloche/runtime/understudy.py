"""Starts a script in an understudy: a fork of an interpreter that has imported the packages.

The engine puts it into the sandbox where it can (`cloche/engine/local/fork_server.py` says how) and
gives the runner a socket to it. It takes on only what can't tell the difference; everything else
starts as an ordinary process. Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

DESCRIPTOR = 6  # where the engine leaves the socket
STANDING_WITHIN_S = 10.0  # it may be importing what the script would now
STATUS_LIMIT = 64


class Understudy:
    """A process that stands ready in this sandbox; looks like a `subprocess.Popen`."""

    def __init__(self, conversation: socket.socket) -> None:
        self.conversation = conversation
        self.pid = 0
        self.returncode: int | None = None

    def start(self, command: Sequence[str], folder: Path, stderr: int, within_s: float) -> bool:
        """Have it run `command`, output to ours and `stderr`; False: it does not, nothing ran."""
        request = {"argv": list(command), "env": dict(os.environ), "cwd": str(folder)}
        self.conversation.settimeout(within_s)
        try:
            socket.send_fds(self.conversation, [json.dumps(request).encode()], [1, stderr])
            word, _, number = self.conversation.recv(STATUS_LIMIT).partition(b" ")
            if word != b"standing":
                self.conversation.close()
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


def hired(
    command: Sequence[str], code: Path, stderr: int, within_s: float = STANDING_WITHIN_S
) -> Understudy | None:
    """Return the understudy that runs `command` now; None: start it as an ordinary process."""
    conversation = found()
    if conversation is None:
        return None
    understudy = Understudy(conversation)
    return understudy if understudy.start(command, code, stderr, within_s) else None
