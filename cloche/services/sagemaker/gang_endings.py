"""Whom the end of a gang concerns: the engine tells of it, so that nobody has to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class GangEndings:
    """Which resource is to be looked at when a process of a gang has ended.

    To be used on the event loop alone.
    """

    expected: dict[str, tuple[str, Iterable[Callable[[str], None]]]] = field(default_factory=dict)

    def expect(self, gang: str, arn: str, woken: Iterable[Callable[[str], None]]) -> None:
        """Have `woken` called with an ARN whenever a process of a gang has ended."""
        self.expected[gang] = arn, woken

    def forget(self, *gangs: str) -> None:
        """Expect no more of gangs."""
        for gang in gangs:
            self.expected.pop(gang, None)

    def ended(self, gang: str) -> None:
        """Take note that a process of a gang has ended."""
        arn, woken = self.expected.get(gang, ("", ()))
        for wake in woken:
            wake(arn)
