"""Resources as the services see them, and the rows behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NoReturn

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloche.core.clock import from_ms, to_ms
from cloche.core.typed import BadRecord
from cloche.records import tables as t
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.prefix import successor
from cloche.records.statements import PreparedStatement

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable(Mapping[str, Any]):
    """What is no JSON object: whoever looks into it gets BadRecord; it is written as it was read.

    So a damaged row is the trouble of who needs what it holds, not of who lists it.
    """

    text: str
    why: str

    def __getitem__(self, name: str) -> NoReturn:
        raise BadRecord(self.why)

    def __iter__(self) -> Iterator[str]:
        raise BadRecord(self.why)

    def __len__(self) -> int:
        raise BadRecord(self.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One named thing of an account in a region.

    `desired` is what a client asked for (operations write it), `document` what was made of it
    (loops write it); both are JSON. `status` is promoted for lists. `version` grows by one with
    every write; a writer that read an older one loses.
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
    desired: Document = field(default_factory=dict)
    document: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One of several writes that are made together: without `old` an insert, without `new` a
    delete.
    """

    old: Resource | None = None
    new: Resource | None = None


SortBy = Literal["name", "created", "modified", "status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a List operation asks for. `after` is the token of the page before."""

    kind: str
    account: str
    region: str
    name_contains: str | None = None
    name_has: str | None = None  # as name_contains, but upper and lower case count
    name_prefix: str | None = None  # upper and lower case count
    statuses: Sequence[str] | None = None
    document_has: tuple[tuple[str, ...], str] | None = None  # a path in the document, its text
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


KEY = [t.resource.c[name] == sa.bindparam(name) for name in ("kind", "account", "region", "name")]
NEWEST = [*KEY, t.resource.c.version == sa.bindparam("old_version")]
CHANGED = ("status", "modified", "version", "desired", "document")
GET = PreparedStatement(sa.select(t.resource).where(*KEY))
FIND = PreparedStatement(sa.select(t.resource).where(t.resource.c.arn == sa.bindparam("arn")))
INSERT = PreparedStatement(t.resource.insert())
UPDATE = PreparedStatement(
    t.resource.update().where(*NEWEST).values({n: sa.bindparam(f"new_{n}") for n in CHANGED})
)
DELETE = PreparedStatement(t.resource.delete().where(*NEWEST))


def resource(row: Sequence[Any]) -> Resource:
    """Return a row of the table, columns in its order, as the value the services use."""
    kind, account, region, name, arn, status, created, modified, version, desired, document = row
    return Resource(
        account=account,
        region=region,
        kind=kind,
        name=name,
        arn=arn,
        status=status,
        created=from_ms(created),
        modified=from_ms(modified),
        version=version,
        desired=loaded(desired, arn, "desired"),
        document=loaded(document, arn, "document"),
    )


def loaded(text: str, arn: str, column: str) -> Document:
    """Return what a column holds."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        return Unreadable(text, f"{arn} ({column}): {error}")
    if not isinstance(found, dict):
        return Unreadable(text, f"{arn} ({column}): no JSON object")
    return found


def dumped(document: Document) -> str:
    """Return what a column is to hold."""
    return document.text if isinstance(document, Unreadable) else json.dumps(document)


def identity(of: Resource) -> dict[str, object]:
    """Return the values of the primary key."""
    return {"kind": of.kind, "account": of.account, "region": of.region, "name": of.name}


def insert_in(connection: Connection, new: Resource) -> None:
    """Add a resource within a transaction of the caller's; AlreadyExists when it is there."""
    row = {
        **identity(new),
        "arn": new.arn,
        "status": new.status,
        "created": to_ms(new.created),
        "modified": to_ms(new.modified),
        "version": new.version,
        "desired": dumped(new.desired),
        "document": dumped(new.document),
    }
    try:
        INSERT.run(connection, row)
    except connection.dialect.loaded_dbapi.IntegrityError as error:
        raise AlreadyExists(new.arn) from error


def update_in(connection: Connection, old: Resource, new: Resource) -> None:
    """Write `new` over `old` within a transaction of the caller's; Conflict when it changed."""
    values = {
        **identity(old),
        "old_version": old.version,
        "new_status": new.status,
        "new_modified": to_ms(new.modified),
        "new_version": new.version,
        "new_desired": dumped(new.desired),
        "new_document": dumped(new.document),
    }
    if UPDATE.run(connection, values) != 1:
        raise Conflict(old.arn)


def delete_in(connection: Connection, old: Resource) -> None:
    """Remove a resource within a transaction of the caller's; Conflict when it changed."""
    if DELETE.run(connection, {**identity(old), "old_version": old.version}) != 1:
        raise Conflict(old.arn)


def change_in(connection: Connection, change: Change) -> None:
    """Make one change within a transaction of the caller's; Conflict or AlreadyExists."""
    if change.old is None:
        assert change.new is not None
        insert_in(connection, change.new)
    elif change.new is None:
        delete_in(connection, change.old)
    else:
        update_in(connection, change.old, change.new)


def page_query(listing: Listing) -> sa.Select[Any]:
    """Return the query of one page and one row more."""
    c = t.resource.c
    query = sa.select(t.resource).where(
        c.kind == listing.kind, c.account == listing.account, c.region == listing.region
    )
    if listing.name_contains is not None:
        query = query.where(sa.func.instr(sa.func.lower(c.name), listing.name_contains.lower()) > 0)
    if listing.name_prefix is not None:
        query = query.where(c.name >= listing.name_prefix)  # a range, for the key's index
        end = successor(listing.name_prefix)
        if end is not None:
            query = query.where(c.name < end)
    if listing.name_has is not None:
        query = query.where(sa.func.instr(c.name, listing.name_has) > 0)
    if listing.statuses is not None:
        query = query.where(c.status.in_(listing.statuses))
    if listing.document_has is not None:
        path, text = listing.document_has
        found = sa.type_coerce(c.document, sa.JSON)[path].as_string()
        found = sa.case((sa.func.json_valid(c.document) == 1, found))  # else it is an error
        query = query.where(found == text)
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
        last = place_of(listing.after, listing.sort_by)
        place = sa.tuple_(*order)
        bound_values = sa.tuple_(*[sa.literal(value) for value in last])
        query = query.where(place < bound_values if listing.descending else place > bound_values)
    query = query.order_by(*[part.desc() if listing.descending else part for part in order])
    return query.limit(listing.limit + 1)


def page_token(last: Resource, sort_by: SortBy) -> str:
    """Return where a page ended."""
    if sort_by == "name":
        return name_token(last.name)
    value = {
        "created": to_ms(last.created),
        "modified": to_ms(last.modified),
        "status": last.status,
    }[sort_by]
    return json.dumps([value, last.name])


def name_token(name: str) -> str:
    """Return the token of the page that follows a name, in a list ordered by name."""
    return json.dumps([name])


def place_of(token: str, sort_by: SortBy) -> list[int | str]:
    """Return where the page of a token ended; ValueError when it is none of this order."""
    try:
        place = json.loads(token)
    except RecursionError as error:
        raise ValueError("the token is nested") from error
    kinds = {"name": [str], "status": [str, str]}.get(sort_by, [int, str])
    if not isinstance(place, list) or [type(value) for value in place] != kinds:
        raise ValueError(f"the token is not of a list ordered by {sort_by}")
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in place):
        raise ValueError("the token is out of range")
    return place
