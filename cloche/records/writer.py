"""The one thread that writes: it commits what waits in one transaction, then answers."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, Engine

from cloche.records.errors import StorageFull, storage_full

GROUP = 256  # writes that one commit takes at the most

Change = Callable[[Connection], Any]


@dataclass(slots=True)
class Write:
    """A change that waits for its commit, and who is notified."""

    change: Change
    reply: asyncio.Future[Any] | Future[Any]
    loop: asyncio.AbstractEventLoop | None  # of an asyncio reply
    notify: Callable[[], None] | None = None  # called when it is durable, whoever still waits
    value: Any = None
    error: BaseException | None = None


class Writer:
    """Makes changes durable, in the order they came."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="records-writer", daemon=True)
        self.thread.start()

    def put(self, write: Write) -> None:
        """Have a change made; its reply is settled once it is durable, or has failed."""
        if self.closed:
            raise RuntimeError("the database is closed")
        self.queue.put(write)

    def close(self) -> None:
        """Write what waits, then end."""
        self.closed = True
        self.queue.put(None)
        self.thread.join()

    def _run(self) -> None:
        with self.engine.connect() as connection:
            while (first := self.queue.get()) is not None:
                batch, last = [first], False
                while len(batch) < GROUP and not last:
                    try:
                        write = self.queue.get_nowait()
                    except queue.Empty:
                        break
                    if write is None:
                        last = True
                    else:
                        batch.append(write)
                commit_group(connection, batch)
                answer(batch)
                if last:
                    return


def commit_group(connection: Connection, batch: list[Write]) -> None:
    """Run each change in a savepoint of one transaction, and commit; note how each fared.

    A change that raises undoes itself alone. When the transaction fails (the disk is full) all
    changes of the group have failed.
    """
    try:
        with connection.begin():
            cursor = connection.connection.cursor()
            for write in batch:
                cursor.execute("SAVEPOINT change")
                try:
                    write.value = write.change(connection)
                except BaseException as error:
                    if storage_full(error):
                        raise
                    write.error = error
                    cursor.execute("ROLLBACK TO SAVEPOINT change")
                cursor.execute("RELEASE SAVEPOINT change")
    except BaseException as error:
        failure: BaseException = StorageFull() if storage_full(error) else error
        for write in batch:
            write.error = write.error or failure


def answer(batch: list[Write]) -> None:
    """Settle the replies: one call into each event loop, however many wait there."""
    loops: dict[asyncio.AbstractEventLoop, list[Write]] = {}
    for write in batch:
        if write.loop is None:
            settle([write])
        else:
            loops.setdefault(write.loop, []).append(write)
    for loop, writes in loops.items():
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, writes)


def settle(writes: list[Write]) -> None:
    """Hand each result, or failure, to who waits for it (and has not given up)."""
    for write in writes:
        if write.error is None and write.notify is not None:
            write.notify()
        if write.reply.done():
            continue
        if write.error is not None:
            write.reply.set_exception(write.error)
        else:
            write.reply.set_result(write.value)
