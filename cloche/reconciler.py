"""Drives the loops: an event names a resource, its loop's step is run, and again when it asks.

Each loop has a work queue and a task of its own: what goes wrong in one stops no other. A key is
queued when its record changed (other than by the step under way), when the loop or a record of
another kind asks for it, when the time that its last step asked for has come, and later each time
when its step, or the reading of its record, failed. Nothing is listed for that: all is listed at
the start, and once in a while as a net for what no event told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cloche.core.executors import LOOPS
from cloche.core.typed import BadRecord
from cloche.loop import Loop
from cloche.records.store import AUTHOR, Changed, Conflict, Resource, Store
from cloche.work_queue import NEVER, WorkQueue, backoff_s

R = TypeVar("R")
T = TypeVar("T")

logger = logging.getLogger("cloche.reconciler")
ALL = "all"  # what a list reads, among ARNs
LIST_S = 600.0  # between two lists of everything
AT_ONCE = 32  # steps that are started before others have their turn
END_WITHIN_S = 10.0  # that steps may take to end when they are cancelled


@dataclass
class Driver:
    """Drives one loop until cancelled."""

    store: Store
    loop: Loop
    queue: WorkQueue[str] = field(default_factory=WorkQueue)  # of ARNs
    known: dict[str, int] = field(default_factory=dict)  # what is not settled: its version
    running: dict[str, asyncio.Task[float | None]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)  # ARN or ALL: why it can't be read
    something: asyncio.Event = field(default_factory=asyncio.Event)
    ending: bool = False

    @property
    def trouble(self) -> str | None:
        """Return why the loop can't go on at the moment; None: it can."""
        why = next(iter(self.unread.values()), None)
        return None if why is None else f"records can't be read, which is tried again: {why}"

    async def run(self) -> None:
        """Run until cancelled; steps under way are cancelled too and resumed after a restart."""
        events = asyncio.get_running_loop()
        self.loop.wakers.append(told_in(events, self.add))
        listing = asyncio.create_task(self._list())
        listing.add_done_callback(lambda _: self.something.set())
        try:
            while not listing.done():
                self.something.clear()
                for arn in self.queue.take(events.time(), AT_ONCE):
                    self._start(arn)
                pause_s = max(0.0, self.queue.next_time() - events.time())
                # Not wait_for: before Python 3.12 it loses a cancellation that meets its result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if pause_s == NEVER else pause_s):
                        await self.something.wait()
            listing.result()
        finally:
            self.ending = True
            tasks = (listing, *self.running.values())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=END_WITHIN_S)

    def add(self, arn: str) -> None:
        """Have a resource looked at."""
        self.queue.add(arn)
        self.something.set()

    def add_soon(self, arn: str, delay_s: float) -> None:
        """Have a resource looked at after a time, or after the step that runs by then."""
        self.queue.add_at(arn, asyncio.get_running_loop().time() + delay_s)
        self.something.set()

    def changed(self, change: Changed) -> None:
        """Take note of a change of any resource."""
        kind = change.resource.kind
        if kind == self.loop.kind:
            self._own_changed(change)
        elif (about := self.loop.watches.get(kind)) is not None:
            arn = about(change)
            if arn is not None and not self._by_its_step(change, arn):
                self.add_soon(arn, self.loop.watch_delay_s)

    def _own_changed(self, change: Changed) -> None:
        resource, arn = change.resource, change.resource.arn
        if change.new is None or not self.loop.unsettled(resource):
            self.known.pop(arn, None)
            self.unread.pop(arn, None)
            self.queue.remove(arn)
        elif self._by_its_step(change, arn):
            self.known[arn] = resource.version
        else:
            self.add(arn)

    def _by_its_step(self, change: Changed, arn: str) -> bool:
        return change.author is not None and change.author is self.running.get(arn)

    # ------------------------------------------------------------------ what is not settled

    async def _list(self) -> None:
        """List all at the start and once in a while; while that fails, later each time."""
        failures = 0
        while True:
            try:
                found = await self._read(ALL, self.loop.load)
            except BaseException as error:
                if meant(error):
                    raise
                failures += 1
                pause_s = backoff_s(failures)
                text = "the list for the loop %s failed, again in %.1f s"
                logger.error(text, self.loop.kind, pause_s, exc_info=error)
            else:
                failures, pause_s = 0, LIST_S
                self._listed(found)
            await asyncio.sleep(pause_s)

    def _listed(self, found: Sequence[Resource]) -> None:
        """Have everything looked at that no event told of.

        The list is no look: it may be out of date when it is here.
        """
        for resource in found:
            if (
                self.known.get(resource.arn, 0) < resource.version
                and resource.arn not in self.queue
            ):
                self.add(resource.arn)
        alive = {resource.arn for resource in found}
        for arn in self.known:
            if arn not in alive and arn not in self.queue:
                self.add(arn)

    async def _read(self, what: str, read: Callable[..., R], *arguments: str) -> R:
        """Return what is read; while that fails the loop is in trouble."""
        try:
            found = await LOOPS.run(read, *arguments)
        except BaseException as error:
            if not meant(error):
                self.unread[what] = told(error)
            raise
        self.unread.pop(what, None)
        return found

    # ------------------------------------------------------------------ steps

    def _start(self, arn: str) -> None:
        task = self.running[arn] = asyncio.create_task(self._run(arn))
        task.add_done_callback(lambda _: self._ended(arn, task))

    async def _run(self, arn: str) -> float | None:
        """Run one step, if there is something to be done."""
        AUTHOR.set(asyncio.current_task())
        resource = await self._read(arn, self.store.find, arn)
        if resource is None or not self.loop.unsettled(resource):
            self.known.pop(arn, None)
            return None
        self.known[arn] = resource.version
        try:
            return await self.loop.step(resource)
        except BadRecord as error:
            self.unread[arn] = told(error)
            raise

    def _ended(self, arn: str, task: asyncio.Task[float | None]) -> None:
        """Queue a resource again, if its step asks for it or failed."""
        del self.running[arn]
        self.queue.done(arn)
        self.something.set()
        now = asyncio.get_running_loop().time()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, Conflict):
            self.queue.add(arn)  # somebody wrote in between: look again
        elif error is None:
            self.queue.worked(arn)
            pause_s = task.result()
            if pause_s is not None and arn in self.known:
                self.queue.add_at(arn, now + pause_s)
        elif not self.ending:
            pause_s = self.queue.retry(arn, now)
            logger.error("%s: step failed, again in %.1f s", arn, pause_s, exc_info=error)


