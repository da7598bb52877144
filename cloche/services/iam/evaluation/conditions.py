"""Conditions: the operators, and what each says of a request's values.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html

An answer may also be None: it can't be said (an operator that is not known, values that the
operator can't compare). Such a condition never lets an Allow apply, and never holds back a Deny.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from cloche.services.iam.evaluation.documents import as_text, listed
from cloche.services.iam.evaluation.patterns import (
    SEGMENTS,
    Keys,
    Part,
    Plain,
    filled,
    is_plain,
    matcher,
    matchers,
    parse,
    segments,
    text_of,
    within_segments,
)
from cloche.services.iam.evaluation.values import (
    binary,
    moment,
    network,
    number,
    truth,
    within,
)

T = TypeVar("T")
Answer = bool | None
Test = Callable[[str], Answer]  # of one of the request's values, against one of the policy's
Values = tuple[str, ...]  # of the request: none where it lacks the key
EVERY_ARN = ["*"] * SEGMENTS
IF_EXISTS = "IfExists"
FOR_ALL, FOR_ANY = "ForAllValues", "ForAnyValue"


@dataclass(frozen=True, slots=True)
class Later:
    """A policy's value with variables: for a request, its test; None where one has no value."""

    test: Callable[[Keys], Test | None]


Wanted = Test | Later
# The values as they are written; whether they may have variables.
Build = Callable[[Sequence[str], bool], list[Wanted]]


def some(answers: Iterable[Answer]) -> Answer:
    """Tell whether one of them is yes; None: not known."""
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


def every(answers: Iterable[Answer]) -> Answer:
    """Tell whether all of them are yes; None: not known."""
    unknown = False
    for answer in answers:
        if answer is False:
            return False
        unknown = unknown or answer is None
    return None if unknown else True


def opposite(answer: Answer) -> Answer:
    """Return no for yes, yes for no."""
    return None if answer is None else not answer


# ---------------------------------------------------------------------- what is compared


def written(groups: list[list[Part]], make: Callable[[list[list[Plain]]], Test]) -> Wanted:
    """Return a value's test, made of its parts; an ARN's are in groups, by segment."""

    def later(keys: Keys) -> Test | None:
        found = [filled(parts, keys) for parts in groups]
        known = [parts for parts in found if parts is not None]
        return make(known) if known == found else None

    if all(map(is_plain, groups)):
        return make(cast("list[list[Plain]]", groups))
    return Later(later)


def exactly(values: Sequence[str], variables: bool) -> list[Wanted]:
    """The same text."""
    parts = [parse(value, variables=variables, wildcards=False) for value in values]
    return [written([each], lambda found: text_of(found[0]).__eq__) for each in parts]


def in_any_case(values: Sequence[str], variables: bool) -> list[Wanted]:
    """The same text but for upper and lower case."""

    def make(found: list[list[Plain]]) -> Test:
        text = text_of(found[0]).lower()
        return lambda actual: actual.lower() == text

    parts = [parse(value, variables=variables, wildcards=False) for value in values]
    return [written([each], make) for each in parts]


def fitting(values: Sequence[str], variables: bool) -> list[Wanted]:
    """A text that fits the pattern."""
    parts = [parse(value, variables=variables) for value in values]
    later = [each for each in parts if not is_plain(each)]
    return [
        *matchers(each for each in parts if is_plain(each)),
        *(written([each], lambda found: matcher(found[0])) for each in later),
    ]


def same_truth(values: Sequence[str], variables: bool) -> list[Wanted]:
    """The same truth value."""

    def make(found: list[list[Plain]]) -> Test:
        return comparison(truth, operator.eq, text_of(found[0]))

    parts = [parse(value, variables=variables, wildcards=False) for value in values]
    return [written([each], make) for each in parts]


def arn(values: Sequence[str], variables: bool) -> list[Wanted]:
    """An ARN each of whose six segments fits the pattern's; `*` alone is every ARN.

    Those with `?` are read all at a time.
    """
    found: list[Wanted] = []
    together: list[Sequence[Plain]] = []
    for value in values:
        text = ":".join(EVERY_ARN) if value == "*" else value
        groups = segments(parse(text, variables=variables))
        parts = within_segments(groups)
        if "?" in text and len(groups) == SEGMENTS and is_plain(parts):
            together.append(parts)
        else:
            found.append(written(groups, arn_test))
    return [*found, *matchers(together)]


