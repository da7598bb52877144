"""Buckets, objects, uploads and their parts: the index of what lies in the blob store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloche.records import tables as t
from cloche.records.prefix import successor
from cloche.records.statements import PreparedStatement


class BucketRow(NamedTuple):
    """A bucket; `created` in milliseconds since 1970."""

    name: str
    account: str
    region: str
    created: int


class ObjectRow(NamedTuple):
    """An object; `etag` without quotes, `blob` the id of its content, `document` JSON."""

    bucket: str
    key: str
    size: int  # bytes
    etag: str
    modified: int  # milliseconds since 1970
    blob: str
    document: str


class UploadRow(NamedTuple):
    """A multipart upload under way; `document` is JSON as an object's."""

    bucket: str
    key: str
    id: str
    created: int
    document: str
    initiator: str  # ARN


class PartRow(NamedTuple):
    """A part of an upload; `checksums` is JSON: algorithm to base64."""

    upload: str
    number: int
    size: int
    etag: str
    modified: int
    blob: str
    checksums: str


def parameters(table: sa.Table, *names: str) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that columns equal the parameters of the same name."""
    return [table.c[name] == sa.bindparam(name) for name in names]


def replacement(table: sa.Table) -> PreparedStatement:
    """Return an INSERT that writes over the row with the same primary key.

    `ON CONFLICT … DO UPDATE` is spelt alike in SQLite and PostgreSQL.
    """
    columns = [column.name for column in table.columns]
    key = [column.name for column in table.primary_key]
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in key)
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f":{name}" for name in columns)
    conflict = ", ".join(f'"{name}"' for name in key)
    return PreparedStatement(
        sa.text(
            f'INSERT INTO "{table.name}" ({names}) VALUES ({values}) '
            f"ON CONFLICT ({conflict}) DO UPDATE SET {sets}"
        )
    )


BUCKET = PreparedStatement(sa.select(t.bucket).where(*parameters(t.bucket, "name")))
BUCKETS = PreparedStatement(
    sa.select(t.bucket)
    .where(*parameters(t.bucket, "account"), t.bucket.c.name > sa.bindparam("after"))
    .order_by(t.bucket.c.name)
    .limit(sa.bindparam("limit"))
)
ADD_BUCKET = PreparedStatement(t.bucket.insert())
DELETE_BUCKET = PreparedStatement(t.bucket.delete().where(*parameters(t.bucket, "name")))

SETTING = PreparedStatement(
    sa.select(t.bucket_setting.c.document).where(*parameters(t.bucket_setting, "bucket", "kind"))
)
SET_SETTING = replacement(t.bucket_setting)
DELETE_SETTING = PreparedStatement(
    t.bucket_setting.delete().where(*parameters(t.bucket_setting, "bucket", "kind"))
)
DELETE_SETTINGS = PreparedStatement(
    t.bucket_setting.delete().where(*parameters(t.bucket_setting, "bucket"))
)

OBJECT = PreparedStatement(sa.select(t.object_).where(*parameters(t.object_, "bucket", "key")))
PUT_OBJECT = replacement(t.object_)
DELETE_OBJECT = PreparedStatement(t.object_.delete().where(*parameters(t.object_, "bucket", "key")))
SET_DOCUMENT = PreparedStatement(
    t.object_.update()
    .where(*parameters(t.object_, "bucket", "key"))
    .values(document=sa.bindparam("new_document"))
)

UPLOAD = PreparedStatement(sa.select(t.upload).where(*parameters(t.upload, "bucket", "key", "id")))
ADD_UPLOAD = PreparedStatement(t.upload.insert())
DELETE_UPLOAD = PreparedStatement(
    t.upload.delete().where(*parameters(t.upload, "bucket", "key", "id"))
)

PART = PreparedStatement(sa.select(t.part).where(*parameters(t.part, "upload", "number")))
PARTS = PreparedStatement(
    sa.select(t.part)
    .where(*parameters(t.part, "upload"), t.part.c.number > sa.bindparam("after"))
    .order_by(t.part.c.number)
    .limit(sa.bindparam("limit"))
)
PUT_PART = replacement(t.part)
DELETE_PARTS = PreparedStatement(t.part.delete().where(*parameters(t.part, "upload")))

ALL_PARTS = 10_000  # S3's highest part number


def range_of(
    table: sa.Table, from_: bool, until: bool, order: Sequence[sa.ColumnElement[Any]]
) -> PreparedStatement:
    """Return the query of one bucket's rows by key, from `start` on (or after it), before `end`."""
    query = sa.select(table).where(*parameters(table, "bucket"))
    start: sa.BindParameter[str] = sa.bindparam("start")
    query = query.where(table.c.key >= start if from_ else table.c.key > start)
    if until:
        query = query.where(table.c.key < sa.bindparam("end"))
    return PreparedStatement(query.order_by(*order).limit(sa.bindparam("limit")))


