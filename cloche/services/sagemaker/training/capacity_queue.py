"""Who waits for capacity: training jobs in a line, the oldest first; it alone asks the engine.

The line is kept in memory as jobs come and go, and filled from the records once, at the start. The
others sleep: those near its front are woken when something changes there, so that their messages
stay true, and everybody looks up now and then.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cloche.records.store import Resource

NEAR = 8  # jobs whose messages say who is before them
NEAR_S, FAR_S = 20.0, 60.0  # between two looks of a job that is not the first
NAMED = 3  # names in a message

Place = tuple[datetime, str, str]  # created, name, ARN


def place_of(resource: Resource) -> Place:
    """Return a job's place: the older goes first."""
    return resource.created, resource.name, resource.arn


@dataclass
class Line:
    """The line. `wake` are functions that have the job of an ARN stepped."""

    wake: list[Callable[[str], None]]
    places: list[Place] = field(default_factory=list)  # sorted
    held: str = ""  # who holds what the first job waits for, for its message
    holders: tuple[str, ...] = ()  # their gangs
    filled: bool = False

    def fill(self, waiting: Iterable[Resource]) -> None:
        """Let those in that waited when the server was started."""
        self.places = sorted({*self.places, *map(place_of, waiting)})
        self.filled = True

    def enter(self, job: Resource) -> int:
        """Let a job in, if it is not; return how many are before it."""
        place = place_of(job)
        before = bisect.bisect_left(self.places, place)
        if self.places[before : before + 1] != [place]:
            self.places.insert(before, place)
            self._tell(before + 1)
        return before

    def leave(self, job: Resource) -> None:
        """Let a job out, if it is in."""
        place = place_of(job)
        before = bisect.bisect_left(self.places, place)
        if self.places[before : before + 1] == [place]:
            del self.places[before]
            self._tell(before)

    def waits(self, job: Resource) -> bool:
        """Tell whether others go before a job, be it in the line or not."""
        return bool(self.places) and self.places[0] < place_of(job)

    def freed(self) -> None:
        """Have the first job try: there may be room."""
        if self.places:
            self._wake(self.places[:1])

    def hold(self, gangs: tuple[str, ...], names: Sequence[str]) -> None:
        """Note who holds what the first job waits for."""
        held = f"; held by {listed(names)}" if names else ""
        self.holders = gangs
        if held != self.held:
            self.held = held
            self._tell(1)

    def reason(self, before: int) -> str:
        """Return what the job waits for that has so many before it."""
        if before > NEAR:
            return "older training jobs are waiting"
        names = listed([name for _, name, _ in self.places[:before]])
        return f"older training jobs are waiting: {names}{self.held}"

    def _tell(self, first: int) -> None:
        self._wake(self.places[first : NEAR + 1])

    def _wake(self, places: Iterable[Place]) -> None:
        for _, _, arn in places:
            for wake in self.wake:
                wake(arn)


def listed(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - NAMED
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
