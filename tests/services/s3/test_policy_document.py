"""Which documents a bucket may have as its policy, and how S3 refuses the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloche.core.errors import AwsError
from cloche.services.s3.policy_actions import fits
from cloche.services.s3.policy_document import LARGEST, read

BUCKET, OBJECTS = "arn:aws:s3:::mine", "arn:aws:s3:::mine/*"
USER = "arn:aws:iam::111122223333:user/ann"
GOOD = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": OBJECTS}
WITHOUT = object()


def refusal(text: str) -> str | None:
    """Return how a policy is refused; None: it is not."""
    try:
        read(text, "mine")
    except AwsError as error:
        assert (error.code, error.status) == ("MalformedPolicy", 400)
        return error.message
    return None


def policy(**statement: Any) -> str:
    """Return a good policy, save for these elements of its statement."""
    made = {key: value for key, value in {**GOOD, **statement}.items() if value is not WITHOUT}
    return json.dumps({"Version": "2012-10-17", "Statement": [made]})


def when(**conditions: Any) -> dict[str, Any]:
    return {"Condition": conditions}


@pytest.mark.parametrize(
    "statement",
    [
        {},
        {"Effect": "Deny"},
        {"Sid": "any thing, 1"},
        {"Principal": {"AWS": "111122223333"}},
        {"Principal": {"AWS": ["arn:aws:iam::111122223333:root", USER, "*"]}},
        {"Principal": {"AWS": "arn:aws:iam::111122223333:role/service-role/r+=,.@-_"}},
        {"Principal": {"AWS": "arn:aws:sts::111122223333:assumed-role/r/session"}},
        {"Principal": {"Service": ["cloudtrail.amazonaws.com", "logs.us-east-1.amazonaws.com"]}},
        {"Principal": {"Federated": "cognito-identity.amazonaws.com"}},
        {"Principal": {"CanonicalUser": "a1" * 32}},
        {"Principal": WITHOUT, "NotPrincipal": {"AWS": USER}, "Effect": "Deny"},
        {"Action": "*"},
        {"Action": "S3:getobject"},
        {"Action": ["s3:Get*", "s3:ListBucket"], "Resource": [BUCKET, OBJECTS]},
        {"Action": WITHOUT, "NotAction": "s3:DeleteObject"},
        {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::mine*"},
        {"Resource": "*"},
        {"Resource": WITHOUT, "NotResource": f"{BUCKET}/private/*", "Effect": "Deny"},
        {"Action": "s3:ListBucket", "Resource": BUCKET, **when(StringLike={"s3:prefix": "a/*"})},
        when(StringEquals={"s3:ExistingObjectTag/Team": ["a", "b"]}),
        when(IpAddress={"aws:SourceIp": ["10.0.0.0/8", "2001:db8::1"]}),
        when(Bool={"aws:SecureTransport": False}, Null={"s3:authType": "true"}),
        when(**{"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": "a"}}),
        when(NumericLessThan={"s3:TlsVersion": 1.2, "s3:signatureAge": 600000}),
        when(StringEquals={"aws:AnythingAtAll": "is a global key"}),
        {"Action": "s3:Put*", **when(StringEquals={"s3:x-amz-acl": "private"})},
    ],
)
def test_policies_that_a_bucket_may_have(statement: dict[str, Any]) -> None:
    assert refusal(policy(**statement)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Policies must be valid JSON and the first byte must be '{'"),
        (" {}", "Policies must be valid JSON and the first byte must be '{'"),
        ("[]", "Policies must be valid JSON and the first byte must be '{'"),
        ("{", "This policy contains invalid Json"),
        ('{"Statement": NaN}', "This policy contains invalid Json"),
        ("{" + '"a":{' * 3000, "This policy contains invalid Json"),
        ('{"a":' + "[" * 15000, "This policy contains invalid Json"),
        ("{}", "Missing required field Statement"),
        ('{"Statement": []}', "Could not parse the policy: Statement is empty!"),
        ('{"Statement": [1]}', "Invalid policy syntax."),
        ('{"Statements": []}', "Unknown field Statements"),
        (
            '{"Version": "2012-10-18", "Statement": []}',
            "The policy must contain a valid version string",
        ),
        ('{"Id": 1, "Statement": []}', "Invalid policy syntax."),
        ('{"Id": "a", "Id": "b"}', "Statement/policy already has instance of Id"),
    ],
)
def test_documents_that_are_no_policy(text: str, said: str) -> None:
    assert refusal(text) == said


CONDITION = "Conditions do not apply to combination of actions and resources in statement"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ({"Effect": WITHOUT}, "Missing required field Effect"),
        ({"Principal": WITHOUT}, "Missing required field Principal"),
        ({"Action": WITHOUT}, "Missing required field Action"),
        ({"Resource": WITHOUT}, "Missing required field Resource"),
        ({"Effect": "allow"}, "Invalid effect: allow"),
        ({"Colour": "red"}, "Unknown field Colour"),
        ({"Sid": 1}, "Invalid policy syntax."),
        ({"NotAction": "s3:*"}, "Statement/policy already has instance of Action"),
        ({"Principal": "ann"}, "Invalid principal in policy"),
        ({"Principal": {}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": []}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": "ann"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"{USER}*"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": "AIDAEXAMPLE"}}, "Invalid principal in policy"),
        ({"Principal": {"Service": "cloudtrail"}}, "Invalid principal in policy"),
        ({"Principal": {"Group": USER}}, "Invalid principal in policy"),
        (
            {"Principal": WITHOUT, "NotPrincipal": {"AWS": USER}},
            "Allow with NotPrincipal is not allowed.",
        ),
        ({"Action": "s3:GetObjects"}, "Policy has invalid action"),
        ({"Action": "ec2:*"}, "Policy has invalid action"),
        ({"Action": "s3:ListAllMyBuckets"}, "Policy has invalid action"),
        ({"Action": []}, "Missing required field Action cannot be empty!"),
        ({"Action": [1]}, "Invalid policy syntax."),
        ({"Resource": "arn:aws:s3:::other/*"}, "Policy has invalid resource"),
        ({"Resource": "arn:aws:s3:::mine-too/*"}, "Policy has invalid resource"),
        ({"Resource": "arn:aws:s3:::m*/a"}, "Policy has invalid resource"),
        ({"Resource": "mine/*"}, "Policy has invalid resource"),
        ({"Resource": BUCKET}, "Action does not apply to any resource(s) in statement"),
        ({"Action": "s3:ListBucket"}, "Action does not apply to any resource(s) in statement"),
        ({"Action": "s3:ListBucket*"}, "Action does not apply to any resource(s) in statement"),
        ({"Condition": []}, "Invalid policy syntax."),
        (when(StringEquals=[]), "Invalid policy syntax."),
        (when(StringEquals={"aws:Referer": []}), "Invalid policy syntax."),
        (when(StringEquals={"aws:Referer": {}}), "Invalid policy syntax."),
        (when(StringIs={"aws:Referer": "a"}), "Invalid Condition type : StringIs"),
        (when(NullIfExists={"aws:Referer": "true"}), "Invalid Condition type : NullIfExists"),
        (when(StringEquals={"s3:colour": "a"}), "Policy has an invalid condition key"),
        (when(StringEquals={"ec2:Region": "a"}), "Policy has an invalid condition key"),
        (when(StringEquals={"s3:prefix": "a"}), CONDITION),
        (
            {
                "Action": ["s3:GetObject", "s3:PutObject"],
                **when(StringEquals={"s3:x-amz-acl": "private"}),
            },
            CONDITION,
        ),
        (when(IpAddress={"aws:SourceIp": "10.0.0.256"}), "Invalid IP address in Conditions"),
        (when(StringEquals={"aws:SourceIp": "here"}), "Invalid IP address in Conditions"),
    ],
)
def test_statements_that_a_bucket_can_not_have(statement: dict[str, Any], said: str) -> None:
    assert refusal(policy(**statement)) == said


def test_a_policy_of_more_than_20_kb() -> None:
    longest = policy(Sid="x" * (LARGEST - len(policy(Sid=""))))
    assert len(longest) == 20480 and refusal(longest) is None
    assert refusal(longest + " ") == "Policy exceeds the maximum allowed document size."


def test_the_detail_names_what_is_wrong() -> None:
    for statement, detail in (
        ({"Resource": ["*", "arn:aws:s3:::a"]}, "arn:aws:s3:::a"),
        ({"Principal": {"AWS": [USER, "ann"]}}, '"AWS" : "ann"'),
    ):
        with pytest.raises(AwsError) as caught:
            read(policy(**statement), "mine")
        assert caught.value.fields["Detail"] == detail


@pytest.mark.parametrize(
    ("pattern", "text", "is_so"),
    [
        ("get*", "getobject", True),
        ("*object", "getobject", True),
        ("g?t*", "getobject", True),
        ("*get", "getobject", False),
        ("getobject?", "getobject", False),
        ("getobject*", "getobject", True),
        ("*a*a*a*a*a*a*a*a*b", "a" * 60, False),
    ],
)
def test_patterns_of_actions(pattern: str, text: str, is_so: bool) -> None:
    assert fits(pattern, text) is is_so
