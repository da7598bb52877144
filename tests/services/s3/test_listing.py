"""Lists on the wire, and the scan behind them against a plain model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import refused

from cloche.services.s3.scan import scan

KEYS = ["a", "a/1", "a/2", "b/1/x", "b/1/y", "b/2", "c d+é&", "z", "ｆullwidth", "😀"]


@pytest.fixture(scope="module")
def filled(s3: Any) -> str:
    s3.create_bucket(Bucket="listing-1")
    for key in KEYS:
        s3.put_object(Bucket="listing-1", Key=key, Body=b"x")
    return "listing-1"


def keys(page: Any) -> list[str]:
    return [one["Key"] for one in page.get("Contents", ())]


def prefixes(page: Any) -> list[str]:
    return [one["Prefix"] for one in page.get("CommonPrefixes", ())]


def test_order_is_that_of_the_bytes(s3: Any, filled: str) -> None:
    expected = sorted(KEYS, key=str.encode)
    assert keys(s3.list_objects_v2(Bucket=filled)) == expected
    assert keys(s3.list_objects(Bucket=filled)) == expected


def test_prefix_and_delimiter(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, Delimiter="/")
    assert keys(page) == ["a", "c d+é&", "z", "ｆullwidth", "😀"]
    assert prefixes(page) == ["a/", "b/"]
    assert page["KeyCount"] == 7
    page = s3.list_objects_v2(Bucket=filled, Delimiter="/", Prefix="b/")
    assert (keys(page), prefixes(page)) == (["b/2"], ["b/1/"])
    page = s3.list_objects_v2(Bucket=filled, Prefix="a/")
    assert keys(page) == ["a/1", "a/2"]
    assert keys(s3.list_objects_v2(Bucket=filled, Prefix="none")) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages(s3: Any, filled: str, size: int) -> None:
    for arguments in ({}, {"Delimiter": "/"}, {"Delimiter": "/", "Prefix": "b/"}):
        whole = s3.list_objects_v2(Bucket=filled, **arguments)
        for name in ("list_objects_v2", "list_objects"):
            pages = s3.get_paginator(name).paginate(
                Bucket=filled, PaginationConfig={"PageSize": size}, **arguments
            )
            seen = list(pages)
            assert list(itertools.chain.from_iterable(map(keys, seen))) == keys(whole)
            assert list(itertools.chain.from_iterable(map(prefixes, seen))) == prefixes(whole)
            assert all(len(keys(p)) + len(prefixes(p)) == size for p in seen[:-1])


def test_start_after_owner_and_no_keys(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, StartAfter="b/1/x", FetchOwner=True, MaxKeys=2)
    assert keys(page) == ["b/1/y", "b/2"]
    assert page["StartAfter"] == "b/1/x"
    assert len(page["Contents"][0]["Owner"]["ID"]) == 64
    assert page["IsTruncated"]
    page = s3.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert (page["IsTruncated"], page["KeyCount"]) == (False, 0)
    page = s3.list_objects(Bucket=filled, Marker="b/2", MaxKeys=1)
    assert keys(page) == ["c d+é&"]
    assert "NextMarker" not in page  # only with a delimiter
    page = s3.list_objects(Bucket=filled, Delimiter="/", MaxKeys=2)
    assert page["NextMarker"] == "a/"


def test_entries(s3: Any, filled: str) -> None:
    one = s3.list_objects_v2(Bucket=filled, MaxKeys=1)["Contents"][0]
    assert one["ETag"] == '"9dd4e461268c8034f5c8564e155c67a6"'
    assert (one["Size"], one["StorageClass"], one["ChecksumAlgorithm"]) == (
        1,
        "STANDARD",
        ["CRC32"],
    )


def test_wrong_arguments(s3: Any, filled: str) -> None:
    refused(
        "InvalidArgument",
        "The continuation token provided is incorrect",
        400,
        lambda: s3.list_objects_v2(Bucket=filled, ContinuationToken="?"),
    )
    refused(
        "InvalidArgument",
        "Argument max-keys must be an integer between 0 and 2147483647",
        400,
        lambda: s3.list_objects_v2(Bucket=filled, MaxKeys=-1),
    )


@dataclass(frozen=True)
class Row:
    key: str


TEXT = st.text(alphabet="ab/\U0010ffff\ud7ff", max_size=5)


@given(
    keys=st.sets(TEXT.filter(bool), max_size=30),
    prefix=TEXT,
    delimiter=st.sampled_from(["", "/", "b", "ab"]),
    limit=st.integers(1, 7),
)
def test_scan_pages_as_a_plain_model_says(
    keys: set[str], prefix: str, delimiter: str, limit: int
) -> None:
    ordered = sorted(keys)

    def fetch(start: str, end: str | None, limit: int, inclusive: bool) -> list[Row]:
        found = [
            Row(key)
            for key in ordered
            if (key >= start if inclusive else key > start) and (end is None or key < end)
        ]
        return found[:limit]

    expected: list[str] = []
    for key in ordered:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            entry = key[: at + len(delimiter)] if at >= 0 else key
            if entry not in expected:
                expected.append(entry)
    seen: list[str] = []
    after = ""
    for _ in range(len(expected) + 1):
        page = scan(fetch, prefix, delimiter, after, limit)
        seen += sorted([row.key for row in page.rows] + page.prefixes)
        assert len(page.rows) + len(page.prefixes) <= limit
        if not page.truncated:
            break
        after = page.last
    assert seen == expected
