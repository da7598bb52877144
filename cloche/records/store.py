"""Resources and their events: compare-and-swap rows in one database, written in groups.

Reads are synchronous and quick (a primary key look-up takes tens of microseconds) on a connection
of the reading thread. Writes go through one writer thread, which commits what waits in one
transaction (`synchronous=FULL`): a write that returned is on the disk.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from cloche.core.clock import Clock, SystemClock, from_ms, to_ms
from cloche.records import tables as t

T = TypeVar("T")
Document = Mapping[str, Any]
GROUP = 256  # writes that one commit takes at the most


class AlreadyExists(Exception):
    """A resource of this kind and name is there already."""


class Conflict(Exception):
    """The row changed, or went, since it was read; read again and decide again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One named thing of an account in a region.

    `wish` is what a client asked for (operations write it), `document` what was made of it (loops
    write it); both are JSON. `status` is promoted for lists. `version` grows by one with every
    write; a writer that read an older one loses.
    """

    account: str
    region: str
    kind: str  # "training-job", "endpoint", …
    name: str
    arn: str
    status: str = ""
    created: datetime
    modified: datetime
    version: int = 1
    wish: Document = field(default_factory=dict)
    document: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a resource: a status change, or a note (`status` as it was)."""

    at: datetime
    status: str
    message: str


