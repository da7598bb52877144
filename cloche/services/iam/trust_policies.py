"""Trust policies: checked when a role is made, asked when somebody wants to assume it."""

import json

from cloche.core.authorization import Question
from cloche.core.errors import AwsError, unsupported
from cloche.services.iam.evaluation import compiled, evaluate, known_operator, listed

VERSIONS = ("2012-10-17", "2008-10-17")
PRINCIPAL_KINDS = ("AWS", "Service", "Federated", "CanonicalUser")


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
    for statement in listed(policy["Statement"]):
        check_statement(statement)


def check_statement(statement: object) -> None:
    """Raise MalformedPolicyDocument unless `statement` is one of a trust policy."""
    if not isinstance(statement, dict):
        raise malformed("Syntax errors in policy.")
    for name in ("Resource", "NotResource"):
        if name in statement:
            raise malformed("Has prohibited field Resource")
    if "NotAction" in statement:
        raise unsupported("NotAction in a trust policy")
    whom = "NotPrincipal" if "NotPrincipal" in statement else "Principal"
    if set(statement) - {"Sid", "Effect", whom, "Action", "Condition"}:
        raise malformed("Syntax errors in policy.")
    for name in ("Effect", whom, "Action"):
        if name not in statement:
            raise malformed(f"Missing required field {name}")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise malformed("Syntax errors in policy.")
    actions = listed(statement["Action"])
    if not actions or not all(isinstance(action, str) for action in actions):
        raise malformed("Syntax errors in policy.")
    if not all(action.lower().startswith("sts:") for action in actions):
        raise malformed("AssumeRole policy may only specify STS AssumeRole actions.")
    check_principal(statement[whom])
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
    """Raise MalformedPolicyDocument unless it is keys by operators that there are."""
    if not isinstance(condition, dict):
        raise malformed("Syntax errors in policy.")
    for operator, keys in condition.items():
        if not known_operator(operator) or not isinstance(keys, dict):
            raise malformed("Syntax errors in policy.")


def trusts(role_arn: str, text: str, question: Question) -> bool:
    """Tell whether a role's trust policy lets the caller in: some Allow speaks of it, no Deny."""
    return evaluate(compiled(role_arn, json.loads(text), "role trust policy"), question).allowed
