"""What identity policies say about an action on a resource: AWS's evaluation logic, pure.

A Deny wins over every Allow; without an Allow the answer is an implicit deny (IAM User Guide,
"Policy evaluation logic").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloche.core.errors import unsupported
from cloche.services.iam.trust import OPERATORS, holds, listed, statements

Policy = Mapping[str, Any]
VARIABLE = re.compile(r"\$\{([^{}]*)\}")
LITERAL = {"*": "*", "?": "?", "$": "$"}  # ${*} is a star, not a wildcard


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: this action, on this resource ("*": on any), in this context.

    `context` has the condition keys in lower case: `s3:prefix`.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, str] | None = None

    @property
    def known(self) -> Mapping[str, str]:
        """The context, empty where there is none."""
        return self.context or {}


@dataclass(frozen=True, slots=True)
class Decision:
    """`allowed`, `explicitDeny` or `implicitDeny`; which policies said so; which keys were missed.

    `missing` are condition keys that a statement on this action and resource asks for and the
    context has not.
    """

    verdict: str
    policies: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def evaluate(policies: Mapping[str, Policy], asked: Asked) -> Decision:
    """Return what the policies, by name, say together; unsupported for an unknown condition."""
    said: dict[str, list[str]] = {"Allow": [], "Deny": []}
    missing: dict[str, None] = {}
    for name, policy in policies.items():
        for statement in statements(policy):
            if not about(statement, asked):
                continue
            missing |= dict.fromkeys(unknown_keys(statement, asked.known))
            if all_hold(statement.get("Condition", {}), asked.known):
                said[statement["Effect"]].append(name)
    for effect, verdict in (("Deny", "explicitDeny"), ("Allow", "allowed")):
        if said[effect]:
            return Decision(verdict, tuple(dict.fromkeys(said[effect])), tuple(missing))
    return Decision("implicitDeny", (), tuple(missing))


def about(statement: Mapping[str, Any], asked: Asked) -> bool:
    """Tell whether a statement speaks of this action on this resource."""
    action = asked.action.lower()
    if "NotAction" in statement:
        named = not any(like(each.lower(), action) for each in listed(statement["NotAction"]))
    else:
        named = any(like(each.lower(), action) for each in listed(statement["Action"]))
    if not named:
        return False
    for element, wanted in (("Resource", True), ("NotResource", False)):
        if element in statement:
            patterns = listed(statement[element])
            return wanted == any(like(each, asked.resource, asked.known) for each in patterns)
    return False


def like(pattern: str, text: str, context: Mapping[str, str] | None = None) -> bool:
    """Tell whether a text fits: `*` any characters, `?` one, `${key}` the context's value.

    Pieces between stars are looked for one after the other, each at its first place: never back.
    """
    pieces, end = [""], 0
    for match in VARIABLE.finditer(pattern):
        add(pieces, pattern[end : match.start()])
        value = LITERAL.get(match[1], (context or {}).get(match[1].lower()))
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


def all_hold(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """Tell whether every condition of a statement holds."""
    return all(
        one_holds(operator, key, [as_text(value) for value in listed(values)], context)
        for operator, keys in condition.items()
        for key, values in keys.items()
    )


def one_holds(operator: str, key: str, values: Sequence[str], context: Mapping[str, str]) -> bool:
    """Tell whether one condition holds; unsupported names an operator that is not evaluated."""
    actual = context.get(key.lower())
    if operator == "Null":
        return (actual is None) == (values[0].lower() == "true")
    plain = operator.removesuffix("IfExists")
    if plain not in ("Bool", *OPERATORS):
        raise unsupported(f"the condition operator {operator} when policies are simulated")
    if actual is None and plain != operator:
        return True
    if plain == "Bool":
        return actual is not None and actual.lower() == values[0].lower()
    return holds(plain, key, list(values), context)


def unknown_keys(statement: Mapping[str, Any], context: Mapping[str, str]) -> list[str]:
    """Return the condition keys of a statement that the context has no value for."""
    condition = statement.get("Condition", {})
    return [key for keys in condition.values() for key in keys if key.lower() not in context]


def as_text(value: object) -> str:
    """Return a condition's value as text; JSON's true is `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
