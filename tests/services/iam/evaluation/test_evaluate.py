"""What policies say together: AWS's evaluation logic."""

from typing import Any

import pytest

from cloche.core.authorization import Context, Decision, Question, Values
from cloche.core.identity import Principal
from cloche.services.iam import policies
from cloche.services.iam.evaluation import compiled, evaluate, like

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION = Principal(
    kind="assumed-role",
    account=ACCOUNT,
    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s",
    user_id="AROA:s",
    role_arn=ROLE,
)


def asked(action: str, resource: str = "*", context: dict[str, Values] | None = None) -> Question:
    return Question(SESSION, action, resource, Context(context or {}))


def said(question: Question, *statements: dict[str, Any]) -> Decision:
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    return evaluate(compiled("p", policy), question)


def statement(effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "s3:Get*", "Resource": "*", **more}


ALICE = "arn:aws:s3:::b/alice/x"


@pytest.mark.parametrize(
    ("statements", "verdict"),
    [
        ([], "implicitDeny"),
        ([statement()], "allowed"),
        ([statement(), statement("Deny", Resource="arn:aws:s3:::b/*")], "explicitDeny"),
        ([statement(), statement("Deny", Resource="arn:aws:s3:::c/*")], "allowed"),
        ([statement(Action=["s3:PutObject", "S3:gETobject"])], "allowed"),
        ([statement(Action="s3:GetObjec?")], "allowed"),
        ([statement(Action="s3:Ge")], "implicitDeny"),
        ([statement(Resource="arn:aws:s3:::B/*")], "implicitDeny"),  # case counts
        ([statement(Resource="arn:aws:s3:::b/${aws:username}/*")], "allowed"),
        ([statement(Resource="arn:aws:s3:::b/${aws:userid}/*")], "implicitDeny"),
        ([{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}], "allowed"),
        ([{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}], "implicitDeny"),
        ([{"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::b/*"}], "implicitDeny"),
        ([statement(Condition={"StringEquals": {"aws:username": "alice"}})], "allowed"),
        ([statement(Condition={"StringEquals": {"AWS:UserName": ["bob"]}})], "implicitDeny"),
        ([statement(Condition={"StringLike": {"s3:prefix": "a*"}})], "implicitDeny"),
        ([statement(Condition={"StringLikeIfExists": {"s3:prefix": "a*"}})], "allowed"),
        ([statement(Condition={"Null": {"s3:prefix": "true"}})], "allowed"),
        ([statement(Condition={"Null": {"aws:username": True}})], "implicitDeny"),
        ([statement(Condition={"Bool": {"aws:SecureTransport": "true"}})], "allowed"),
    ],
)
def test_a_deny_wins_and_silence_is_a_deny(statements: list[dict[str, Any]], verdict: str) -> None:
    context = {"aws:username": "alice", "aws:securetransport": "true"}
    assert said(asked("s3:GetObject", ALICE, context), *statements).verdict == verdict


def test_keys_that_the_context_lacks_are_named() -> None:
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    found = said(asked("s3:GetObject"), statement(Condition=condition))
    assert (found.verdict, found.missing) == ("implicitDeny", ("iam:PassedToService",))


@pytest.mark.parametrize(
    ("action", "resource", "verdict"),
    [
        ("ecr:GetAuthorizationToken", "*", "allowed"),
        ("cloudwatch:PutMetricData", "*", "allowed"),
        ("ec2:DescribeVpcs", "*", "allowed"),
        ("sagemaker:CreateTrainingJob", "*", "allowed"),
        ("s3:PutObject", "arn:aws:s3:::sagemaker-us-east-1-123456789012/*", "allowed"),
        ("s3:PutObject", "arn:aws:s3:::my-own/*", "implicitDeny"),
        ("dynamodb:PutItem", "*", "implicitDeny"),
    ],
)
def test_what_sagemaker_full_access_says(action: str, resource: str, verdict: str) -> None:
    document = policies.document(policies.SAGEMAKER_FULL_ACCESS)
    assert evaluate(compiled("full", document), asked(action, resource)).verdict == verdict


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("*ab", "aab", True),
        ("a?*", "a", False),
        ("*?", "", False),
        ("a**", "a", True),
        ("*a*a", "a", False),
        ("a.c", "abc", False),
        ("?", "\n", True),
    ],
)
def test_wildcards(pattern: str, text: str, fits: bool) -> None:
    assert like(pattern, text) is fits


