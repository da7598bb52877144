"""Who waits for capacity: training jobs in a line, the oldest first; it alone asks the engine.

A job whose turn it is keeps its room while its input is linked and until it runs; all others have
nothing prepared. The line is kept in memory as jobs come and go, and filled from the records once,
at the start. Those that wait sleep until capacity was freed or something changed at the front: the
first tries again, those near it are woken so that their messages stay true.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cloche.core.executors import ENGINE
from cloche.engine import Engine, GangSpec, InsufficientCapacity
from cloche.records.store import Resource
from cloche.services.sagemaker.gangs import Gangs

NEAR = 8  # jobs whose messages say who is before them
FIRST_S, OTHERS_S = 1.0, 600.0  # between two looks of the first, and the others, if none wakes them
NAMED = 3  # names in a message

Place = tuple[datetime, str, str]  # created, name, ARN


def place_of(resource: Resource) -> Place:
    """Return a job's place: the older goes first."""
    return resource.created, resource.name, resource.arn


@dataclass
class Line:
    """The line. `wake` has the job of an ARN stepped."""

    wake: Callable[[str], None]
    places: list[Place] = field(default_factory=list)  # sorted
    held: str = ""  # who holds what the first job waits for, for its message
    filled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fill(self, waiting: Iterable[Resource]) -> None:
        """Let those in that waited when the server was started; from any thread."""
        places = [place_of(each) for each in waiting]
        with self.lock:
            self.places = sorted({*self.places, *places})
            self.filled = True

    def enter(self, job: Resource) -> int:
        """Let a job in, if it is not; return how many are before it."""
        place = place_of(job)
        with self.lock:
            before = bisect.bisect_left(self.places, place)
            there = self.places[before : before + 1] == [place]
            if not there:
                self.places.insert(before, place)
        if not there:
            self._tell(before + 1)
        return before

    def leave(self, job: Resource) -> None:
        """Let a job out, if it is in."""
        place = place_of(job)
        with self.lock:
            before = bisect.bisect_left(self.places, place)
            there = self.places[before : before + 1] == [place]
            if there:
                del self.places[before]
        if there:
            self._tell(before)

    def waits(self, job: Resource) -> bool:
        """Tell whether others go before a job, be it in the line or not."""
        return bool(self.places) and self.places[0] < place_of(job)

    def freed(self) -> None:
        """Have the first job try: there may be room."""
        if self.places:
            self._wake(self.places[:1])

    def hold(self, names: Sequence[str]) -> None:
        """Note who holds what the first job waits for."""
        held = f"; held by {listed(names)}" if names else ""
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
            self.wake(arn)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job waits for, and how long until it looks again if nothing wakes it."""

    text: str
    pause_s: float


class CapacityQueue:
    """Gives jobs their turns. `wake` has the job of an ARN stepped."""

    def __init__(self, engine: Engine, gangs: Gangs, wake: Callable[[str], None]) -> None:
        self.engine, self.gangs = engine, gangs
        self.line = Line(wake)
        gangs.freed.append(self.line.freed)
        self.turns: dict[str, GangSpec] = {}  # of jobs that have room and do not run yet, by ARN
        self.asking = asyncio.Lock()

    async def turn(self, job: Resource, gang: GangSpec) -> Waiting | None:
        """Give a job its turn, if there is room for its gang and nobody is before it; None: it is.

        It has it until it `leaves` or gives it back.
        """
        if job.arn in self.turns:
            return None
        if self.line.waits(job):
            return self.behind(job)
        async with self.asking:
            if self.line.waits(job):
                return self.behind(job)
            refused = await ENGINE.run(self.engine.room, gang, tuple(self.turns.values()))
            if refused is not None:
                return self.refused(job, gang.name, refused)
            self.turns[job.arn] = gang
            self.gangs.expect(gang.name, job.arn, self.line.wake)
        self.line.leave(job)
        return None

    def behind(self, job: Resource) -> Waiting:
        """Return what a job waits for that others go before."""
        return Waiting(self.line.reason(self.line.enter(job)), OTHERS_S)

    def refused(self, job: Resource, gang: str, refused: InsufficientCapacity) -> Waiting:
        """Return what the first job waits for."""
        self.give_back(job)
        self.line.enter(job)
        self.line.hold(self.gangs.owners(refused.holders))
        return Waiting(f"{refused.lacking(gang)}{self.line.held}", FIRST_S)

    def give_back(self, job: Resource) -> None:
        """Take back the turn of a job that can't go on for now."""
        if self.turns.pop(job.arn, None) is not None:
            self.line.freed()

    def leave(self, job: Resource) -> None:
        """Let a job out that runs, or will not."""
        self.give_back(job)
        self.line.leave(job)


def listed(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - NAMED
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
