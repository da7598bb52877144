"""Numbers as text, with bounds."""

from __future__ import annotations

import math
import time

import pytest

from cloche.core import numbers


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-7", -7), ("+07", 7), ("9" * 25, 10**25 - 1)]
)
def test_integers(text: str, value: int) -> None:
    assert numbers.integer(text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1_0", "0x3", "1.0", "1e3", "\u0663", "\xb2", "--1", "9" * 5000, "1\n"]
)
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match="is not an integer"):
        numbers.integer(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-1.5", -1.5), (".5", 0.5), ("5.", 5.0), ("1E-3", 0.001)]
)
def test_reals(text: str, value: float) -> None:
    assert numbers.real(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "nan", "NaN", "inf", "-Infinity", "1e999", "1_0", "0x1p3", " 1", "e", ".", "9" * 400],
)
def test_what_is_no_finite_number(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        numbers.real(text)
    assert all(not math.isfinite(value) for value in numbers.SPELLED.values())


def test_digits_of_any_length_count_up_to_a_bound_in_linear_time() -> None:
    assert numbers.natural("0" * 5000 + "7", 100) == 7
    assert numbers.natural("9" * 5000, 100) == 100
    with pytest.raises(ValueError, match="is not a number"):
        numbers.natural("-1", 100)
    before = time.process_time()
    numbers.natural("9" * 10_000_000, 100)
    assert time.process_time() - before < 1.0


def test_errors_repeat_little() -> None:
    with pytest.raises(ValueError, match=r"x{100}…' is not a number") as caught:
        numbers.real("x" * 10**6)
    assert len(str(caught.value)) < 200
