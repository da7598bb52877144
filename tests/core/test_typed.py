import json
from collections.abc import Mapping
from enum import StrEnum

import pytest

from cloche.core.typed import BadRecord, Record, decode, encode

WHERE = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"


class Colour(StrEnum):
    RED = "Red"


class Leaf(Record, frozen=True, kw_only=True):
    colour: Colour
    at_ms: int = 0


class Tree(Record, frozen=True, kw_only=True):
    name: str = ""
    first: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    by_name: Mapping[str, Leaf] = {}
    texts: Mapping[str, str] = {}
    numbers: tuple[float, ...] = ()


class Sent(Record, frozen=True, kw_only=True, rename="pascal"):
    role_name: str


RED = {"colour": "Red", "at_ms": 1}


def stored(record: Record) -> object:
    """What is in the database, as it is read from there."""
    return json.loads(json.dumps(encode(record)))


def test_a_record_is_as_it_was_written() -> None:
    leaf = Leaf(colour=Colour.RED, at_ms=1)
    tree = Tree(name="t", first=leaf, leaves=(leaf,), by_name={"a": leaf}, numbers=(1.0, 2.5))
    assert stored(tree) == {
        "name": "t",
        "first": RED,
        "leaves": [RED],
        "by_name": {"a": RED},
        "texts": {},
        "numbers": [1.0, 2.5],
    }
    assert decode(Tree, stored(tree), WHERE) == tree
    assert encode(Sent(role_name="r")) == {"RoleName": "r"}


def test_a_field_that_is_not_there_has_its_default_and_a_status_is_one_of_the_known() -> None:
    read = decode(Tree, {"first": {"colour": "Red"}}, WHERE)
    assert read == Tree(first=Leaf(colour=Colour.RED))
    assert read.first is not None and read.first.colour is Colour.RED


NEWER = {
    "name": "t",
    "soon": {"name": 1},
    "first": RED | {"size": 2},
    "leaves": [RED, RED | {"size": [3]}],
    "by_name": {"a": RED | {"size": None}, "size": RED},
    "texts": {"soon": "s", "…": "t"},
    "numbers": [],
}


def test_what_a_newer_cloche_wrote_is_kept_where_it_was() -> None:
    read = decode(Tree, NEWER, WHERE)
    assert stored(read) == NEWER
    assert read.leaves[0] == Leaf(colour=Colour.RED, at_ms=1)


def test_what_is_unknown_stays_with_its_value_through_changes() -> None:
    read = decode(Tree, NEWER, WHERE)
    changed = read.replace(
        name="u", leaves=(read.leaves[1].replace(at_ms=9),), by_name={}, first=None
    )
    assert stored(changed) == {
        **NEWER,
        "name": "u",
        "leaves": [{"colour": "Red", "at_ms": 9, "size": [3]}],
        "by_name": {},
        "first": None,
    }
    assert decode(Tree, stored(changed), WHERE) == changed
    assert decode(Sent, {"RoleName": "r", "role_name": 1}, WHERE).replace(role_name="s") == decode(
        Sent, {"RoleName": "s", "role_name": 1}, WHERE
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"name": 3}, "Expected `str`, got `int` - at `$.name`"),
        (NEWER | {"name": None}, "Expected `str`, got `null` - at `$.name`"),
        ({"first": {"colour": "Blue"}}, "Invalid enum value 'Blue' - at `$.first.colour`"),
        ({"leaves": [RED, {}]}, "Object missing required field `colour` - at `$.leaves[1]`"),
        (
            {"by_name": {"a": {"colour": 1}}},
            "Expected `str`, got `int` - at `$.by_name[...].colour`",
        ),
        ({"by_name": [], "soon": 1}, "Expected `object`, got `array` - at `$.by_name`"),
        ({"leaves": 3, "soon": 1}, "Expected `array`, got `int` - at `$.leaves`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_wrong_value_is_said_with_the_resource_and_the_field(content: object, text: str) -> None:
    with pytest.raises(BadRecord) as refused:
        decode(Tree, content, WHERE)
    assert str(refused.value) == f"{WHERE}: {text}"