CASES = [(from_, until) for from_ in (False, True) for until in (False, True)]
OBJECTS = {case: range_of(t.object_, *case, order=[t.object_.c.key]) for case in CASES}
UPLOADS = {case: range_of(t.upload, *case, order=[t.upload.c.key, t.upload.c.id]) for case in CASES}


# From the first key on: as long as a key has the delimiter behind the prefix, the first one behind
# all that have the key's beginning up to there. As bytes: SQLite's functions end a text at a NUL.
FIRST_KEY = """
    SELECT {next}."key" FROM "object" AS {next}
    WHERE {next}."bucket" = :bucket AND {next}."key" >= {start}
    AND (:end IS NULL OR {next}."key" < :end) ORDER BY {next}."key" LIMIT 1
"""
AT = 'instr(substr(CAST(hop."key" AS BLOB), :skipped + 1), :delimiter)'
BEHIND = f'CAST(substr(CAST(hop."key" AS BLOB), 1, :skipped + {AT} - 1) AS TEXT) || :successor'
FIRST_KEYS = PreparedStatement(
    sa.text(
        f"""
        WITH RECURSIVE hop("key", number) AS (
            SELECT ({FIRST_KEY.format(next="first", start=":start")}), 1
            UNION ALL
            SELECT ({FIRST_KEY.format(next="next", start=BEHIND)}), number + 1
            FROM hop WHERE {AT} > 0 AND number < :limit
        ) SELECT "key" FROM hop WHERE "key" IS NOT NULL
        """
    )
)


class KeyRange(NamedTuple):
    """Keys of a bucket, from `start` on and before `end`: so many at the most."""

    bucket: str
    start: str
    end: str | None
    limit: int


def first_keys(
    connection: Connection, place: KeyRange, prefix: str, delimiter: str
) -> list[str] | None:
    """Return the first key of each common prefix, up to the first key that has none (it is the
    last, then); None when no text is above all that begin with the delimiter.

    It takes a look-up each, however many keys the common prefixes have.
    """
    following = successor(delimiter)
    if following is None:
        return None
    parts = {
        "delimiter": delimiter.encode(),
        "skipped": len(prefix.encode()),
        "successor": following,
    }
    return [key for (key,) in FIRST_KEYS.rows(connection, place._asdict() | parts)]


def find_bucket(connection: Connection, name: str) -> BucketRow | None:
    """Return the bucket, or None."""
    row = BUCKET.row(connection, {"name": name})
    return BucketRow(*row) if row is not None else None


def buckets(connection: Connection, account: str, after: str, limit: int) -> list[BucketRow]:
    """Return an account's buckets in order of name, those after a name."""
    rows = BUCKETS.rows(connection, {"account": account, "after": after, "limit": limit})
    return [BucketRow(*row) for row in rows]


def add_bucket(connection: Connection, new: BucketRow) -> None:
    """Add a bucket that is not there yet."""
    ADD_BUCKET.run(connection, new._asdict())


def delete_bucket(connection: Connection, name: str) -> None:
    """Remove a bucket's row, and what was set for it."""
    DELETE_SETTINGS.run(connection, {"bucket": name})
    DELETE_BUCKET.run(connection, {"name": name})


def bucket_setting(connection: Connection, bucket: str, kind: str) -> str | None:
    """Return what was set for a bucket, as JSON; None when nothing was."""
    row = SETTING.row(connection, {"bucket": bucket, "kind": kind})
    return str(row[0]) if row is not None else None


def set_bucket_setting(
    connection: Connection, bucket: str, kind: str, document: str | None
) -> None:
    """Set something for a bucket, in place of what was set; None: nothing is any more."""
    if document is None:
        DELETE_SETTING.run(connection, {"bucket": bucket, "kind": kind})
        return
    SET_SETTING.run(connection, {"bucket": bucket, "kind": kind, "document": document})


def find_object(connection: Connection, bucket: str, key: str) -> ObjectRow | None:
    """Return the object, or None."""
    row = OBJECT.row(connection, {"bucket": bucket, "key": key})
    return ObjectRow(*row) if row is not None else None


def put_object(connection: Connection, new: ObjectRow) -> None:
    """Write an object's row, over the one that is there."""
    PUT_OBJECT.run(connection, new._asdict())


