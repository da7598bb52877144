"""What S3 takes for public ("The meaning of public"), statement by statement.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
"""

from __future__ import annotations

from typing import Any

import pytest

from cloche.services.s3.public_access import is_public

ALLOW = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint"


def public(**statement: Any) -> bool:
    return is_public({"Statement": [{**ALLOW, **statement}]})


@pytest.mark.parametrize(
    "principal",
    [
        {"AWS": "123456789012"},
        {"AWS": ["arn:aws:iam::123456789012:role/r"]},
        {"Service": "cloudtrail.amazonaws.com"},
    ],
)
def test_a_fixed_principal_is_not_the_public(principal: Any) -> None:
    assert not public(Principal=principal)


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": ["123456789012", "*"]}])
def test_everybody_is_the_public(principal: Any) -> None:
    assert public(Principal=principal)
    assert not public(Principal=principal, Effect="Deny")


@pytest.mark.parametrize(
    ("operator", "key", "value", "is_so"),
    [
        ("StringEquals", "aws:SourceVpc", "vpc-91237329", False),
        ("StringLike", "aws:SourceVpc", "vpc-91237329", False),
        ("StringLike", "aws:SourceVpc", "vpc-*", True),
        ("StringEquals", "aws:SourceVpc", ["vpc-1", "vpc-*"], True),
        ("StringEquals", "aws:SourceVpc", "${aws:SourceVpc}", True),
        ("StringEqualsIfExists", "aws:SourceVpc", "vpc-1", True),
        ("StringNotEquals", "aws:SourceVpc", "vpc-1", True),
        ("ForAnyValue:StringEquals", "aws:SourceVpc", "vpc-1", False),
        ("ForAllValues:StringEquals", "aws:SourceVpc", "vpc-1", True),
        ("Null", "aws:SourceVpc", "false", True),
        ("StringEquals", "AWS:sourcevpce", "vpce-1", False),
        ("StringEquals", "aws:SourceAccount", "123456789012", False),
        ("StringEquals", "aws:SourceOwner", "123456789012", False),
        ("ArnEquals", "aws:SourceArn", "arn:aws:sns:us-east-1:123456789012:t", False),
        ("ArnLike", "aws:SourceArn", "arn:aws:sns:us-east-1:123456789012:*", True),
        ("StringEquals", "aws:PrincipalOrgID", "o-1", False),
        ("StringEquals", "aws:userid", "AIDA1", False),
        ("StringLike", "aws:userid", "AROA1:*", True),
        ("StringEquals", "s3:DataAccessPointAccount", "123456789012", False),
        ("StringLike", "s3:DataAccessPointArn", f"{POINT}/*", False),
        ("StringLike", "s3:DataAccessPointArn", "arn:aws:s3:*:*:accesspoint/a", True),
        ("StringEquals", "aws:Referer", "https://example.com", True),
        ("StringEquals", "aws:UserAgent", "me", True),
        ("Bool", "aws:SecureTransport", "true", True),
        ("StringEquals", "s3:ExistingObjectTag/public", "yes", True),
        ("IpAddress", "aws:SourceIp", "203.0.113.0/24", False),
        ("IpAddress", "aws:SourceIp", "11.0.0.0/8", False),
        ("IpAddress", "aws:SourceIp", "12.0.0.0/7", True),
        ("IpAddress", "aws:SourceIp", "0.0.0.0/0", True),
        ("IpAddress", "aws:SourceIp", ["203.0.113.0/24", "0.0.0.0/1"], True),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", False),
        ("IpAddress", "aws:SourceIp", "2001:db8::/32", False),
        ("IpAddress", "aws:SourceIp", "2001:d00::/24", True),
        ("NotIpAddress", "aws:SourceIp", "203.0.113.0/24", True),
    ],
)
def test_conditions(operator: str, key: str, value: Any, is_so: bool) -> None:
    assert public(Condition={operator: {key: value}}) is is_so


def test_one_condition_with_a_fixed_value_is_enough_and_one_public_statement_too() -> None:
    limited = {"StringEquals": {"aws:Referer": "a", "aws:SourceVpc": "vpc-1"}}
    assert not public(Condition=limited)
    assert is_public({"Statement": [{**ALLOW, "Principal": {"AWS": "123456789012"}}, ALLOW]})
    assert is_public({"Statement": ALLOW})
