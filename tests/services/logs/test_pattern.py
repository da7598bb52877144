"""Filter patterns, after the examples of CloudWatch Logs' user guide."""

import pytest

from cloche.core.errors import AwsError
from cloche.services.logs.pattern import parse_pattern

LINES = [
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[WARN] nothing to see",
    "[INFO] INTERNAL SERVER ERROR was fixed",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("ERROR", [0, 1, 2, 4]),
        ("error", []),
        ("ERROR ARGUMENTS", [2]),
        ('"INTERNAL SERVER ERROR"', [4]),
        ("?ARGUMENTS ?WARN", [2, 3]),
        ("ERROR -ARGUMENTS", [0, 1, 4]),
        ("-ERROR", [3]),
        ('ERROR -"INTERNAL SERVER"', [0, 1, 2]),
        ("?WARN REQUEST", [0, 1]),  # with other terms the question mark is ignored
        ('"[ERROR 4"', [0, 1, 2]),
    ],
)
def test_terms(pattern: str, expected: list[int]) -> None:
    found = parse_pattern(pattern)
    assert [n for n, text in enumerate(LINES) if found.matches(text)] == expected


@pytest.mark.parametrize("pattern", ["{ $.x = 1 }", "[ip, user]", "%[Ee]rror%"])
def test_what_is_not_supported_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(AwsError, match=r"does not support .* filter patterns"):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [('"open', "Invalid filter pattern"), ("a|b", "Invalid character(s) in term 'a|b'")],
)
def test_what_is_wrong_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(AwsError) as caught:
        parse_pattern(pattern)
    assert (caught.value.code, caught.value.message) == ("InvalidParameterException", message)