def arn_test(pattern: list[list[Plain]]) -> Test:
    """Return the test of segments; what has fewer of them is no ARN and fits none."""
    fits = [matcher(segment) for segment in pattern]

    def test(actual: str) -> bool:
        found = actual.split(":", SEGMENTS - 1)
        return len(found) == SEGMENTS == len(fits) and all(
            fit(segment) for fit, segment in zip(fits, found, strict=True)
        )

    return test


def comparison(
    read: Callable[[str], T | None], compare: Callable[[T, T], bool], value: str
) -> Test:
    """Return the test of a value that isn't text; it can't be said where either can't be read."""
    wanted = read(value)

    def test(actual: str) -> Answer:
        found = read(actual)
        return None if found is None or wanted is None else compare(found, wanted)

    return test


def compared(read: Callable[[str], T | None], compare: Callable[[T, T], bool]) -> Build:
    """Return how values that have no variables are compared."""
    return lambda values, _variables: [comparison(read, compare, value) for value in values]


# ---------------------------------------------------------------------- operators

# Without qualifier and IfExists. A negated one is its opposite: see NEGATED.
OPERATORS: Mapping[str, Build] = {
    "StringEquals": exactly,
    "StringEqualsIgnoreCase": in_any_case,
    "StringLike": fitting,
    "NumericEquals": compared(number, operator.eq),
    "NumericLessThan": compared(number, operator.lt),
    "NumericLessThanEquals": compared(number, operator.le),
    "NumericGreaterThan": compared(number, operator.gt),
    "NumericGreaterThanEquals": compared(number, operator.ge),
    "DateEquals": compared(moment, operator.eq),
    "DateLessThan": compared(moment, operator.lt),
    "DateLessThanEquals": compared(moment, operator.le),
    "DateGreaterThan": compared(moment, operator.gt),
    "DateGreaterThanEquals": compared(moment, operator.ge),
    "Bool": same_truth,
    "BinaryEquals": compared(binary, operator.eq),
    "IpAddress": compared(network, within),
    "ArnEquals": arn,
    "ArnLike": arn,
}
NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}
NULL = "Null"


class Condition(NamedTuple):
    """One key of a condition, as its name is written; case doesn't count in it.

    answer: whether it holds, of the request's values for the key.
    """

    name: str
    answer: Callable[[Values, Keys], Answer]


def conditions(element: Mapping[str, Mapping[str, Any]], variables: bool) -> list[Condition]:
    """Return a Condition element's conditions: all of them must hold."""
    return [
        Condition(name, asked(operation, [as_text(value) for value in listed(values)], variables))
        for operation, keys in element.items()
        for name, values in keys.items()
    ]


def known(name: str) -> bool:
    """Tell whether there is a condition operator of this name."""
    return name == NULL or parted(name)[1] in {*OPERATORS, *NEGATED}


def parted(name: str) -> tuple[str, str, bool]:
    """Return an operator's qualifier, its name, and whether it ends in IfExists."""
    qualifier, colon, rest = name.rpartition(":")
    if colon and qualifier not in (FOR_ALL, FOR_ANY):
        return "", name, False
    plain = rest.removesuffix(IF_EXISTS)
    return qualifier, plain, plain != rest


def asked(name: str, values: list[str], variables: bool) -> Callable[[Values, Keys], Answer]:
    """Return what an operator says of a request's values, given the policy's."""
    if not known(name):
        return lambda _actual, _keys: None
    if name == NULL:
        return absence([truth(value) for value in values])
    qualifier, plain, if_exists = parted(name)
    negated = plain in NEGATED
    build = OPERATORS[NEGATED.get(plain, plain)]
    wanted = build(values, variables)
    fixed = [each for each in wanted if not isinstance(each, Later)]
    later = [each for each in wanted if isinstance(each, Later)]
    # None of several values may match a negated operator; one of them has to match another.
    over = every if qualifier == FOR_ALL or (negated and not qualifier) else some
    without = if_exists or qualifier == FOR_ALL or (negated and not qualifier)

    def answer(actual: Values, keys: Keys) -> Answer:
        if not actual or (qualifier and not any(actual)):
            return without
        tests = fixed
        if later:
            made = [each.test(keys) for each in later]
            if negated and None in made:
                return False  # the statement is not valid for this request
            tests = [*fixed, *filter(None, made)]
        found = [some([test(value) for test in tests]) for value in actual]
        return over([opposite(each) for each in found] if negated else found)

    return answer


def absence(wanted: list[bool | None]) -> Callable[[Values, Keys], Answer]:
    """Return what Null says: true, that the key isn't there; false, that it is."""
    return lambda actual, _keys: some(
        None if each is None else each != bool(actual) for each in wanted
    )
