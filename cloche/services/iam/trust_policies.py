"""Trust policies: checked when a role is made, asked when somebody wants to assume it."""

import json

from cloche.core.authorization import Question
from cloche.core.errors import unsupported
from cloche.services.iam.evaluation import compiled, evaluate, listed
from cloche.services.iam.policy_grammar import TRUST
from cloche.services.iam.policy_grammar import check as check_grammar


def check(text: str) -> None:
    """Raise MalformedPolicyDocument unless `text` is a trust policy, in AWS's words."""
    policy = check_grammar(text, TRUST)
    if any("NotAction" in statement for statement in listed(policy["Statement"])):
        raise unsupported("NotAction in a trust policy")


def trusts(role_arn: str, text: str, question: Question) -> bool:
    """Tell whether a role's trust policy lets the caller in: some Allow speaks of it, no Deny."""
    return evaluate(compiled(role_arn, json.loads(text), "role trust policy"), question).allowed
