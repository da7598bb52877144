"""A bucket's policy as it is sent: read, and refused in S3's words when it can't be one.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.services.s3.policy_actions import is_key, is_pattern, key_applies, named

Policy = Mapping[str, Any]
Statement = Mapping[str, Any]
LARGEST = 20 * 1024  # bytes
VERSIONS = ("2012-10-17", "2008-10-17")
MEMBERS = ("Version", "Id", "Statement")
PAIRS = ("Principal", "Action", "Resource")  # each may be negated
STATEMENT_MEMBERS = ("Sid", "Effect", "Condition", *PAIRS, *(f"Not{name}" for name in PAIRS))
ARN = "arn:aws:s3:::"
PRINCIPAL_KINDS = ("AWS", "Service", "Federated", "CanonicalUser")
ACCOUNT = re.compile(r"[0-9]{12}")
# A principal has no wildcards, save the one that is all of it.
ENTITY = re.compile(
    r"arn:aws:(iam::[0-9]{12}:(root|(user|role)/[\w+=,.@/-]+)"
    r"|sts::[0-9]{12}:(assumed-role/[\w+=,.@-]+/[\w+=,.@-]+|federated-user/[\w+=,.@-]+))",
    re.ASCII,
)
SERVICE = re.compile(r"[a-z0-9.-]+\.(amazonaws\.com|amazonaws\.com\.cn|aws\.internal)")
PROVIDER = re.compile(
    r"arn:aws:iam::[0-9]{12}:(saml|oidc)-provider/\S+|[a-z0-9.-]+\.[a-z]+", re.ASCII
)
CANONICAL = re.compile(r"[0-9a-f]{64}")
FORMS = {"Service": SERVICE, "Federated": PROVIDER, "CanonicalUser": CANONICAL}
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
NUMERIC = ("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
OPERATORS = {
    *("StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"),
    *("StringLike", "StringNotLike", "Bool", "BinaryEquals", "IpAddress", "NotIpAddress"),
    *("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"),
    *(kind + how for kind in ("Numeric", "Date") for how in NUMERIC),
}
QUANTIFIED = ("ForAllValues:", "ForAnyValue:")
SYNTAX = "Invalid policy syntax."
PRINCIPAL = "Invalid principal in policy"
MISMATCH = "Conditions do not apply to combination of actions and resources in statement"


def malformed(text: str, detail: str | None = None) -> AwsError:
    """Return S3's refusal of a policy; `detail` is what is wrong in it."""
    fields = {} if detail is None else {"Detail": detail}
    return AwsError("MalformedPolicy", text, 400, fields=fields)


