"""What policies say about a question: AWS's evaluation logic, pure, for every kind of policy.

A Deny wins over every Allow; without an Allow the answer is an implicit deny (IAM User Guide,
"Policy evaluation logic").
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloche.core.authorization import (
    Context,
    Decision,
    PolicyKind,
    Question,
    Statement,
    Values,
)
from cloche.core.errors import unsupported
from cloche.core.identity import Principal

Policy = Mapping[str, Any]
VARIABLE = re.compile(r"\$\{([^{}]*)\}")
LITERAL = {"*": "*", "?": "?", "$": "$"}  # ${*} is a star, not a wildcard
Compare = Callable[[str, str, Mapping[str, Values]], bool]  # actual, wanted, context


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a condition: an operator as it is written, the key's name, what it must be."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement, taken apart once.

    principals: whom it speaks of, by their kind; None: of whoever the policy is attached to.
    resources: None where the policy is the resource's own, and speaks of nothing else.
    """

    source: Statement
    effect: str
    actions: tuple[str, ...]
    not_actions: bool
    principals: Mapping[str, frozenset[str]] | None
    resources: tuple[str, ...] | None
    not_resources: bool
    conditions: tuple[Condition, ...]


def compiled(
    name: str, policy: Policy, kind: PolicyKind = "identity-based policy"
) -> tuple[CompiledStatement, ...]:
    """Return a policy's statements, ready to be asked; its grammar was checked."""
    return tuple(
        CompiledStatement(
            source=Statement(name, kind, place, statement.get("Sid")),
            effect=statement["Effect"],
            actions=tuple(
                each.lower() for each in listed(element(statement, "Action", "NotAction"))
            ),
            not_actions="NotAction" in statement,
            principals=principals(statement["Principal"]) if "Principal" in statement else None,
            resources=(
                tuple(listed(element(statement, "Resource", "NotResource")))
                if "Resource" in statement or "NotResource" in statement
                else None
            ),
            not_resources="NotResource" in statement,
            conditions=tuple(
                Condition(operator, key, tuple(as_text(value) for value in listed(values)))
                for operator, keys in statement.get("Condition", {}).items()
                for key, values in keys.items()
            ),
        )
        for place, statement in enumerate(listed(policy["Statement"]))
    )


def evaluate(statements: Iterable[CompiledStatement], question: Question) -> Decision:
    """Return what the statements say together; unsupported for an unknown condition."""
    said: dict[str, list[Statement]] = {"Allow": [], "Deny": []}
    missing: dict[str, None] = {}
    for statement in statements:
        if not about(statement, question):
            continue
        context = question.context
        missing |= {each.key: None for each in statement.conditions if absent(each, context)}
        if all(holds(each, context) for each in statement.conditions):
            said[statement.effect].append(statement.source)
    if said["Deny"]:
        return Decision("explicitDeny", tuple(said["Deny"]), tuple(missing))
    if said["Allow"]:
        return Decision("allowed", tuple(said["Allow"]), tuple(missing))
    return Decision("implicitDeny", (), tuple(missing))


def about(statement: CompiledStatement, question: Question) -> bool:
    """Tell whether a statement speaks of this principal, action and resource."""
    action = question.action.lower()
    if any(like(each, action) for each in statement.actions) == statement.not_actions:
        return False
    if statement.principals is not None and not named(statement.principals, question.principal):
        return False
    if statement.resources is None:
        return statement.principals is not None
    found = any(like(each, question.resource, question.context) for each in statement.resources)
    return found != statement.not_resources


# ---------------------------------------------------------------------- principals


def principals(element: object) -> Mapping[str, frozenset[str]]:
    """Return a Principal element by kind; "*" is every AWS principal."""
    if element == "*":
        return {"AWS": frozenset("*"), "Service": frozenset("*")}
    assert isinstance(element, Mapping)
    return {kind: frozenset(listed(names)) for kind, names in element.items()}


def named(principals: Mapping[str, frozenset[str]], caller: Principal) -> bool:
    """Tell whether a Principal element names the caller.

    An account, or its root, stands for everybody in it.
    """
    if caller.kind == "service":
        return not principals.get("Service", frozenset()).isdisjoint(("*", caller.arn))
    root = f"arn:aws:iam::{caller.account}:root"
    itself = {"*", caller.account, root, caller.arn, caller.role_arn}
    return not principals.get("AWS", frozenset()).isdisjoint(itself)


