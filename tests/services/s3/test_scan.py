"""What a page of a list with a delimiter reads: about as many rows as it shows."""

import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from cloche.records import objects
from cloche.records.objects import KeyRange, ObjectRow
from cloche.records.store import Store
from cloche.services.s3.scan import Entries, common, scan


class Row:
    def __init__(self, key: str) -> None:
        self.key = key


class Index:
    """Keys in order, and how many rows and queries were asked for."""

    def __init__(self, keys: list[str]) -> None:
        self.keys, self.rows, self.queries = sorted(keys), 0, 0

    def fetch(self, start: str, end: str | None, limit: int, inclusive: bool) -> list[Row]:
        found = [
            Row(key)
            for key in self.keys
            if (key >= start if inclusive else key > start) and (end is None or key < end)
        ][:limit]
        self.rows, self.queries = self.rows + len(found), self.queries + 1
        return found


@pytest.mark.parametrize("prefix", ["", "in/"])
def test_folders_of_many_keys_are_skipped(prefix: str) -> None:
    index = Index([f"{prefix}f{f:03d}/k{k:03d}" for f in range(50) for k in range(300)])
    found: Entries[Row] = scan(index.fetch, prefix, "/", "", 1000)
    assert found.prefixes == [f"{prefix}f{f:03d}/" for f in range(50)] and not found.truncated
    assert index.rows < 200 and index.queries < 60


def test_keys_between_folders_are_read_in_growing_batches() -> None:
    index = Index([*(f"a{n:04d}" for n in range(900)), *(f"b/{n:04d}" for n in range(900))])
    found: Entries[Row] = scan(index.fetch, "", "/", "", 1000)
    assert len(found.rows) == 900 and found.prefixes == ["b/"]
    assert index.rows < 2000 and index.queries < 8


def test_pages_show_what_there_is() -> None:
    chance = random.Random(7)
    for _ in range(300):
        keys = {"".join(chance.choices("ab/", k=chance.randint(1, 6))) for _ in range(30)}
        prefix = "".join(chance.choices("ab/", k=chance.randint(0, 2)))
        under = sorted(key for key in keys if key.startswith(prefix))
        expected = list(dict.fromkeys(common(key, prefix, "/") or key for key in under))
        index, after, shown = Index(list(keys)), "", list[str]()
        limit = chance.randint(1, 5)
        while True:
            page: Entries[Row] = scan(index.fetch, prefix, "/", after, limit)
            shown += sorted([row.key for row in page.rows] + page.prefixes)
            if not page.truncated:
                break
            after = page.last
        assert shown == expected


# ---------------------------------------------------------------------- the first keys of prefixes

NUMBERS = count()
TEXT = st.text(alphabet="ab/\0\U0010ffff\ud7ff", max_size=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.open(Path(tmp_path_factory.mktemp("records")) / "cloche.db")
    yield store
    store.close()


def put(store: Store, keys: list[str]) -> str:
    """Put objects into a bucket of their own; return its name."""
    bucket = f"bucket-{next(NUMBERS)}"

    def change(connection: Connection) -> None:
        for key in keys:
            objects.put_object(connection, ObjectRow(bucket, key, 1, "", 0, key, "{}"))

    store.write_now(change)
    return bucket


class Table:
    """The records themselves; counts the statements of each kind."""

    def __init__(self, store: Store, bucket: str, prefix: str, delimiter: str) -> None:
        self.store, self.bucket = store, bucket
        self.prefix, self.delimiter = prefix, delimiter
        self.rows = self.hops = 0

    def fetch(self, start: str, end: str | None, limit: int, inclusive: bool) -> list[ObjectRow]:
        self.rows += 1
        return objects.objects(self.store.read(), self.bucket, start, end, limit, inclusive)

    def first_keys(self, start: str, end: str | None, limit: int) -> list[str] | None:
        self.hops += 1
        place = KeyRange(self.bucket, start, end, limit)
        return objects.first_keys(self.store.read(), place, self.prefix, self.delimiter)


def test_common_prefixes_are_found_by_one_statement(store: Store) -> None:
    bucket = put(store, [f"in/f{f:02d}/k{k:02d}" for f in range(90) for k in range(20)])
    table = Table(store, bucket, "in/", "/")
    find = partial(scan, table.fetch, "in/", "/", first_keys=table.first_keys)
    page = find("", 50)
    assert page.prefixes == [f"in/f{f:02d}/" for f in range(50)] and page.truncated
    rest = find(page.last, 50)
    assert rest.prefixes == [f"in/f{f:02d}/" for f in range(50, 90)] and not rest.truncated
    assert (table.rows, table.hops) == (2, 2)


@given(
    keys=st.sets(TEXT.filter(bool), max_size=30),
    prefix=TEXT,
    delimiter=st.sampled_from(["/", "b", "ab", "\0", "a\U0010ffff", "\U0010ffff"]),
    limit=st.integers(1, 7),
)
def test_they_are_those_that_rows_one_by_one_show(
    store: Store, keys: set[str], prefix: str, delimiter: str, limit: int
) -> None:
    table = Table(store, put(store, sorted(keys)), prefix, delimiter)
    after = ""
    for _ in range(len(keys) + 1):
        rows = scan(table.fetch, prefix, delimiter, after, limit)
        assert rows == scan(
            table.fetch, prefix, delimiter, after, limit, first_keys=table.first_keys
        )
        if not rows.truncated:
            break
        after = rows.last
