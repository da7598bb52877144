"""What a tuning job searches: ParameterRanges as sent.

A value travels as text, as AWS keeps it: integers as digits, continuous ones as Python prints a
float, categorical ones exactly as sent (the SDK 2.x sends them JSON-quoted, and expects them so).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from cloche.core import numbers
from cloche.core.errors import AwsError

WIDE = 100  # Auto scales logarithmically when the highest is at least so many times the lowest


@dataclass(frozen=True, slots=True)
class Range:
    """One hyperparameter. `low` and `high` are both within; `values` only of a categorical one.

    scaling: as sent, `Auto` resolved. ReverseLogarithmic searches 1 - x logarithmically.
    """

    name: str
    kind: Literal["Integer", "Continuous", "Categorical"]
    low: float = 0.0
    high: float = 0.0
    values: tuple[str, ...] = ()
    scaling: Literal["Linear", "Logarithmic", "ReverseLogarithmic"] = "Linear"

    def to_text(self, sampled: Any) -> str:
        """Return a sampled value as the training job gets it."""
        if self.kind == "Categorical":
            return str(sampled)
        if self.kind == "Integer":
            return str(int(sampled))
        value = 1 - sampled if self.scaling == "ReverseLogarithmic" else sampled
        return repr(min(self.high, max(self.low, float(value))))

    def to_sampled(self, text: str) -> Any:
        """Return the value that Optuna would have sampled for `text`; KeyError when outside."""
        if self.kind == "Categorical":
            if text not in self.values:
                raise KeyError(f"{text!r} is not one of {self.values}")
            return text
        value = float(text)
        if not self.low <= value <= self.high:
            raise KeyError(f"{text} is not within {self.low} and {self.high}")
        if self.kind == "Integer":
            return int(value)
        return 1 - value if self.scaling == "ReverseLogarithmic" else value


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """All ranges of a tuning job, in the order sent."""

    ranges: tuple[Range, ...]

    @classmethod
    def parse(cls, sent: Mapping[str, Any]) -> SearchSpace:
        """Return the space of `ParameterRanges`; an AwsError says which range is wrong and why."""
        ranges = [
            numeric_range("Integer", entry) for entry in sent.get("IntegerParameterRanges") or ()
        ]
        ranges += [
            numeric_range("Continuous", entry)
            for entry in sent.get("ContinuousParameterRanges") or ()
        ]
        for entry in sent.get("CategoricalParameterRanges") or ():
            values = tuple(dict.fromkeys(entry["Values"]))
            ranges.append(Range(entry["Name"], "Categorical", values=values))
        names = [each.name for each in ranges]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise invalid(f"The hyperparameters {twice} are named in more than one range.")
        return cls(tuple(ranges))

    def to_text(self, sampled: Mapping[str, Any]) -> dict[str, str]:
        """Return sampled values as text."""
        return {each.name: each.to_text(sampled[each.name]) for each in self.ranges}

    def to_sampled(self, texts: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the values in Optuna's terms; None when one is missing or outside its range.

        A parent's trials of a warm start may lie outside the new ranges.
        """
        try:
            return {each.name: each.to_sampled(texts[each.name]) for each in self.ranges}
        except KeyError:
            return None


def numeric_range(kind: Literal["Integer", "Continuous"], entry: Mapping[str, str]) -> Range:
    """Return the range of one entry of Integer- or ContinuousParameterRanges."""
    name, texts = entry["Name"], (entry["MinValue"], entry["MaxValue"])
    low, high = (number(kind, name, text) for text in texts)
    if low > high:
        raise invalid(
            f"The range of {name} has MinValue {texts[0]} and MaxValue {texts[1]}: "
            "the first must not exceed the second."
        )
    scaling = entry.get("ScalingType") or "Auto"
    if scaling == "Auto":
        wide = low > 0 and high / low >= WIDE
        return Range(name, kind, low, high, scaling="Logarithmic" if wide else "Linear")
    if scaling == "Logarithmic" and low > 0:
        return Range(name, kind, low, high, scaling="Logarithmic")
    if scaling == "ReverseLogarithmic" and kind == "Continuous" and 0 <= low <= high < 1:
        return Range(name, kind, low, high, scaling="ReverseLogarithmic")
    if scaling == "Linear":
        return Range(name, kind, low, high)
    allowed = {
        "Logarithmic": "ranges that have only values greater than 0",
        "ReverseLogarithmic": "continuous ranges that are entirely within the range 0<=x<1.0",
    }
    raise invalid(
        f"{scaling} scaling works only for {allowed[scaling]}; "
        f"{name} ({kind}) ranges from {texts[0]} to {texts[1]}."
    )


def number(kind: str, name: str, text: str) -> float:
    """Return the number that `text` spells; an AwsError when it is none of that kind."""
    try:
        return float(numbers.integer(text)) if kind == "Integer" else numbers.real(text)
    except ValueError as error:
        text = numbers.shown(text)
        raise invalid(f"{text} in the range of {name} is not a value of type {kind}.") from error


def grid(space: SearchSpace) -> Iterator[dict[str, str]]:
    """Yield every combination of a space of categorical ranges, the last one varying fastest."""
    names = [each.name for each in space.ranges]
    for values in product(*(each.values for each in space.ranges)):
        yield dict(zip(names, values, strict=True))


def invalid(message: str) -> AwsError:
    """Return the refusal of a range."""
    return AwsError("ValidationException", message)