# ---------------------------------------------------------------------- conditions


def absent(condition: Condition, context: Context) -> bool:
    """Tell whether the context has no value for a condition's key."""
    return condition.key.lower() not in context


def holds(condition: Condition, context: Context) -> bool:
    """Tell whether one condition holds; unsupported names an operator that is not evaluated.

    A negated one also holds when the key is not there.
    """
    actual = context.get(condition.key.lower())
    operator = condition.operator
    if operator == "Null":
        return (actual is None) == (condition.values[0].lower() == "true")
    plain = operator.removesuffix("IfExists")
    compare = OPERATORS.get(plain)
    if compare is None:
        raise unsupported(f"the condition operator {operator} when policies are simulated")
    negated = "Not" in plain
    if actual is None:
        return negated or plain != operator
    found = any(
        compare(each, value, context)
        for each in (actual if isinstance(actual, tuple) else (actual,))
        for value in condition.values
    )
    return found != negated


def equal(actual: str, wanted: str, context: Mapping[str, Values]) -> bool:
    """Tell whether a text is the one that is wanted, its ${variables} filled in."""
    return actual == filled(wanted, context)


def equal_ignoring_case(actual: str, wanted: str, context: Mapping[str, Values]) -> bool:
    """Tell whether two texts are the same but for upper and lower case."""
    value = filled(wanted, context)
    return value is not None and actual.lower() == value.lower()


def fits(actual: str, wanted: str, context: Mapping[str, Values]) -> bool:
    """Tell whether a text fits a pattern."""
    return like(wanted, actual, context)


def same_truth(actual: str, wanted: str, _context: Mapping[str, Values]) -> bool:
    """Tell whether two texts are the same truth value."""
    return actual.lower() == wanted.lower()


# The condition operators that are evaluated, without IfExists; and Null.
OPERATORS: Mapping[str, Compare] = {
    "StringEquals": equal,
    "StringNotEquals": equal,
    "StringEqualsIgnoreCase": equal_ignoring_case,
    "StringLike": fits,
    "StringNotLike": fits,
    "ArnEquals": fits,
    "ArnLike": fits,
    "Bool": same_truth,
}


# ---------------------------------------------------------------------- patterns


def like(pattern: str, text: str, context: Mapping[str, Values] | None = None) -> bool:
    """Tell whether a text fits: `*` any characters, `?` one, `${key}` the context's value.

    Pieces between stars are looked for one after the other, each at its first place: never back.
    """
    pieces, end = [""], 0
    for match in VARIABLE.finditer(pattern):
        add(pieces, pattern[end : match.start()])
        value = variable(match[1], context or {})
        if value is None:
            return False  # a variable that the request has no value for
        pieces[-1] += re.escape(value)
        end = match.end()
    add(pieces, pattern[end:])
    if len(pieces) == 1:
        return re.fullmatch(pieces[0], text, re.DOTALL) is not None
    pieces[-1] += r"\Z"
    first, *others = (re.compile(piece, re.DOTALL) for piece in pieces)
    found = first.match(text)
    for piece in others:
        found = found and piece.search(text, found.end())
    return found is not None


def add(pieces: list[str], pattern: str) -> None:
    """Add a pattern with wildcards to pieces of regular expressions: a star begins another."""
    first, *others = (re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*"))
    pieces[-1] += first
    pieces += others


def filled(text: str, context: Mapping[str, Values]) -> str | None:
    """Return a text with its ${variables} filled in; None where one has no value."""
    values = [variable(name, context) for name in VARIABLE.findall(text)]
    if None in values:
        return None
    return VARIABLE.sub(lambda _match: values.pop(0) or "", text)


def variable(name: str, context: Mapping[str, Values]) -> str | None:
    """Return what a variable stands for; None for one without a value, or with several."""
    value = LITERAL.get(name, context.get(name.lower()))
    return value if isinstance(value, str) else None


# ---------------------------------------------------------------------- documents


def element(statement: Mapping[str, Any], name: str, negated: str) -> Any:
    """Return an element of a statement, or the one that says what it is not."""
    return statement[negated] if negated in statement else statement[name]


def listed(value: Any) -> list[Any]:
    """Return what may be one or a list as a list."""
    return value if isinstance(value, list) else [value]


def as_text(value: object) -> str:
    """Return a condition's value as text; JSON's true is `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
