"""What policies say together: AWS's evaluation logic."""

import time
from typing import Any

import pytest

from cloche.core.errors import AwsError
from cloche.services.iam import policies
from cloche.services.iam.evaluate import Asked, Decision, evaluate, like


def said(asked: Asked, *statements: dict[str, Any]) -> Decision:
    return evaluate({"p": {"Version": "2012-10-17", "Statement": list(statements)}}, asked)


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
    assert said(Asked("s3:GetObject", ALICE, context), *statements).verdict == verdict


def test_keys_that_the_context_lacks_are_named() -> None:
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    found = said(Asked("s3:GetObject"), statement(Condition=condition))
    assert (found.verdict, found.missing) == ("implicitDeny", ("iam:PassedToService",))


def test_a_condition_that_is_not_evaluated_is_refused_by_name() -> None:
    condition = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    with pytest.raises(AwsError, match="the condition operator IpAddress"):
        said(Asked("s3:GetObject"), statement(Condition=condition))
    # It does not matter where the statement is about something else.
    assert said(Asked("s3:PutObject"), statement(Condition=condition)).verdict == "implicitDeny"


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
    assert evaluate({"full": document}, Asked(action, resource)).verdict == verdict


def test_a_policy_without_a_document_is_refused_by_name() -> None:
    with pytest.raises(AwsError, match="ReadOnlyAccess"):
        policies.document(f"{policies.PREFIX}ReadOnlyAccess")


def test_wildcards_take_no_longer_with_every_star() -> None:
    begin = time.process_time()
    assert not like("*a" * 400 + "*b", "a" * 2000)
    assert like("*a" * 400 + "*b", "a" * 2000 + "b")
    assert not like("*?a" * 400 + "*b", "a" * 2000)
    assert not like("${" * 20_000, "a")
    assert time.process_time() - begin < 5


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
