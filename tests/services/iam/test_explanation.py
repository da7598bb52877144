"""Why IAM answered so, and what is missing: the statement, once added, allows the request."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.core.authorization import Context, PolicyKind, Question, Values
from cloche.core.identity import Principal
from cloche.services.iam.evaluation import Applying, Statements, compiled, decide, together
from cloche.services.iam.explanation import explained

ACCOUNT, OTHER = "123456789012", "999999999999"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION = Principal(
    kind="assumed-role",
    account=ACCOUNT,
    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s",
    user_id="AROA:s",
    role_arn=ROLE,
)
ENDPOINT = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/dog"
INVOKE = "sagemaker:InvokeEndpoint"


def policy(*statements: dict[str, Any], kind: PolicyKind = "identity-based policy") -> Statements:
    return compiled("p", {"Version": "2012-10-17", "Statement": list(statements)}, kind)


def allow(action: str = INVOKE, resource: str = ENDPOINT, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def ask(
    applying: Applying,
    action: str = INVOKE,
    resource: str = ENDPOINT,
    context: dict[str, Values] | None = None,
) -> tuple[Question, dict[str, Any]]:
    question = Question(SESSION, action, resource, Context(context or {}))
    return question, explained(applying, question, decide(applying, question))


ALL: dict[PolicyKind, Statements] = {
    "identity-based policy": policy(allow()),
    "permissions boundary": policy(allow(), kind="permissions boundary"),
    "session policy": policy(allow(), kind="session policy"),
}


@pytest.mark.parametrize("lacking", list(ALL))
def test_the_statement_once_added_allows_it(lacking: PolicyKind) -> None:
    """In the kind of policy that is said to lack it; and no other request is allowed by it."""
    none = Statements(lacking, ())
    parts = {**ALL, lacking: none}

    def applying(of: dict[PolicyKind, Statements]) -> Applying:
        return Applying(
            of["identity-based policy"], of["permissions boundary"], of["session policy"]
        )

    question, found = ask(applying(parts))
    assert found["lacking"] == lacking and found["verdict"] == "implicitDeny"
    added = policy(found["statement"], kind=lacking)
    parts[lacking] = together(lacking, [none, added])
    assert decide(applying(parts), question).allowed
    for action, resource in (("sagemaker:DeleteEndpoint", ENDPOINT), (INVOKE, f"{ENDPOINT}2")):
        assert not decide(Applying(added), Question(SESSION, action, resource)).allowed


def test_a_role_is_passed_to_one_service() -> None:
    keys: dict[str, Values] = {"iam:passedtoservice": "sagemaker.amazonaws.com"}
    question, found = ask(Applying(policy()), "iam:PassRole", ROLE, keys)
    assert found["statement"] == {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": ROLE,
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    }
    added = Applying(policy(found["statement"]))
    assert decide(added, question).allowed
    other = Context({"iam:passedtoservice": "lambda.amazonaws.com"})
    assert not decide(added, Question(SESSION, "iam:PassRole", ROLE, other)).allowed


def test_another_accounts_resource_needs_a_statement_that_names_the_caller() -> None:
    applying = Applying(policy(allow("s3:*", "*")), resource_account=OTHER)
    question, found = ask(applying, "s3:GetObject", "arn:aws:s3:::theirs/k")
    assert found["statement"] == {
        "Effect": "Allow",
        "Principal": {"AWS": ROLE},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::theirs/k",
    }
    added = policy(found["statement"], kind="resource-based policy")
    allowed = Applying(applying.identity, resource=added, resource_account=OTHER)
    assert decide(allowed, question).allowed


def test_what_is_denied_needs_no_further_statement() -> None:
    denied = policy(allow(), {"Sid": "No", "Effect": "Deny", "Action": "*", "Resource": "*"})
    _, found = ask(Applying(denied))
    assert found["statement"] is None and found["lacking"] is None
    assert [(s["number"], s["sid"], s["effect"], s["applies"]) for s in found["statements"]] == [
        (1, None, "Allow", True),
        (2, "No", "Deny", True),
    ]


def test_why_a_statement_does_not_apply() -> None:
    said = policy(
        allow(resource=f"{ENDPOINT}2"),
        allow(Condition={"StringEquals": {"aws:RequestedRegion": "eu-west-1", "aws:Missing": "x"}}),
        allow("sagemaker:ListEndpoints", "*"),
    )
    _, found = ask(Applying(said), context={"aws:requestedregion": "us-east-1"})
    assert found["looked_at"] == 3 and len(found["statements"]) == 2
    first, second = found["statements"]
    assert not first["resource"] and first["conditions"] == []
    assert second["resource"] and not second["applies"]
    assert second["conditions"] == [
        {"key": "aws:RequestedRegion", "values": ["us-east-1"], "holds": False},
        {"key": "aws:Missing", "values": [], "holds": False},
    ]
    assert found["missing_keys"] == ["aws:Missing"]


def test_of_many_statements_some_are_shown() -> None:
    _, found = ask(Applying(policy(*[allow(resource=f"{ENDPOINT}{n}") for n in range(200)])))
    assert found["looked_at"] == 200 and len(found["statements"]) == 50
