"""What a loop is: it makes the desired state of one kind of resource true, a step at a time.

The reconciler drives it: it calls `step` when a resource is new or was changed by anybody but its
own step, when the time has come that the last step asked for, and when something wakes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cloche.records.store import Changed, Resource


@dataclass(kw_only=True)
class Loop(ABC):
    """Looks after the resources of one kind."""

    kind: ClassVar[str]
    # The other kinds whose changes wake it, each with what tells of a change the ARN of the loop's
    # own resource that is to be looked at; None: of none.
    watches: ClassVar[Mapping[str, Callable[[Changed], str | None]]] = {}
    # From such a change to the look: several that come together are looked at once.
    watch_delay_s: ClassVar[float] = 0.0
    # Functions that have a resource looked at, by its ARN: the reconciler puts its own here.
    wakers: list[Callable[[str], None]] = field(default_factory=list)

    def wake(self, arn: str) -> None:
        """Have a resource looked at, for a reason of the loop's own; from any thread."""
        for waker in self.wakers:
            waker(arn)

    @abstractmethod
    def load(self) -> Sequence[Resource]:
        """Return the resources that are not settled. Called in a thread."""

    @abstractmethod
    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""

    @abstractmethod
    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one resource; return seconds until the next look, which hold
        whatever the step itself wrote. None: not until somebody else changes the record.
        """
