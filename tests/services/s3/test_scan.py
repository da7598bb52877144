"""What a page of a list with a delimiter reads: about as many rows as it shows."""

import random

import pytest

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
