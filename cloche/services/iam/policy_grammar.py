"""What may be stored as a policy: the grammar of every kind, and AWS's words for what breaks it.

The order of the checks is AWS's: which of several faults is named depends on it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cloche.core.errors import AwsError
from cloche.services.iam.evaluation import known_operator, listed
from cloche.services.iam.policy_parts import (
    action_fault,
    is_date,
    legacy_arn,
    plausible_principal,
    resource_fault,
    unprintable,
)

Policy = Mapping[str, Any]
NEWEST, OLDER = "2012-10-17", "2008-10-17"
TOP = frozenset({"Version", "Id", "Statement"})
ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)
EXCLUSIVE = (("Action", "NotAction"), ("Resource", "NotResource"), ("Principal", "NotPrincipal"))
PRINCIPAL_KINDS = ("AWS", "Service", "Federated", "CanonicalUser")
SID = re.compile(r"[0-9A-Za-z]*")
LONGEST = 131_072  # characters, of any policy document (the model's policyDocumentType)
DEEPEST = 8  # levels of lists and objects: no element has more than five
Fault = Literal[
    "json",
    "syntax",
    "version",
    "legacy",
    "sid form",
    "sid twice",
    "no statement",
    "no effect",
    "no principal",
    "no action",
    "no resource",
    "principal",
    "resource",
    "not principal",
    "not action",
    "foreign action",
]
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_policies.html, and what IAM answered
SYNTAX = "Syntax errors in policy."
IDENTITY_WORDS: Mapping[Fault, str] = {
    "json": SYNTAX,
    "syntax": SYNTAX,
    "no statement": SYNTAX,
    "no effect": SYNTAX,
    "version": f"Policy document must be version {NEWEST} or greater.",
    "legacy": "The policy failed legacy parsing",
    "sid form": (
        "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular "
        "expression [0-9A-Za-z]*"
    ),
    "sid twice": "Statement IDs (SID) in a single policy must be unique.",
    "no action": "Policy statement must contain actions.",
    "no resource": "Policy statement must contain resources.",
    "principal": "Policy document should not specify a principal.",
}
TRUST_WORDS: Mapping[Fault, str] = {
    **IDENTITY_WORDS,
    "json": "This policy contains invalid Json",
    "no statement": "Missing required field Statement",
    "no effect": "Missing required field Effect",
    "no principal": "Missing required field Principal",
    "no action": "Missing required field Action",
    "resource": "Has prohibited field Resource",
    "foreign action": "AssumeRole policy may only specify STS AssumeRole actions.",
}


def malformed(message: str) -> AwsError:
    """Return IAM's refusal of a policy document."""
    return AwsError("MalformedPolicyDocument", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What policies of one kind hold.

    principals, resources: whether each statement names them. `resources="own"`: it must, and which
    ARNs are right is for the resource's service to say.
    words: of each fault; one that has none is a syntax error ("syntax" has some).
    refuse: makes the error of a text.
    """

    principals: Literal["required", "forbidden"]
    resources: Literal["required", "forbidden", "own"]
    versions: tuple[str, ...] = (NEWEST, OLDER, "")  # "": without one, it is the older
    vendor: str | None = None  # the only service whose actions it may name
    words: Mapping[Fault, str]
    refuse: Callable[[str], AwsError] = malformed

    def fault(self, name: Fault) -> AwsError:
        """Return the refusal of a policy with this fault."""
        return self.refuse(self.words.get(name) or self.words["syntax"])


# Inline policies and session policies.
IDENTITY = Rules(principals="forbidden", resources="required", words=IDENTITY_WORDS)
# Customer managed policies, and so boundaries: only of the newest version.
MANAGED = replace(IDENTITY, versions=(NEWEST,))
TRUST = Rules(principals="required", resources="forbidden", vendor="sts", words=TRUST_WORDS)


def check(text: str, rules: Rules) -> Policy:
    """Return a policy document as JSON's values; what it breaks is refused, in AWS's words."""
    policy = parsed(text, rules)
    statements = check_syntax(policy, rules)
    if policy.get("Version", "") not in rules.versions:
        raise rules.fault("version")
    resources = check_legacy(statements, rules)
    check_sids(statements, rules)
    check_principals(statements, rules)
    for statement in statements:
        if not elements(statement, "Action", "NotAction"):
            raise rules.fault("no action")
    if resources is not None:
        raise rules.refuse(resources)
    check_actions(statements, rules)
    if rules.resources != "forbidden":
        for statement in statements:
            if not elements(statement, "Resource", "NotResource"):
                raise rules.fault("no resource")
    return policy


# ---------------------------------------------------------------------- JSON


def parsed(text: str, rules: Rules) -> dict[str, Any]:
    """Return the JSON object that a text spells: bounded, no key twice, all of it printable."""
    if len(text) > LONGEST:
        raise rules.fault("json")
    try:
        policy = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise rules.fault("json") from error
    if not isinstance(policy, dict) or not shallow(policy):
        raise rules.fault("syntax")
    return policy


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; one whose keys are not unique is marked, to be refused as such."""
    made = dict(pairs)
    return made if len(made) == len(pairs) else {**made, "": None}


def no_constant(name: str) -> None:
    """Refuse NaN and Infinity, which JSON has not."""
    raise ValueError(f"{name} is not JSON")


def shallow(policy: object) -> bool:
    """Tell whether nothing lies too deep, no key is there twice and every text can be shown."""
    level = [policy]
    for _ in range(DEEPEST):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                if "" in value or any(unprintable(key) for key in value):
                    return False
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and unprintable(value):
                return False
        if not below:
            return True
        level = below
    return False


# ---------------------------------------------------------------------- syntax


def check_syntax(policy: dict[str, Any], rules: Rules) -> list[dict[str, Any]]:
    """Return the statements; refused is what has elements that do not exist, or of a wrong type."""
    if not policy.keys() <= TOP or not isinstance(policy.get("Id", ""), str):
        raise rules.fault("syntax")
    if policy.get("Version", NEWEST) not in (NEWEST, OLDER):
        raise rules.fault("syntax")
    if "Statement" not in policy:
        raise rules.fault("no statement")
    statements = listed(policy["Statement"])
    if not statements:
        raise rules.fault("syntax")
    for statement in statements:
        check_statement(statement, rules)
    return statements


def check_statement(statement: object, rules: Rules) -> None:
    """Refuse a statement whose elements are not of the grammar's types."""
    if not isinstance(statement, dict) or not statement.keys() <= ELEMENTS:
        raise rules.fault("syntax")
    if any(one in statement and other in statement for one, other in EXCLUSIVE):
        raise rules.fault("syntax")
    if not isinstance(statement.get("Sid", ""), str):
        raise rules.fault("syntax")
    if "Effect" not in statement:
        raise rules.fault("no effect")
    effect = statement["Effect"]
    if not isinstance(effect, str) or effect.lower() not in ("allow", "deny"):
        raise rules.fault("syntax")
    for name in ("Action", "NotAction", "Resource", "NotResource"):
        if not all(isinstance(each, str) for each in listed(statement.get(name, []))):
            raise rules.fault("syntax")
    check_condition(statement.get("Condition", {}), rules)


def check_condition(condition: object, rules: Rules) -> None:
    """Refuse a condition of a wrong form, and an operator that there is not."""
    if not isinstance(condition, dict):
        raise rules.fault("syntax")
    for operator, keys in condition.items():
        if not isinstance(keys, dict):
            raise rules.fault("syntax")
        if keys and not known_operator(operator):
            raise rules.fault("syntax")
        for values in keys.values():
            if not all(isinstance(value, str | bool | int | float) for value in listed(values)):
                raise rules.fault("syntax")


# ---------------------------------------------------------------------- what AWS checks after


def check_legacy(statements: Iterable[dict[str, Any]], rules: Rules) -> str | None:
    """Return the first resource that is no ARN; refused is what the older parser could not read."""
    for statement in statements:
        if statement["Effect"] not in ("Allow", "Deny") or not all(dates(statement)):
            raise rules.fault("legacy")
    if rules.resources != "required":
        return None
    for statement in statements:
        found = elements(statement, "Resource", "NotResource")
        wrong = next(filter(None, map(resource_fault, found)), None)
        if wrong is not None:
            return wrong
        if not all(map(legacy_arn, found)):
            raise rules.fault("legacy")
    return None


def dates(statement: dict[str, Any]) -> Iterator[bool]:
    """Yield of each date that a statement compares with whether it is one."""
    for operator, keys in statement.get("Condition", {}).items():
        if operator.rpartition(":")[2].startswith("Date"):
            for values in keys.values():
                yield from (is_date(value) for value in listed(values))


def check_sids(statements: list[dict[str, Any]], rules: Rules) -> None:
    """Refuse Sids of other characters, and two that are the same."""
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if rules.resources == "required" and not all(SID.fullmatch(sid) for sid in sids):
        raise rules.fault("sid form")
    if len(sids) != len(set(sids)):
        raise rules.fault("sid twice")


def check_actions(statements: Iterable[dict[str, Any]], rules: Rules) -> None:
    """Refuse what is not `vendor:Action`, or an action of another service than the rules say."""
    for statement in statements:
        for action in elements(statement, "Action", "NotAction"):
            wrong = action_fault(action)
            vendor = action.partition(":")[0].lower()
            if rules.vendor is not None and (wrong or vendor != rules.vendor):
                raise rules.fault("foreign action")
            if wrong is not None:
                raise rules.refuse(wrong)


def check_principals(statements: Iterable[dict[str, Any]], rules: Rules) -> None:
    """Refuse principals where there may be none, none where there must be, and what is none."""
    for statement in statements:
        if rules.resources == "forbidden" and statement.keys() & {"Resource", "NotResource"}:
            raise rules.fault("resource")
        present = statement.keys() & {"Principal", "NotPrincipal"}
        if rules.principals == "forbidden":
            if present:
                raise rules.fault("principal")
            continue
        if not present:
            raise rules.fault("no principal")
        for name in present:
            check_principal(statement[name], rules)


def check_principal(principal: object, rules: Rules) -> None:
    """Refuse a Principal element unless it is `"*"`, or principals by their kind."""
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        raise rules.fault("syntax")
    for kind, names in principal.items():
        if kind not in PRINCIPAL_KINDS or not listed(names):
            raise rules.fault("syntax")
        for name in listed(names):
            if not isinstance(name, str):
                raise rules.fault("syntax")
            if not plausible_principal(kind, name):
                raise rules.refuse(f'Invalid principal in policy: "{kind.upper()}":"{name}"')


# ---------------------------------------------------------------------- documents


def elements(statement: Mapping[str, Any], *names: str) -> list[str]:
    """Return what is in the first of these elements that a statement has, as a list."""
    return next((listed(statement[name]) for name in names if name in statement), [])
