"""What RE2 runs means what it means to Python: generated patterns and texts, and a table."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.patterns import fits
from cloche.patterns.linear import Unsure, compiled, translate

if TYPE_CHECKING:
    from cloche.testing.extent import Extent

TOKENS = [
    *"abkKsS01_ .:=-,%^$|*+?(){}[]\\/éſ\u212aß٣\x1c\x0b\u00a0",
    *(
        [
            r"\d",
            r"\D",
            r"\w",
            r"\W",
            r"\s",
            r"\S",
            r"\b",
            r"\B",
            r"\A",
            r"\Z",
            r"\.",
            r"\t",
            r"\n",
            r"\(",
            r"\[",
            r"\]",
            r"\-",
            r"\x41",
            r"\1",
        ]
    ),
    *(["(?:", "(?P<a>", "(?P<b>", "(?i)", "(?=x)", "(?<=x)", "(?P=a)", "(?#c)", "(?m)", "(?s:"]),
    *[
        "{2}",
        "{1,2}",
        "{,2}",
        "{2,}",
        "{,}",
        "{}",
        "{3,1}",
        "{12345}",
        "*?",
        "+?",
        "??",
        "++",
        "[^",
        "[]",
        "[^]",
        "[a-z]",
        "[0-9.]",
        "[\\d.]",
        "[^\\W_]",
    ],
    *[
        "loss",
        "([0-9.]+)",
        "(\\d+\\.?\\d*)",
        "(\\S+)",
        "(.*)",
        "(.*?)",
        "(a|b)",
        "(?:a|b)",
        "[[:alpha:]]",
        "&&",
        "--",
    ],
]
PATTERNS = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=9).map("".join)
LETTERS = "abkKsS01_ .:=-,%é\u017f\u212aß٣\x1c\x0b\u00a0\u2028\n\r\t[]{}()A\x85"
TEXTS = st.lists(
    st.one_of(st.sampled_from(LETTERS), st.sampled_from(["loss", "loss: 0.1", "12.5", "\ud800"])),
    max_size=14,
).map("".join)


def by_python(pattern: str, text: str) -> list[str | None]:
    return [match.group(1) for match in re.finditer(pattern, text)]


def compare(pattern: str, texts: list[str]) -> bool:
    """Compare where RE2 is trusted; tell whether it was."""
    try:
        linear = translate(pattern)
        expression = compiled(linear)
    except Unsure:
        return False
    python = re.compile(pattern)
    assert python.groups == linear.groups
    for text in texts:
        if not fits(text, linear.ascii):
            continue
        found = list(expression.finditer(text.encode()))
        spans = [tuple(len(text.encode()[:at].decode()) for at in m.span()) for m in found]
        assert spans == [m.span() for m in python.finditer(text)]
        if linear.groups:
            ones = [m.group(1).decode() for m in found]
            assert ones == by_python(pattern, text)
        anchored = compiled(linear, anchored=True)
        assert (anchored.search(text.encode()) is None) == (python.match(text) is None)
    return True


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=4))
def test_patterns_find_what_pythons_find(pattern: str, texts: list[str]) -> None:
    compare(pattern, texts)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_many_patterns_find_what_pythons_find(extent: Extent) -> None:
    """Drawn more quickly than hypothesis does, so that rare differences show."""
    chance = random.Random(extent.seed)
    drawn, trusted = extent.of(15_000, 1_000_000), 0
    letters = [*LETTERS, "loss", "loss: 0.1", "12.5"]
    for _ in range(drawn):
        pattern = "".join(chance.choices(TOKENS, k=chance.randint(1, 9)))
        texts = ["".join(chance.choices(letters, k=chance.randint(0, 14))) for _ in range(5)]
        trusted += compare(pattern, texts)
    assert trusted > drawn / 10


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<=loss: )([0-9.]+)",
        r"(\d+)(?=%)",
        r"(a)\1",
        r"(?:(a)|b)+c",
        r"(a*)*b",
        r"(\d*)",
        r"(?:a|(b))c",
        r"([0-9]++)",
        r"(?s)a(.)",
        r"(?i)K(x)",
        "(a{2}{2})",
        "(a{99999999999})",
        "(" * 60 + "a" + ")" * 60,
        r"(\141)",
        r"(\N{DIGIT ONE})",
        "([a-f]{1,200}x{1,200})",
    ],
)
def test_what_may_differ_is_pythons(pattern: str) -> None:
    with pytest.raises(Unsure):
        compiled(translate(pattern))


@pytest.mark.parametrize(
    ("pattern", "ascii"),
    [
        (r"Testing Loss: ([0-9\.]+)", False),
        (r"loss[:=]\s*([-+]?\d+\.?\d*(?:e[-+]?\d+)?)", True),
        (r"'test_acc': (.*?),", False),
        (r"(?i)Epoch (?P<number>[0-9]+)", True),
        (r"#quality_metric: host=\S+, train loss <loss>=(\S+)", True),
        (r"{loss}: (.+)$", False),
    ],
)
def test_what_people_write_is_linear(pattern: str, ascii: bool) -> None:
    linear = translate(pattern)
    compiled(linear)
    assert linear.ascii is ascii and linear.groups == 1
