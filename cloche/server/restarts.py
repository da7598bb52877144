"""When a server that died is started again, and when no more."""

import os
import signal
from dataclasses import dataclass

STEADY_S = 10.0  # who lived that long did not die of its start
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 16.0
MOST_DEATHS = 8  # in a row
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ServerExit:
    """How a server ended, by its status of waitpid(2)."""

    status: int

    @property
    def exited(self) -> bool:
        """Whether it ended by itself, with an exit code."""
        return os.WIFEXITED(self.status)

    @property
    def signal(self) -> signal.Signals | None:
        """What killed it."""
        return signal.Signals(os.WTERMSIG(self.status)) if os.WIFSIGNALED(self.status) else None

    @property
    def code(self) -> int:
        """The exit code, as a shell has it."""
        return os.WEXITSTATUS(self.status) if self.signal is None else 128 + self.signal

    @property
    def asked(self) -> bool:
        """Whether somebody asked it to end: it did, in order, or was not yet ready to."""
        return self.status == 0 or self.signal in ASKING

    def __str__(self) -> str:
        if self.signal is None:
            return f"ended with code {self.code}"
        return f"was killed by {self.signal.name}"


@dataclass(frozen=True, slots=True)
class Deaths:
    """The deaths that came one after another, none of them long after its start."""

    in_a_row: int = 0

    def after(self, lived_s: float) -> "Deaths":
        """Return the deaths with one more, of a server that lived that long."""
        return Deaths(1 if lived_s >= STEADY_S else self.in_a_row + 1)

    def pause_s(self) -> float | None:
        """Return how long to wait before the next start: nothing at first, then ever longer; None:
        start no more.
        """
        if self.in_a_row >= MOST_DEATHS:
            return None
        if self.in_a_row <= 1:
            return 0.0
        return min(FIRST_PAUSE_S * 2.0 ** (self.in_a_row - 2), LONGEST_PAUSE_S)