@dataclass
class Reconciler:
    """Drives loops until cancelled."""

    store: Store
    loops: Sequence[Loop]
    drivers: dict[str, Driver] = field(default_factory=dict)  # by kind
    ended: dict[str, str] = field(default_factory=dict)  # by kind: what ended a loop

    async def run(self) -> None:
        """Run until cancelled; a loop that ends by itself is told of, and the others go on."""
        events = asyncio.get_running_loop()
        self.drivers = {loop.kind: Driver(self.store, loop) for loop in self.loops}
        self.store.on_change(told_in(events, self._changed))
        await asyncio.gather(*(self._drive(driver) for driver in self.drivers.values()))

    def failures(self) -> dict[str, str]:
        """Return, by kind, why a loop can't go on; of those that can nothing."""
        troubled: dict[str, str | None] = {
            kind: driver.trouble for kind, driver in self.drivers.items()
        }
        return {kind: why for kind, why in (troubled | self.ended).items() if why}

    async def _drive(self, driver: Driver) -> None:
        try:
            await driver.run()
        except BaseException as error:
            if meant(error):
                raise
            self.ended[driver.loop.kind] = f"it ended: {told(error)}"
            logger.critical("the loop %s ended", driver.loop.kind, exc_info=error)

    def _changed(self, change: Changed) -> None:
        for kind, driver in self.drivers.items():
            try:
                driver.changed(change)
            except Exception:
                logger.exception("%s: what the loop %s makes of it", change.resource.arn, kind)
                if change.resource.kind == kind:
                    driver.add(change.resource.arn)  # its step will say so too, and is retried


def told_in(events: asyncio.AbstractEventLoop, tell: Callable[[T], None]) -> Callable[[T], None]:
    """Return what calls a function soon, in its event loop, from any thread."""

    def soon(news: T) -> None:
        events.call_soon_threadsafe(tell, news)

    return soon


def meant(error: BaseException) -> bool:
    """Tell whether an error is the cancellation of the task that runs, not one from inside it."""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError)
    return cancelled and task is not None and task.cancelling() > 0


def told(error: BaseException) -> str:
    """Return an error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:512]