SortBy = Literal["name", "created", "modified", "status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a List operation asks for. `after` is the token of the page before."""

    kind: str
    account: str
    region: str
    name_contains: str | None = None
    name_prefix: str | None = None
    statuses: Sequence[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    modified_after: datetime | None = None
    modified_before: datetime | None = None
    sort_by: SortBy = "created"
    descending: bool = False
    limit: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Resources in order, and the token of the next page where there is one."""

    resources: tuple[Resource, ...]
    next_token: str | None


class Store:
    """The database. Reads may be made on any thread; writes are awaited (or `write_now`)."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.engine = connect(url)
        self.local = threading.local()
        self.queue: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self.listeners: list[Callable[[str], None]] = []
        self.writer = threading.Thread(target=self._write_all, name="records-writer", daemon=True)
        self.writer.start()

    @classmethod
    def open(cls, path: Path, clock: Clock | None = None) -> Store:
        """Open (or make) the SQLite database at `path`, brought to the newest schema."""
        path.parent.mkdir(parents=True, exist_ok=True)
        store = cls(f"sqlite:///{path}", clock)
        store.write_now(t.metadata.create_all)
        return store

    def close(self) -> None:
        """Write what waits, then close."""
        self.queue.put(None)
        self.writer.join()
        self.engine.dispose()

    # ------------------------------------------------------------------ any table

    def read(self) -> Connection:
        """Return this thread's connection for reads: every statement sees the newest commit."""
        connection: Connection | None = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self.local.connection = connection
        return connection

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run `change` in the writer's transaction; return (or raise) what it did once durable.

        What it raises undoes its own statements alone.
        """
        future: Future[T] = Future()
        self.queue.put((change, future))
        return await asyncio.wrap_future(future)

    def write_now(self, change: Callable[[Connection], T]) -> T:
        """As `write`, for threads without an event loop: blocks until durable."""
        future: Future[T] = Future()
        self.queue.put((change, future))
        return future.result()

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener(kind)` (on the writer's thread) after a resource of that kind changed."""
        self.listeners.append(listener)

    # ------------------------------------------------------------------ resources

    def get(self, kind: str, account: str, region: str, name: str) -> Resource | None:
        """Return the resource as last written, or None."""
        key = {"kind": kind, "account": account, "region": region, "name": name}
        row = self.read().execute(t.GET, key).fetchone()
        return resource(row) if row is not None else None

    def find(self, arn: str) -> Resource | None:
        """Return the resource with this ARN, or None."""
        row = self.read().execute(t.FIND, {"arn": arn}).fetchone()
        return resource(row) if row is not None else None

    def each(self, kind: str, statuses: Sequence[str] | None = None) -> list[Resource]:
        """Return all resources of a kind in every account and region, oldest first."""
        query = sa.select(t.resource).where(t.resource.c.kind == kind)
        if statuses is not None:
            query = query.where(t.resource.c.status.in_(statuses))
        query = query.order_by(t.resource.c.created, t.resource.c.name)
        return [resource(row) for row in self.read().execute(query)]

    def page(self, listing: Listing) -> Page:
        """Return one page; the same token gives the page that follows it, whatever came since."""
        rows = self.read().execute(page_query(listing)).fetchall()
        page = tuple(resource(row) for row in rows[: listing.limit])
        if len(rows) <= listing.limit or not page:
            return Page(page, None)
        return Page(page, page_token(page[-1], listing.sort_by))

    def events(self, arn: str) -> list[Event]:
        """Return what happened to a resource, oldest first."""
        query = sa.select(t.event).where(t.event.c.arn == arn).order_by(t.event.c.id)
        return [Event(from_ms(r.at), r.status, r.message) for r in self.read().execute(query)]

    async def insert(self, new: Resource, message: str = "") -> Resource:
        """Add a resource and its first event; AlreadyExists when the name is taken."""
        await self.write(lambda c: insert_in(c, new, message))
        self._changed(new.kind)
        return new

    async def update(
        self,
        old: Resource,
        *,
        status: str | None = None,
        wish: Document | None = None,
        document: Document | None = None,
        message: str | None = None,
    ) -> Resource:
        """Write what is given over `old`, if it is still the newest; Conflict when it is not.

        A new status, or a message, adds one event row in the same transaction.
        """
        new = replace(
            old,
            status=old.status if status is None else status,
            wish=old.wish if wish is None else wish,
            document=old.document if document is None else document,
            modified=self.clock.now(),
            version=old.version + 1,
        )
        await self.write(lambda c: update_in(c, old, new, message))
        self._changed(old.kind)
        return new

    async def delete(self, old: Resource) -> None:
        """Remove a resource and its events, if `old` is still the newest; Conflict when not."""
        await self.write(lambda c: delete_in(c, old))
        self._changed(old.kind)

    # ------------------------------------------------------------------ inside

    def _changed(self, kind: str) -> None:
        for listener in self.listeners:
            listener(kind)

    def _write_all(self) -> None:
        with self.engine.connect() as connection:
            while (first := self.queue.get()) is not None:
                batch, last = [first], False
                while len(batch) < GROUP and not last:
                    try:
                        item = self.queue.get_nowait()
                    except queue.Empty:
                        break
                    if item is None:
                        last = True
                    else:
                        batch.append(item)
                commit_group(connection, batch)
                if last:
                    return


def commit_group(
    connection: Connection, batch: Iterable[tuple[Callable[[Connection], Any], Future[Any]]]
) -> None:
    """Run each change in a savepoint of one transaction; answer the futures after the commit."""
    done: list[tuple[Future[Any], Any, BaseException | None]] = []
    try:
        with connection.begin():
            for change, future in batch:
                savepoint = connection.begin_nested()
                try:
                    done.append((future, change(connection), None))
                    savepoint.commit()
                except BaseException as error:
                    savepoint.rollback()
                    done.append((future, None, error))
    except BaseException as error:
        for _, future in batch:
            future.set_exception(error)
        return
    for future, value, failure in done:
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(value)


def connect(url: str) -> Engine:
    """Return an engine; for SQLite in WAL mode, durable, with transactions begun by us."""
    engine = sa.create_engine(url, pool_size=32, max_overflow=64)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def resource(row: Row[Any]) -> Resource:
    """Return a row as the value the services use."""
    return Resource(
        account=row.account,
        region=row.region,
        kind=row.kind,
        name=row.name,
        arn=row.arn,
        status=row.status,
        created=from_ms(row.created),
        modified=from_ms(row.modified),
        version=row.version,
        wish=json.loads(row.wish),
        document=json.loads(row.document),
    )


def insert_in(connection: Connection, new: Resource, message: str = "") -> None:
    """Add a resource within a transaction of the caller's; AlreadyExists when it is there."""
    row = {
        "account": new.account,
        "region": new.region,
        "kind": new.kind,
        "name": new.name,
        "arn": new.arn,
        "status": new.status,
        "created": to_ms(new.created),
        "modified": to_ms(new.modified),
        "version": new.version,
        "wish": json.dumps(new.wish),
        "document": json.dumps(new.document),
    }
    try:
        connection.execute(t.resource.insert(), row)
    except sa.exc.IntegrityError as error:
        raise AlreadyExists(new.arn) from error
    add_event(connection, new, message)


def update_in(
    connection: Connection, old: Resource, new: Resource, message: str | None = None
) -> None:
    """Write `new` over `old` within a transaction of the caller's; Conflict when it changed."""
    values = {
        "status": new.status,
        "modified": to_ms(new.modified),
        "version": new.version,
        "wish": json.dumps(new.wish),
        "document": json.dumps(new.document),
    }
    if connection.execute(t.same(old).values(values)).rowcount != 1:
        raise Conflict(old.arn)
    if new.status != old.status or message is not None:
        add_event(connection, new, message or "")


def delete_in(connection: Connection, old: Resource) -> None:
    """Remove a resource within a transaction of the caller's; Conflict when it changed."""
    if connection.execute(t.gone(old)).rowcount != 1:
        raise Conflict(old.arn)
    connection.execute(t.event.delete().where(t.event.c.arn == old.arn))


def add_event(connection: Connection, about: Resource, message: str) -> None:
    """Add one event row."""
    connection.execute(
        t.event.insert(),
        {
            "arn": about.arn,
            "at": to_ms(about.modified),
            "status": about.status,
            "message": message,
        },
    )


def page_query(listing: Listing) -> sa.Select[Any]:
    """Return the query of one page and one row more."""
    c = t.resource.c
    query = sa.select(t.resource).where(
        c.kind == listing.kind, c.account == listing.account, c.region == listing.region
    )
    if listing.name_contains is not None:
        query = query.where(sa.func.instr(sa.func.lower(c.name), listing.name_contains.lower()) > 0)
    if listing.name_prefix is not None:
        query = query.where(c.name.startswith(listing.name_prefix, autoescape=True))
    if listing.statuses is not None:
        query = query.where(c.status.in_(listing.statuses))
    for bound, column in (
        (listing.created_after, c.created),
        (listing.modified_after, c.modified),
    ):
        if bound is not None:
            query = query.where(column > to_ms(bound))
    for bound, column in (
        (listing.created_before, c.created),
        (listing.modified_before, c.modified),
    ):
        if bound is not None:
            query = query.where(column < to_ms(bound))
    column = c[listing.sort_by]
    order = (column, c.name) if listing.sort_by != "name" else (c.name,)
    if listing.after is not None:
        last = json.loads(listing.after)
        place = sa.tuple_(*order)
        bound_values = sa.tuple_(*[sa.literal(value) for value in last])
        query = query.where(place < bound_values if listing.descending else place > bound_values)
    query = query.order_by(*[part.desc() if listing.descending else part for part in order])
    return query.limit(listing.limit + 1)


def page_token(last: Resource, sort_by: SortBy) -> str:
    """Return where a page ended."""
    if sort_by == "name":
        return json.dumps([last.name])
    value = {
        "created": to_ms(last.created),
        "modified": to_ms(last.modified),
        "status": last.status,
    }[sort_by]
    return json.dumps([value, last.name])