def read(text: str, bucket: str) -> Policy:
    """Return a bucket's policy; MalformedPolicy when it is none that the bucket may have."""
    if len(text.encode()) > LARGEST:
        raise malformed("Policy exceeds the maximum allowed document size.")
    if not text.startswith("{"):
        raise malformed("Policies must be valid JSON and the first byte must be '{'")
    try:
        policy: Policy = json.loads(text, object_pairs_hook=members, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise malformed("This policy contains invalid Json") from error
    unknown(policy, MEMBERS)
    if policy.get("Version", VERSIONS[0]) not in VERSIONS:
        raise malformed("The policy must contain a valid version string")
    if not isinstance(policy.get("Id", ""), str):
        raise malformed(SYNTAX)
    if "Statement" not in policy:
        raise malformed("Missing required field Statement")
    statements = listed(policy["Statement"])
    if not statements:
        raise malformed("Could not parse the policy: Statement is empty!")
    for statement in statements:
        check_statement(statement, bucket)
    return policy


def statements_of(policy: Policy) -> list[Statement]:
    """Return the statements of a policy that was checked."""
    found: list[Statement] = listed(policy["Statement"])
    return found


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object of JSON, each of which is there once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise malformed(f"Statement/policy already has instance of {name}")
        found[name] = value
    return found


def no_constant(name: str) -> None:
    """Refuse NaN and its like, which JSON has not."""
    raise ValueError(name)


def unknown(found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise for a member that there is not."""
    for name in found:
        if name not in known:
            raise malformed(f"Unknown field {name}")


def listed(value: Any) -> list[Any]:
    """Return what may be one or a list as a list."""
    return value if isinstance(value, list) else [value]


def texts(value: Any) -> list[str]:
    """Return what may be one text or a list of them as a list."""
    found = listed(value)
    if not all(isinstance(each, str) for each in found):
        raise malformed(SYNTAX)
    return found


# ---------------------------------------------------------------------- statements


def check_statement(statement: Any, bucket: str) -> None:
    """Raise unless something is a statement of a bucket's policy."""
    if not isinstance(statement, dict):
        raise malformed(SYNTAX)
    unknown(statement, STATEMENT_MEMBERS)
    if not isinstance(statement.get("Sid", ""), str):
        raise malformed(SYNTAX)
    if "Effect" not in statement:
        raise malformed("Missing required field Effect")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise malformed(f"Invalid effect: {statement['Effect']}")
    for name in PAIRS:
        if name in statement and f"Not{name}" in statement:
            raise malformed(f"Statement/policy already has instance of {name}")
        if name not in statement and f"Not{name}" not in statement:
            raise malformed(f"Missing required field {name}")
    if "NotPrincipal" in statement and statement["Effect"] == "Allow":
        raise malformed("Allow with NotPrincipal is not allowed.")
    check_principal(either(statement, "Principal"))
    actions = each_of(statement, "Action", lambda one: bool(named(one)), "action")
    resources = each_of(statement, "Resource", lambda one: is_of(one, bucket), "resource")
    check_conditions(statement.get("Condition", {}), actions)
    if "Action" in statement and "Resource" in statement:
        check_applies(actions, resources)


def either(statement: Statement, name: str) -> Any:
    """Return an element of a statement, or what says what it is not."""
    return statement.get(name, statement.get(f"Not{name}"))


def each_of(
    statement: Statement, name: str, is_valid: Callable[[str], bool], noun: str
) -> list[str]:
    """Return the texts of an element; MalformedPolicy for one that can't be."""
    found = texts(either(statement, name))
    if not found:
        raise malformed(f"Missing required field {name} cannot be empty!")
    for one in dict.fromkeys(found):
        if not is_valid(one):
            raise malformed(f"Policy has invalid {noun}", one)
    return found


def is_of(resource: str, bucket: str) -> bool:
    """Tell whether a resource is the bucket, or objects in it."""
    if resource == "*":
        return True
    name, _, _ = resource.removeprefix(ARN).partition("/")
    return resource.startswith(ARN) and name.rstrip("*") == bucket


def check_applies(actions: list[str], resources: list[str]) -> None:
    """Raise for an action that none of its statement's resources can have."""
    kinds = {kind for one in resources for kind in kinds_of(one)}
    for action in dict.fromkeys(actions):
        if not any(not kinds.isdisjoint(on) for on in named(action).values()):
            raise malformed("Action does not apply to any resource(s) in statement")


def kinds_of(resource: str) -> tuple[str, ...]:
    """Return what a resource of a policy may be."""
    if "/" in resource:
        return ("object",)
    return ("bucket", "object") if resource.endswith("*") else ("bucket",)


def check_principal(principal: Any) -> None:
    """Raise unless it is `"*"`, or principals by their kind."""
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        raise malformed(PRINCIPAL)
    for kind, names in principal.items():
        found = listed(names)
        if kind not in PRINCIPAL_KINDS or not found:
            raise malformed(PRINCIPAL)
        for name in found:
            if not isinstance(name, str) or not plausible(kind, name):
                raise malformed(PRINCIPAL, f'"{kind}" : "{name}"')


def plausible(kind: str, name: str) -> bool:
    """Tell whether a principal has the form of its kind."""
    if kind != "AWS":
        return FORMS[kind].fullmatch(name) is not None
    return name == "*" or bool(ACCOUNT.fullmatch(name) or ENTITY.fullmatch(name))


# ---------------------------------------------------------------------- conditions


def check_conditions(conditions: Any, actions: list[str]) -> None:
    """Raise unless it is conditions that all these actions may have."""
    if not isinstance(conditions, dict):
        raise malformed(SYNTAX)
    plain = [each for each in dict.fromkeys(actions) if not is_pattern(each)]
    for operator, keys in conditions.items():
        if plain_operator(operator) not in (*OPERATORS, "Null"):
            raise malformed(f"Invalid Condition type : {operator}")
        if not isinstance(keys, dict):
            raise malformed(SYNTAX)
        for key, wanted in keys.items():
            if not is_key(key):
                raise malformed("Policy has an invalid condition key", key)
            if not all(key_applies(key, action) for action in plain):
                raise malformed(MISMATCH)
            check_values(plain_operator(operator), key, wanted)


def plain_operator(operator: str) -> str:
    """Return an operator without its quantifier and IfExists, which Null has not."""
    for prefix in QUANTIFIED:
        operator = operator.removeprefix(prefix)
    return operator if operator == "NullIfExists" else operator.removesuffix("IfExists")


def check_values(operator: str, key: str, wanted: Any) -> None:
    """Raise unless it is values, and addresses where addresses are compared."""
    found = listed(wanted)
    if not found or not all(isinstance(each, (str, bool, int, float)) for each in found):
        raise malformed(SYNTAX)
    if operator in ("IpAddress", "NotIpAddress") or key.lower() == "aws:sourceip":
        if operator == "Null":
            return
        for each in found:
            if not is_network(str(each)):
                raise malformed("Invalid IP address in Conditions", str(each))


def is_network(text: str) -> bool:
    """Tell whether a text is an address, or a block of them."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
