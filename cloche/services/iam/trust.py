"""Trust policies: checked when a role is made, asked when somebody wants to assume it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cloche.core.errors import AwsError, unsupported
from cloche.core.identity import Principal

VERSIONS = ("2012-10-17", "2008-10-17")
PRINCIPAL_KINDS = ("AWS", "Service", "Federated", "CanonicalUser")
# The condition operators that are evaluated; a policy with another one is refused.
OPERATORS = (
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "ArnEquals",
    "ArnLike",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a trust policy is asked: may this caller do this, in this context?

    `service` is the service principal (`sagemaker.amazonaws.com`) when a service asks for itself.
    `context` has the condition keys, in lower case: `sts:externalid`.
    """

    action: str
    principal: Principal | None = None
    service: str | None = None
    context: Mapping[str, str]


def malformed(message: str) -> AwsError:
    """Return IAM's refusal of a policy document."""
    return AwsError("MalformedPolicyDocument", message)


def check(text: str) -> None:
    """Raise MalformedPolicyDocument unless `text` is a trust policy, in AWS's words."""
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed("This policy contains invalid Json") from error
    if not isinstance(policy, dict) or set(policy) - {"Version", "Id", "Statement"}:
        raise malformed("Syntax errors in policy.")
    if policy.get("Version", VERSIONS[-1]) not in VERSIONS:
        raise malformed("Syntax errors in policy.")
    if "Statement" not in policy:
        raise malformed("Missing required field Statement")
    for statement in statements(policy):
        check_statement(statement)


def check_statement(statement: object) -> None:
    """Raise MalformedPolicyDocument unless `statement` is one of a trust policy."""
    if not isinstance(statement, dict):
        raise malformed("Syntax errors in policy.")
    for name in ("Resource", "NotResource"):
        if name in statement:
            raise malformed("Has prohibited field Resource")
    for name in ("NotPrincipal", "NotAction"):
        if name in statement:
            raise unsupported(f"{name} in a trust policy")
    if set(statement) - {"Sid", "Effect", "Principal", "Action", "Condition"}:
        raise malformed("Syntax errors in policy.")
    for name in ("Effect", "Principal", "Action"):
        if name not in statement:
            raise malformed(f"Missing required field {name}")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise malformed("Syntax errors in policy.")
    actions = listed(statement["Action"])
    if not actions or not all(isinstance(action, str) for action in actions):
        raise malformed("Syntax errors in policy.")
    if not all(action.lower().startswith("sts:") for action in actions):
        raise malformed("AssumeRole policy may only specify STS AssumeRole actions.")
    check_principal(statement["Principal"])
    check_condition(statement.get("Condition", {}))


def check_principal(principal: object) -> None:
    """Raise MalformedPolicyDocument unless it is `"*"` or principals by their kind."""
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        raise malformed("Syntax errors in policy.")
    for kind, names in principal.items():
        if kind not in PRINCIPAL_KINDS:
            raise malformed("Syntax errors in policy.")
        for name in listed(names):
            if not isinstance(name, str):
                raise malformed("Syntax errors in policy.")
            if not plausible(kind, name):
                raise malformed(f'Invalid principal in policy: "{kind.upper()}":"{name}"')


def plausible(kind: str, name: str) -> bool:
    """Tell whether a principal has the form of its kind."""
    if kind == "AWS":
        account = name.split(":")[4:5] if name.startswith("arn:") else [name]
        return name == "*" or (bool(account) and len(account[0]) == 12 and account[0].isdigit())
    if kind == "Service":
        return name.endswith((".amazonaws.com", ".amazonaws.com.cn", ".aws.internal"))
    return bool(name)


def check_condition(condition: object) -> None:
    """Refuse a condition that would not be evaluated as it says."""
    if not isinstance(condition, dict):
        raise malformed("Syntax errors in policy.")
    for operator, keys in condition.items():
        if operator not in OPERATORS:
            raise unsupported(f"the condition operator {operator} in a trust policy")
        if not isinstance(keys, dict):
            raise malformed("Syntax errors in policy.")


def allows(text: str, request: Request) -> bool:
    """Tell whether a trust policy lets the caller in: some Allow matches, and no Deny."""
    effects = {
        statement["Effect"]
        for statement in statements(json.loads(text))
        if matches(statement, request)
    }
    return effects == {"Allow"}


def matches(statement: Mapping[str, Any], request: Request) -> bool:
    """Tell whether a statement speaks of this caller, action and context."""
    actions = [action.lower() for action in listed(statement["Action"])]
    return (
        any(fnmatchcase(request.action.lower(), action) for action in actions)
        and names(statement["Principal"], request)
        and all(
            holds(operator, key, listed(values), request.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def names(principal: object, request: Request) -> bool:
    """Tell whether the Principal element names the caller.

    An account, or its root, stands for everybody in it; `"*"` for every AWS caller.
    """
    if principal == "*":
        return True
    assert isinstance(principal, dict)
    if request.service is not None:
        return request.service in listed(principal.get("Service", []))
    caller = request.principal
    if caller is None:
        return False
    itself = {
        "*",
        caller.account,
        f"arn:aws:iam::{caller.account}:root",
        caller.arn,
        caller.role_arn,
    }
    return any(name in itself for name in listed(principal.get("AWS", [])))


def holds(operator: str, key: str, values: list[Any], context: Mapping[str, str]) -> bool:
    """Tell whether one condition holds; a negated one also holds when the key is not there."""
    actual = context.get(key.lower())
    negated = "Not" in operator
    if actual is None:
        return negated
    if operator == "StringEqualsIgnoreCase":
        found = any(actual.lower() == str(value).lower() for value in values)
    elif operator in ("StringEquals", "StringNotEquals"):
        found = any(actual == value for value in values)
    else:
        found = any(fnmatchcase(actual, str(value).replace("[", "[[]")) for value in values)
    return found != negated


def statements(policy: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the statements of a policy, which may be one or a list."""
    yield from listed(policy["Statement"])


def listed(value: Any) -> list[Any]:
    """Return what may be one or a list as a list."""
    return value if isinstance(value, list) else [value]