def set_document(connection: Connection, bucket: str, key: str, document: str) -> None:
    """Change an object's document alone."""
    SET_DOCUMENT.run(connection, {"bucket": bucket, "key": key, "new_document": document})


def delete_object(connection: Connection, bucket: str, key: str) -> None:
    """Remove an object's row."""
    DELETE_OBJECT.run(connection, {"bucket": bucket, "key": key})


def objects(
    connection: Connection, bucket: str, start: str, end: str | None, limit: int, inclusive: bool
) -> list[ObjectRow]:
    """Return a bucket's objects by key: from `start` on (`inclusive`) or after it, before `end`."""
    place = {"bucket": bucket, "start": start, "end": end, "limit": limit}
    rows = OBJECTS[inclusive, end is not None].rows(connection, place)
    return [ObjectRow(*row) for row in rows]


def uploads(
    connection: Connection, bucket: str, start: str, end: str | None, limit: int, inclusive: bool
) -> list[UploadRow]:
    """Return a bucket's uploads by key and id, bounded as `objects`."""
    place = {"bucket": bucket, "start": start, "end": end, "limit": limit}
    rows = UPLOADS[inclusive, end is not None].rows(connection, place)
    return [UploadRow(*row) for row in rows]


def find_upload(connection: Connection, bucket: str, key: str, id: str) -> UploadRow | None:
    """Return the upload, or None."""
    row = UPLOAD.row(connection, {"bucket": bucket, "key": key, "id": id})
    return UploadRow(*row) if row is not None else None


def add_upload(connection: Connection, new: UploadRow) -> None:
    """Add an upload."""
    ADD_UPLOAD.run(connection, new._asdict())


def delete_upload(connection: Connection, upload: UploadRow) -> list[str]:
    """Remove an upload and its parts; return the blobs that the parts had."""
    blobs = [part.blob for part in parts(connection, upload.id)]
    DELETE_PARTS.run(connection, {"upload": upload.id})
    DELETE_UPLOAD.run(connection, {"bucket": upload.bucket, "key": upload.key, "id": upload.id})
    return blobs


def find_part(connection: Connection, upload: str, number: int) -> PartRow | None:
    """Return the part, or None."""
    row = PART.row(connection, {"upload": upload, "number": number})
    return PartRow(*row) if row is not None else None


def parts(
    connection: Connection, upload: str, after: int = 0, limit: int = ALL_PARTS
) -> list[PartRow]:
    """Return an upload's parts by number, those after a number."""
    rows = PARTS.rows(connection, {"upload": upload, "after": after, "limit": limit})
    return [PartRow(*row) for row in rows]


def put_part(connection: Connection, new: PartRow) -> None:
    """Write a part's row, over the one that is there."""
    PUT_PART.run(connection, new._asdict())


def blobs(connection: Connection) -> set[str]:
    """Return the ids of all blobs that some row names."""
    query = sa.union_all(sa.select(t.object_.c.blob), sa.select(t.part.c.blob))
    return set(connection.execute(query).scalars())


# ---------------------------------------------------------------- of all buckets, to be checked

PAGE = 1000  # rows read at a time: a long read would keep the database's log from being emptied


def total_size(connection: Connection) -> int:
    """Return the bytes of all contents."""
    total = 0
    for table in (t.object_, t.part):
        query = sa.select(sa.func.coalesce(sa.func.sum(table.c.size), 0))
        total += connection.execute(query).scalar_one()
    return total


def every_object(connection: Connection) -> Iterator[ObjectRow]:
    """Yield all objects, a page at a time."""
    names = connection.execute(sa.select(t.bucket.c.name).order_by(t.bucket.c.name)).scalars().all()
    for bucket in names:
        start, inclusive = "", True
        while page := objects(connection, bucket, start, None, PAGE, inclusive):
            yield from page
            start, inclusive = page[-1].key, False


def every_part(connection: Connection) -> Iterator[PartRow]:
    """Yield all parts of all uploads that are under way."""
    uploads = connection.execute(sa.select(t.part.c.upload).distinct()).scalars().all()
    for upload in uploads:
        query = sa.select(t.part).where(t.part.c.upload == upload).order_by(t.part.c.number)
        yield from [PartRow(*row) for row in connection.execute(query)]


def is_part(connection: Connection, part: PartRow) -> bool:
    """Return whether there is (still) such a part with this content."""
    query = sa.select(t.part.c.number).where(t.part.c.blob == part.blob)
    return connection.execute(query).first() is not None


def part_sizes(row: ObjectRow) -> list[int]:
    """Return the sizes of the parts that an object was uploaded in."""
    return [size for size, _ in json.loads(row.document).get("parts", ())]
