"""Runs every loop: load -> decide -> act -> guarded apply; with backoff.

A loop looks after one kind of resource. The reconciler calls `step` for each resource the loop
has work for: at once when its record changes, and again after the seconds that the last `step`
asked for. A step that raises is tried again, later each time; what it raised is logged. Steps of
one resource never overlap; steps of different resources run side by side.

What is done for one change does not grow with the number of resources: a change names its
resource, and times are kept in a heap. All are listed at the start, and rarely after that: a
safety net.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from cloche.records.store import Conflict, Resource, Store

logger = logging.getLogger("cloche.reconciler")
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 60.0
LIST_S = 60.0  # between two lists of everything
AT_ONCE = 32  # resources that are looked at before others have their turn
NEVER = float("inf")


class Loop(Protocol):
    """Makes the wishes of one kind of resource true.

    A loop that has a reason of its own to look at a resource again has `woken`, a list of
    functions to call with its ARN.
    """

    kind: str

    def load(self) -> Sequence[Resource]:
        """Return the resources that are not settled."""

    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one resource; return seconds until the next look.

        None: not until the record changes.
        """


@dataclass
class Watched:
    """Where one resource stands with its loop."""

    resource: Resource
    task: asyncio.Task[float | None] | None = None
    version: int = 0  # as of the last step
    due: float = NEVER  # event loop time of the next step; NEVER: when the record changes
    failures: int = 0
    woken: bool = False  # it is to be stepped, whatever its last step said


Key = tuple[str, str]  # kind and ARN


@dataclass
class Reconciler:
    """Drives loops until cancelled."""

    store: Store
    loops: Sequence[Loop]
    watched: dict[Key, Watched] = field(default_factory=dict)
    changed: dict[Key, bool] = field(default_factory=dict)  # to be read; True: and stepped
    times: list[tuple[float, Key]] = field(default_factory=list)  # a heap; some are out of date
    by_kind: Mapping[str, Loop] = field(default_factory=dict)

    async def run(self) -> None:
        """Run until cancelled; steps under way are cancelled too and resumed after a restart."""
        events = asyncio.get_running_loop()
        wake = asyncio.Event()
        self.by_kind = {loop.kind: loop for loop in self.loops}

        def note(kind: str, arn: str, step: bool = False) -> None:
            if kind in self.by_kind:
                self.changed[kind, arn] = step or self.changed.get((kind, arn), False)
                wake.set()

        def tell(kind: str, arn: str, step: bool = False) -> None:
            events.call_soon_threadsafe(note, kind, arn, step)

        self.store.on_written(tell)
        for loop in self.loops:
            woken: list[Callable[[str], None]] = getattr(loop, "woken", [])
            woken.append(partial(tell, loop.kind, step=True))
        listed = -NEVER
        try:
            while True:
                wake.clear()
                if events.time() - listed >= LIST_S:
                    await self._list()
                    listed = events.time()
                self._turn(events.time(), wake)
                pause = 0.0 if self.changed else self._pause(events.time(), listed + LIST_S)
                # Not wait_for: before Python 3.12 it loses a cancellation that meets its result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await wake.wait()
        finally:
            for watched in self.watched.values():
                if watched.task is not None:
                    watched.task.cancel()

    async def _list(self) -> None:
        """Have everything looked at that is not settled, or is watched and may be settled by now.

        The list is no look: it may be out of date when it is here.
        """
        for loop in self.loops:
            found = await asyncio.to_thread(loop.load)
            for resource in found:
                watched = self.watched.get((loop.kind, resource.arn))
                if watched is None or watched.version != resource.version:
                    self.changed.setdefault((loop.kind, resource.arn), False)
            alive = {resource.arn for resource in found}
            for kind, arn in self.watched:
                if kind == loop.kind and arn not in alive:
                    self.changed.setdefault((kind, arn), False)

    def _turn(self, now: float, wake: asyncio.Event) -> None:
        """Look at some of what changed and of what is due."""
        while self.times and self.times[0][0] <= now:
            due, key = heapq.heappop(self.times)
            if key in self.watched and self.watched[key].due == due:
                self.changed.setdefault(key, False)
        for key in list(self.changed)[:AT_ONCE]:
            if self.changed.pop(key) and key in self.watched:
                self.watched[key].woken = True
            self._look(key, self.store.find(key[1]), now, wake)

    def _look(self, key: Key, resource: Resource | None, now: float, wake: asyncio.Event) -> None:
        """Take note of a resource as it is now; start its step, if that is due."""
        loop, watched = self.by_kind[key[0]], self.watched.get(key)
        if watched is not None and watched.task is not None and watched.task.done():
            self._settle(watched, now)
        if resource is None or not loop.unsettled(resource):
            if watched is not None and watched.task is None:
                del self.watched[key]
            return
        if watched is None:
            watched = self.watched[key] = Watched(resource)
        if watched.task is not None:
            return
        if resource.version != watched.version or watched.due <= now or watched.woken:
            watched.resource, watched.version = resource, resource.version
            watched.due, watched.woken = NEVER, False
            watched.task = asyncio.create_task(loop.step(resource))
            watched.task.add_done_callback(lambda _task: self._ended(key, wake))
        elif watched.due != NEVER:
            heapq.heappush(self.times, (watched.due, key))

    def _ended(self, key: Key, wake: asyncio.Event) -> None:
        self.changed.setdefault(key, False)
        wake.set()

    def _pause(self, now: float, latest: float) -> float:
        """Return seconds until the next step, or list, is due."""
        first = self.times[0][0] if self.times else NEVER
        return max(0.0, min(first, latest) - now)

    def _settle(self, watched: Watched, now: float) -> None:
        task, watched.task = watched.task, None
        assert task is not None
        error = task.exception()
        if error is None:
            pause = task.result()
            watched.failures = 0
            watched.due = NEVER if pause is None else now + pause
        elif isinstance(error, Conflict):
            watched.due = now  # somebody wrote in between: look again
        else:
            watched.failures += 1
            pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (watched.failures - 1))
            watched.due = now + pause
            logger.error(
                "%s: step failed, again in %.1f s", watched.resource.arn, pause, exc_info=error
            )
