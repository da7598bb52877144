"""Whose the gangs are: whom the end of one concerns, and who holds the machine's capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

LAYER = "layer-"


@dataclass
class Gangs:
    """The gangs of resources, as their loops have said it. To be used on the event loop alone.

    `freed` are called when a process of any gang has ended: there may be capacity.
    """

    expected: dict[str, tuple[str, Callable[[str], None]]] = field(default_factory=dict)
    freed: list[Callable[[], None]] = field(default_factory=list)

    def expect(self, gang: str, arn: str, wake: Callable[[str], None]) -> None:
        """Have `wake` called with an ARN whenever a process of a gang has ended."""
        self.expected[gang] = arn, wake

    def forget(self, *gangs: str) -> None:
        """Expect no more of gangs."""
        for gang in gangs:
            self.expected.pop(gang, None)

    def ended(self, gang: str) -> None:
        """Take note that a process of a gang has ended."""
        if gang in self.expected:
            arn, wake = self.expected[gang]
            wake(arn)
        for tell in self.freed:
            tell()

    def owners(self, gangs: Iterable[str]) -> list[str]:
        """Return what gangs belong to: `training job NAME`, `endpoint NAME`, each once."""
        return list(dict.fromkeys(self._owner(gang) for gang in gangs))

    def _owner(self, gang: str) -> str:
        if gang.startswith(LAYER):
            return "the installation of a requirements.txt"
        if gang in self.expected:
            kind, _, name = self.expected[gang][0].rpartition(":")[2].partition("/")
            return f"{kind.replace('-', ' ')} {name}"
        return "a process that is about to be removed"
