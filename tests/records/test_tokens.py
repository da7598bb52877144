"""Tokens of pages: what is none of ours is refused, whatever it holds."""

import pytest

from cloche.records.resource import SortBy, place_of


@pytest.mark.parametrize(
    ("token", "sort_by", "place"),
    [
        ('["a"]', "name", ["a"]),
        ('[5, "a"]', "created", [5, "a"]),
        ('[5, "a"]', "modified", [5, "a"]),
        ('["InService", "a"]', "status", ["InService", "a"]),
    ],
)
def test_tokens_of_ours(token: str, sort_by: SortBy, place: list[int | str]) -> None:
    assert place_of(token, sort_by) == place


NONE_OF_OURS = ["", "x", "null", "{}", "[]", "[1]", '"a"', "[1e400]", '[true, "a"]', '[[1], "a"]',
                "[null, null]", "[{}, {}]", '[9223372036854775808, "a"]', "[" * 8000]  # fmt: skip


@pytest.mark.parametrize("sort_by", ["name", "created", "modified", "status"])
@pytest.mark.parametrize("token", NONE_OF_OURS)
def test_tokens_of_others(token: str, sort_by: SortBy) -> None:
    with pytest.raises(ValueError):
        place_of(token, sort_by)