def test_the_decision_names_the_statements() -> None:
    decision = said(
        asked("s3:GetObject", ALICE),
        statement(Sid="All"),
        statement("Deny", Action="s3:Put*"),
        statement("Deny", Resource="arn:aws:s3:::b/*"),
    )
    assert [(by.policy, by.kind, by.place, by.sid) for by in decision.by] == [
        ("p", "identity-based policy", 2, None)
    ]
    assert said(asked("s3:GetObject", ALICE), statement(Sid="All")).by[0].sid == "All"


def test_conditions_have_variables_and_lists() -> None:
    own = statement(Condition={"StringEquals": {"s3:prefix": "${aws:username}"}})
    context: dict[str, Values] = {"aws:username": "alice", "s3:prefix": "alice"}
    assert said(asked("s3:GetObject", ALICE, context), own).allowed
    assert not said(asked("s3:GetObject", ALICE, {**context, "s3:prefix": "bob"}), own).allowed
    assert not said(asked("s3:GetObject", ALICE, {"s3:prefix": "${aws:username}"}), own).allowed
    small = statement(Condition={"StringEquals": {"sagemaker:InstanceTypes": "ml.m5.large"}})
    types: dict[str, Values] = {"sagemaker:instancetypes": ("ml.c5.large", "ml.m5.large")}
    assert said(asked("s3:GetObject", ALICE, types), small).allowed


ROOT = Principal(kind="root", account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root", user_id=ACCOUNT)
SERVICE = Principal(kind="service", account=ACCOUNT, arn="sagemaker.amazonaws.com", user_id="")


@pytest.mark.parametrize(
    ("principal", "caller", "allowed"),
    [
        ("*", SESSION, True),
        ("*", SERVICE, True),
        ({"AWS": "*"}, SESSION, True),
        ({"AWS": "*"}, SERVICE, False),
        ({"AWS": [ROLE]}, SESSION, True),
        ({"AWS": ROLE}, ROOT, False),
        ({"AWS": ACCOUNT}, SESSION, True),
        ({"AWS": ROOT.arn}, SESSION, True),
        ({"AWS": "111122223333"}, SESSION, False),
        ({"Service": ["lambda.amazonaws.com", SERVICE.arn]}, SERVICE, True),
        ({"Service": SERVICE.arn}, SESSION, False),
        ({"Service": "lambda.amazonaws.com"}, SERVICE, False),
    ],
)
def test_whom_a_trust_policy_names(principal: Any, caller: Principal, allowed: bool) -> None:
    one = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    policy = compiled(ROLE, {"Statement": one}, "role trust policy")
    assert evaluate(policy, Question(caller, "sts:AssumeRole", ROLE)).allowed == allowed
    assert not evaluate(policy, Question(caller, "sts:TagSession", ROLE)).allowed


def test_what_costs_a_look_up_is_looked_up_once_and_only_when_asked() -> None:
    looked: list[str] = []

    def tags() -> dict[str, Values]:
        looked.append("tags")
        return {"aws:resourcetag/team": "vision"}

    def question() -> Question:
        return Question(SESSION, "s3:GetObject", ALICE, Context({}, {"aws:resourcetag/": tags}))

    assert said(question(), statement()).allowed and looked == []
    for name, allowed in (("Team", True), ("Other", False)):
        looked.clear()
        condition = {"StringEquals": {f"aws:ResourceTag/{name}": "vision"}}
        conditional = statement(Condition=condition)
        assert said(question(), conditional, conditional).allowed == allowed
        assert looked == ["tags"]
