"""Named executors: what blocks runs on threads of its kind; no long task delays a short one.

Each name has threads of its own, made when they are first needed, for each event loop that asks
(as asyncio's default executor, which is left to the look-ups of host names). `close` ends those of
the running loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")
Pools = dict[str, ThreadPoolExecutor]


@dataclass(frozen=True, slots=True)
class Executor:
    """Threads for one kind of work: so many tasks run at a time, further ones wait in order."""

    name: str
    threads: int

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks, in the caller's context; return (or raise) what it does.

        Work that has begun goes on when the caller is cancelled.
        """
        context = contextvars.copy_context()
        call = partial(context.run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool(), call)

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have work done that nobody waits for; called on the event loop."""
        return self._pool().submit(work, *args, **kwargs)

    def _pool(self) -> ThreadPoolExecutor:
        pools = of_loops.setdefault(asyncio.get_running_loop(), {})
        pool = pools.get(self.name)
        if pool is None:
            pool = pools[self.name] = ThreadPoolExecutor(self.threads, self.name)
        return pool


of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Pools] = WeakKeyDictionary()

# Short: milliseconds each.
ENGINE = Executor("engine", 4)  # how gangs are: their states, what they use, the capacity
RECORDS = Executor("records", 4)  # reads of many rows; a look-up of one takes less than the hop
LOOPS = Executor("loops", 2)  # the record of each step; what is not settled
S3_READ = Executor("s3-read", 16)  # pieces of objects, pages of lists
S3_WRITE = Executor("s3-write", 16)  # a batch of a payload is hashed and written; waits for fsync
LOGS = Executor("logs", 4)  # a page of a log stream's events, or some that are added
MESSAGES = Executor("messages", 2)  # requests of hundreds of kilobytes are hashed and parsed
CERTIFICATES = Executor("certificates", 2)  # a key pair is made for each name of a host
# Longer: seconds, some of them minutes.
LAUNCHES = Executor("launches", 8)  # of gangs
ENDINGS = Executor("endings", 4)  # gangs are asked to end, and cleared away
FILES = Executor("files", 16)  # as long as files are: inputs, archives, checkpoints, removals
BUILDS = Executor("builds", 4)  # what packages need: environments, layers
SEARCH = Executor("search", 2)  # the next trials of a tuning job
EVENTS = Executor("events", 2)  # the log of events is looked through
LOG_SEARCH = Executor("log-search", 2)  # FilterLogEvents: up to 200,000 records a page
SIMULATIONS = Executor("simulations", 2)  # of IAM: every policy asked for each result of a page
PATTERNS = Executor("patterns", 2)  # users' regular expressions
PASSWORDS = Executor("passwords", 1)  # a hash is meant to be slow: 50 ms of a core, 16 MiB
OUTSIDE = Executor("outside", 16)  # the real S3: as many as there may be requests to it

EXECUTORS = (
    ENGINE,
    RECORDS,
    LOOPS,
    S3_READ,
    S3_WRITE,
    LOGS,
    MESSAGES,
    CERTIFICATES,
    LAUNCHES,
    ENDINGS,
    FILES,
    BUILDS,
    SEARCH,
    EVENTS,
    LOG_SEARCH,
    SIMULATIONS,
    PATTERNS,
    PASSWORDS,
    OUTSIDE,
)


async def close() -> None:
    """End the running loop's threads, once they have done what was submitted."""
    loop = asyncio.get_running_loop()
    while pools := of_loops.pop(loop, None):
        for pool in pools.values():
            await loop.run_in_executor(None, pool.shutdown)
