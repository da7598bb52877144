"""Resources: compare-and-swap rows in one database, written in groups.

Reads are synchronous and quick (a primary key look-up takes tens of microseconds) on a connection
of the reading thread. Writes go through one writer thread, which commits what waits in one
transaction (`synchronous=FULL`): a write that returned is on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloche.core.clock import Clock, SystemClock
from cloche.records import tables as t
from cloche.records.database import (
    Readers,
    connect,
    private_database,
    refuse_newer,
    scrub,
    upgrade,
)
from cloche.records.errors import AlreadyExists, Conflict, NewerDatabase, NotADatabase, StorageFull
from cloche.records.resource import (
    FIND,
    GET,
    Change,
    Document,
    Listing,
    Page,
    Resource,
    SortBy,
    change_in,
    delete_in,
    insert_in,
    name_token,
    page_query,
    page_token,
    resource,
    update_in,
)
from cloche.records.secrets import SECRETS, Secrets
from cloche.records.writer import Write, Writer

__all__ = [
    "AUTHOR",
    "AlreadyExists",
    "Change",
    "Changed",
    "Conflict",
    "Document",
    "Listing",
    "NewerDatabase",
    "NotADatabase",
    "Page",
    "Resource",
    "SortBy",
    "StorageFull",
    "Store",
    "delete_in",
    "insert_in",
    "update_in",
]

T = TypeVar("T")

# On whose behalf records are written: told with what changed, so that who wrote knows its own.
AUTHOR: ContextVar[object] = ContextVar("author", default=None)


@dataclass(frozen=True, slots=True)
class Changed:
    """What was written of one resource: without `old` it is new, without `new` it is gone."""

    old: Resource | None
    new: Resource | None
    author: object

    @property
    def resource(self) -> Resource:
        """Return the resource as it is, or was."""
        found = self.new or self.old
        assert found is not None
        return found


class Store:
    """The database. Reads may be made on any thread; writes are awaited (or `write_now`).

    A write that finds no space left raises StorageFull, and nothing of it was done.
    """

    def __init__(self, url: str, secrets: Secrets, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.engine = connect(url)
        self.readers = Readers(self.engine)
        self.listeners: list[Callable[[Changed], None]] = []
        self.writer = Writer(self.engine)
        self.secrets = secrets

    @classmethod
    def open(cls, path: Path, clock: Clock | None = None) -> Store:
        """Open (or make) the SQLite database at `path`, brought to the newest schema; beside it
        the one of the secrets. Both are for this user alone (NotPrivate when that can't be).

        NewerDatabase when a newer Cloche wrote it, NotADatabase when it is something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        private_database(path)
        refuse_newer(path)
        secrets = Secrets.open(path.with_name(SECRETS))
        store = cls(f"sqlite:///{path}", secrets, clock)
        try:
            store.write_now(partial(upgrade, secrets=secrets))
            scrub(store.engine)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Write what waits, then close."""
        self.writer.close()
        self.readers.close()
        self.engine.dispose()
        self.secrets.close()

    # ------------------------------------------------------------------ any table

    def read(self) -> Connection:
        """Return this thread's connection for reads: every statement sees the newest commit."""
        return self.readers.get()

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run `change` in the writer's transaction; return (or raise) what it did once durable.

        What it raises undoes its own statements alone.
        """
        return await self._write(change)

    async def _write(self, change: Callable[[Connection], T], *changes: Change) -> T:
        """As `write`; then tell what changed, also when the caller was cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        notify = partial(self._tell, changes, AUTHOR.get()) if changes else None
        self.writer.put(Write(change, future, loop, notify))
        return await future

    def write_now(self, change: Callable[[Connection], T]) -> T:
        """As `write`, for threads without an event loop: blocks until durable."""
        future: Future[T] = Future()
        self.writer.put(Write(change, future, None))
        return future.result()

    def on_change(self, listener: Callable[[Changed], None]) -> None:
        """Call `listener` after a resource changed, in its writer's event loop."""
        self.listeners.append(listener)

    # ------------------------------------------------------------------ resources

    def get(self, kind: str, account: str, region: str, name: str) -> Resource | None:
        """Return the resource as last written, or None."""
        key = {"kind": kind, "account": account, "region": region, "name": name}
        row = GET.row(self.read(), key)
        return resource(row) if row is not None else None

    def find(self, arn: str) -> Resource | None:
        """Return the resource with this ARN, or None."""
        row = FIND.row(self.read(), {"arn": arn})
        return resource(row) if row is not None else None

    def each(self, kind: str, statuses: Sequence[str] | None = None) -> list[Resource]:
        """Return all resources of a kind in every account and region, oldest first."""
        query = sa.select(t.resource).where(t.resource.c.kind == kind)
        if statuses is not None:
            query = query.where(t.resource.c.status.in_(statuses))
        query = query.order_by(t.resource.c.created, t.resource.c.name)
        return [resource(row) for row in self.read().execute(query)]

    def count(self, kind: str, account: str, region: str, *, without: str | None = None) -> int:
        """Return how many resources of a kind there are; `without`: those with another status."""
        c = t.resource.c
        query = sa.select(sa.func.count()).where(
            c.kind == kind, c.account == account, c.region == region
        )
        if without is not None:
            query = query.where(c.status != without)
        return int(self.read().execute(query).scalar_one())

    def page(self, listing: Listing) -> Page:
        """Return one page; the same token gives the page that follows it, whatever came since."""
        rows = self.read().execute(page_query(listing)).fetchall()
        page = tuple(resource(row) for row in rows[: listing.limit])
        if len(rows) <= listing.limit or not page:
            return Page(page, None)
        return Page(page, page_token(page[-1], listing.sort_by))

    def named_after(
        self, kind: str, account: str, region: str, name: str | None
    ) -> Iterator[Resource]:
        """Yield resources of a kind by name, those after one name; read as they are taken."""
        while True:
            after = None if name is None else name_token(name)
            listing = Listing(
                kind=kind, account=account, region=region, sort_by="name", after=after
            )
            page = self.page(listing)
            yield from page.resources
            if page.next_token is None:
                return
            name = page.resources[-1].name

    async def insert(self, new: Resource) -> Resource:
        """Add a resource; AlreadyExists when the name is taken."""
        await self._write(lambda c: insert_in(c, new), Change(new=new))
        return new

    async def update(
        self,
        old: Resource,
        *,
        status: str | None = None,
        desired: Document | None = None,
        document: Document | None = None,
        also: Sequence[Change] = (),
    ) -> Resource:
        """Write what is given over `old`, if it is still the newest; Conflict when it is not.

        `also` are made in the same transaction, or neither is: each may raise Conflict or
        AlreadyExists.
        """
        new = self.newer(old, status=status, desired=desired, document=document)
        await self.change((Change(old=old, new=new), *also))
        return new

    async def change(self, changes: Sequence[Change]) -> None:
        """Make several changes in one transaction, all or none; Conflict, AlreadyExists: none."""

        def change_all(connection: Connection) -> None:
            for change in changes:
                change_in(connection, change)

        await self._write(change_all, *changes)

    def newer(
        self,
        old: Resource,
        *,
        status: str | None = None,
        desired: Document | None = None,
        document: Document | None = None,
    ) -> Resource:
        """Return `old` with what is given, as `update` writes it; nothing is written here."""
        return replace(
            old,
            status=old.status if status is None else status,
            desired=old.desired if desired is None else desired,
            document=old.document if document is None else document,
            modified=self.clock.now(),
            version=old.version + 1,
        )

    async def delete(self, old: Resource) -> None:
        """Remove a resource, if `old` is still the newest; Conflict when not."""
        await self._write(lambda c: delete_in(c, old), Change(old=old))

    def _tell(self, changes: Sequence[Change], author: object) -> None:
        for change in changes:
            for listener in self.listeners:
                listener(Changed(change.old, change.new, author))
