"""What may be stored as a policy.

Sources of the texts: what IAM answered CreatePolicy and UpdateAssumeRolePolicy with (February 2026,
recorded by LocalStack's validated tests; the same documents as moto's, recorded earlier).
"""

import json
import time
from typing import Any

import pytest

from cloche.core.errors import AwsError
from cloche.services.iam import policies
from cloche.services.iam.policy_grammar import IDENTITY, MANAGED, TRUST, Rules, check

SYNTAX = "Syntax errors in policy."
LEGACY = "The policy failed legacy parsing"
VERSION = "Policy document must be version 2012-10-17 or greater."
VENDOR = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
ACTIONS = "Policy statement must contain actions."
RESOURCES = "Policy statement must contain resources."
UNIQUE = "Statement IDs (SID) in a single policy must be unique."
ALPHANUMERIC = (
    "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular "
    "expression [0-9A-Za-z]*"
)
BUCKET = "arn:aws:s3:::example_bucket"
WITHOUT = object()
FOLDERS = (
    "user/, federated-user/, role/, group/, instance-profile/, mfa/, server-certificate/, "
    "policy/, sms-mfa/, saml-provider/, oidc-provider/, report/, access-report/"
)


def statement(**more: Any) -> dict[str, Any]:
    made = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": BUCKET, **more}
    return {name: value for name, value in made.items() if value is not WITHOUT}


def policy(*statements: Any, **more: Any) -> str:
    """Return a document; one statement stands without a list."""
    body = statements[0] if len(statements) == 1 else list(statements)
    made = {"Version": "2012-10-17", "Statement": body, **more}
    return json.dumps({name: value for name, value in made.items() if value is not WITHOUT})


def refusal(text: str, rules: Rules = MANAGED) -> str | None:
    try:
        check(text, rules)
    except AwsError as error:
        assert (error.code, error.status) == ("MalformedPolicyDocument", 400)
        return error.message
    return None


def condition(operator: str, value: Any) -> str:
    return policy(statement(Condition={operator: {"a": value}}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("This is not a json document", SYNTAX),
        ("[]", SYNTAX),
        (policy(statement(), Version=WITHOUT), VERSION),
        (policy(statement(), Version="2008-10-17"), VERSION),
        (policy(statement(), Version="2013-10-17"), SYNTAX),
        (policy(statement(), Version={}), SYNTAX),
        ('{"Version": "2012-10-17"}', SYNTAX),
        (policy("afd"), SYNTAX),
        (policy(["afd"]), SYNTAX),
        (policy(), SYNTAX),
        (policy(statement(), **{"Extra field": "value"}), SYNTAX),
        (policy(statement(**{"Extra field": "value"})), SYNTAX),
        (policy(statement(), Id=["a"]), SYNTAX),
        (policy(statement(), Id={}), SYNTAX),
        (policy(statement(Effect="invalid")), SYNTAX),
        (policy(statement(Effect=WITHOUT)), SYNTAX),
        (policy(statement(Effect=["Allow"])), SYNTAX),
        (policy(statement(Action="invalid")), VENDOR),
        (policy(statement(Action=WITHOUT, NotAction="")), VENDOR),
        (policy(statement(Action="a a:ListBucket")), "Vendor a a is not valid"),
        (
            policy(statement(Action="s3:List:Bucket")),
            "Actions/Condition can contain only one colon.",
        ),
        (
            policy(statement(Action="s3s:ListBucket"), statement(Action="s:3s:ListBucket")),
            "Actions/Condition can contain only one colon.",
        ),
        (
            policy(statement(Resource="invalid resource")),
            'Resource invalid resource must be in ARN format or "*".',
        ),
        (policy(statement(Resource="")), 'Resource  must be in ARN format or "*".'),
        (
            policy(statement(Action="s:3:ListBucket", Resource="sdfsadf")),
            'Resource sdfsadf must be in ARN format or "*".',
        ),
        (policy(statement(Resource=["adf"])), 'Resource adf must be in ARN format or "*".'),
        (
            policy(statement(Resource="a:bsdfdsafsad")),
            'Partition "bsdfdsafsad" is not valid for resource "arn:bsdfdsafsad:*:*:*:*".',
        ),
        (
            policy(statement(Resource="a:b:cadfsdf")),
            'Partition "b" is not valid for resource "arn:b:cadfsdf:*:*:*".',
        ),
        (
            policy(statement(Resource="a:b:c:d:e:f:g:h")),
            'Partition "b" is not valid for resource "arn:b:c:d:e:f:g:h".',
        ),
        (
            policy(statement(Resource="aws:s3:::example_bucket")),
            'Partition "s3" is not valid for resource "arn:s3:::example_bucket:*".',
        ),
        (
            policy(
                statement(
                    Resource=["arn:error:s3:::example_bucket", "arn:error:s3::example_bucket"]
                )
            ),
            'Partition "error" is not valid for resource "arn:error:s3:::example_bucket".',
        ),
        (policy(statement(Resource=WITHOUT)), RESOURCES),
        (policy(statement(Resource=[])), RESOURCES),
        (policy(statement(Action=WITHOUT)), ACTIONS),
        (policy(statement(Action=[])), ACTIONS),
        (policy({"Effect": "Allow"}), ACTIONS),
        (policy({"Effect": "Deny"}, statement()), ACTIONS),
        (
            policy(statement(Resource="arn:aws:iam:::example_bucket")),
            f'IAM resource path must either be "*" or start with {FOLDERS}.',
        ),
        (policy(statement(Resource="arn:aws:s3::example_bucket")), LEGACY),
        (policy(statement(Action=WITHOUT, Resource="arn:aws:s3::example_bucket")), LEGACY),
        (
            policy(statement(Resource="arn:aws")),
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (
            policy(statement(Resource="arn:aws:s*:::b")),
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (policy(statement(Resource={"a": BUCKET})), SYNTAX),
        (policy(statement(Resource=["adfdf", {}])), SYNTAX),
        (policy(statement(NotResource=[])), SYNTAX),
        (policy(statement(NotResource="*")), SYNTAX),
        (policy(statement(Action=[[]])), SYNTAX),
        (policy(statement(Action=[], NotAction="s3:ListBucket")), SYNTAX),
        (policy(statement(Action={})), SYNTAX),
        (policy(statement(Action=[None])), SYNTAX),
        (policy(statement(Condition=[])), SYNTAX),
        (policy(statement(Condition="a")), SYNTAX),
        (policy(statement(Condition={"a": "b"})), SYNTAX),
        (policy(statement(Condition={"DateGreaterThan": "b"})), SYNTAX),
        (policy(statement(Condition={"DateGreaterThan": []})), SYNTAX),
        (condition("DateGreaterThan", {}), SYNTAX),
        (condition("StringEquals", [None]), SYNTAX),
        (condition("StringEquals", [["a"]]), SYNTAX),
        (condition("x", "1"), SYNTAX),
        (condition("ForAnyValue::StringEqualsIfExists", "asf"), SYNTAX),
        (condition("NullIfExists", "true"), SYNTAX),
        (
            policy(statement(Resource="arn:aws:iam:us-east-1::example_bucket")),
            "IAM resource arn:aws:iam:us-east-1::example_bucket cannot contain region information.",
        ),
        (
            policy(statement(Resource="arn:aws:s3:us-east-1::example_bucket")),
            "Resource arn:aws:s3:us-east-1::example_bucket can not contain region information.",
        ),
        (policy(statement(Sid={})), SYNTAX),
        (policy(statement(Sid=[])), SYNTAX),
        (policy(statement(Sid="sdf"), {"Sid": "sdf", "Effect": "Allow"}), UNIQUE),
        (policy(statement(Sid="sdf"), {"Sid": "sdf", "Effect": "Allow"}, Version=WITHOUT), VERSION),
        (policy(statement(Sid="a b")), ALPHANUMERIC),
        (policy(statement(Sid="a_b")), ALPHANUMERIC),
        (policy(statement(Effect="denY")), LEGACY),
        (policy(statement(Effect="denY"), Version=WITHOUT), VERSION),
        (policy(statement(Effect="aLLow", Sid="sdf"), {"Sid": "sdf", "Effect": "Allow"}), LEGACY),
        (policy(statement(Effect="allow", Resource="arn:aws:s3:us-east-1::b")), LEGACY),
        (condition("DateGreaterThan", "sdfdsf"), LEGACY),
        (condition("DateLessThanEquals", "234-13"), LEGACY),
        (condition("DateLessThanEquals", "2016-12-13t2:00:00.593194+1"), LEGACY),
        (condition("DateLessThanEquals", "2016-12-13t2:00:00.1999999999+10:59"), LEGACY),
        (condition("DateLessThan", "9223372036854775808"), LEGACY),
        (policy(statement(Resource="arn:aws::::example_bucket")), LEGACY),
        (policy(statement(Action=WITHOUT, NotAction="s3:x", Resource="arn:aws::fdsasf")), LEGACY),
        (policy(statement(Resource=WITHOUT, NotResource="arn:aws:s3::example_bucket")), LEGACY),
        (policy(statement(Principal="*")), "Policy document should not specify a principal."),
        (
            policy(statement(NotPrincipal={"AWS": "*"})),
            "Policy document should not specify a principal.",
        ),
    ],
)
def test_what_iam_refuses(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    "text",
    [
        policy([statement()]),
        policy(statement(Resource=[BUCKET, "*"])),
        policy(statement(Action="*")),
        policy(statement(Action="iam: asdf safdsf af ")),
        policy(statement(Action="s3-s:ListBucket")),
        policy(statement(Action="s3.s:ListBucket")),
        policy(statement(Resource="arn:aws:iam:::user/example_bucket")),
        policy(statement(Resource="arn:aws:iam::*:user/${aws:username}")),
        policy(statement(Resource="arn:aws:s33:::example_bucket")),
        policy(statement(Resource="arn:aws:fdsasf")),
        policy(statement(Resource="arn:aws:cloudwatch:us-east-1::example_bucket")),
        policy(statement(Resource="arn:aws:s3:us-east-1:123456789012:accesspoint/a")),
        policy(statement(Condition={})),
        policy(statement(Condition={"DateGreaterThan": {}})),
        policy(statement(Condition={"x": {}, "y": {}})),
        policy(statement(Action=WITHOUT, NotAction="s3:x", Resource=WITHOUT, NotResource="*")),
        policy(statement(), Id="sdfsdfsdf"),
        policy(statement(Sid="sdf"), statement()),
        policy(statement(Sid=""), statement(Sid="")),
        condition("DateGreaterThan", []),
        condition("DateGreaterThan", "01T"),
        condition("DateGreaterThan", "2017-07-01T00:00:00Z"),
        condition("DateLessThanEquals", "2016-12-13T21:20:37.593194+00:00"),
        condition("DateLessThanEquals", "2016-12-13t2:00:00.593194+23"),
        condition("DateLessThan", "-292275054"),
        condition("DateLessThan", 1_500_000_000),
        condition("Bool", True),
        condition("NumericLessThan", [10, 2.5]),
        condition("StringEqualsIfExists", "asf"),
        condition("ForAnyValue:StringEqualsIfExists", "asf"),
        condition("ForAllValues:StringLike", ["a*"]),
        condition("IpAddress", "10.0.0.0/8"),
        condition("BinaryEquals", "QQ=="),
        condition("ArnNotLikeIfExists", "arn:aws:s3:::*"),
        condition("Null", "true"),
    ],
)
def test_what_iam_stores(text: str) -> None:
    assert refusal(text) is None


def test_inline_policies_may_be_of_the_older_version() -> None:
    for version in ("2008-10-17", WITHOUT):
        text = policy(statement(), Version=version)
        assert (refusal(text, IDENTITY), refusal(text, MANAGED)) == (None, VERSION)


def test_every_policy_of_aws_is_one() -> None:
    for arn in policies.MANAGED:
        assert refusal(json.dumps(policies.document(arn))) is None, arn


def trust(**more: Any) -> str:
    body = {"Resource": WITHOUT, "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
    return policy(statement(**{**body, **more}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "This policy contains invalid Json"),
        ("[]", SYNTAX),
        ('{"Version": "2012-10-17"}', "Missing required field Statement"),
        (trust(Effect=WITHOUT), "Missing required field Effect"),
        (trust(Action=WITHOUT), "Missing required field Action"),
        (trust(Principal=WITHOUT), "Missing required field Principal"),
        (trust(Resource="*"), "Has prohibited field Resource"),
        (trust(NotResource="*"), "Has prohibited field Resource"),
        (trust(Action="s3:*"), "AssumeRole policy may only specify STS AssumeRole actions."),
        (trust(Action="*"), "AssumeRole policy may only specify STS AssumeRole actions."),
        (trust(Principal={}), SYNTAX),
        (trust(Principal={"Person": "a"}), SYNTAX),
        (trust(Principal={"AWS": []}), SYNTAX),
        (trust(Principal={"AWS": "bob"}), 'Invalid principal in policy: "AWS":"bob"'),
        (trust(Principal={"Service": ["x"]}), 'Invalid principal in policy: "SERVICE":"x"'),
        (trust(Condition={"StringIs": {"a": "b"}}), SYNTAX),
        (trust(), None),
        (trust(Principal="*", Sid="with a space"), None),
        (trust(Principal=WITHOUT, NotPrincipal={"AWS": "123456789012"}), None),
        (trust(NotPrincipal={"AWS": "123456789012"}), SYNTAX),
        (trust(Action=["sts:AssumeRole", "sts:TagSession"]), None),
        (trust(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), None),
    ],
)
def test_trust_policies(text: str, message: str | None) -> None:
    assert refusal(text, TRUST) == message


BUCKET_POLICY = Rules(
    principals="required",
    resources="own",
    words={"syntax": "Policies must be valid", "no principal": "Missing required field Principal"},
    refuse=lambda text: AwsError("MalformedPolicy", text),
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy(statement()), "Missing required field Principal"),
        (policy(statement(Principal="*", Resource=WITHOUT)), "Policies must be valid"),
        ("{", "Policies must be valid"),
    ],
)
def test_policies_of_resources_have_words_of_their_own(text: str, message: str) -> None:
    with pytest.raises(AwsError) as caught:
        check(text, BUCKET_POLICY)
    assert (caught.value.code, caught.value.message) == ("MalformedPolicy", message)
    check(policy(statement(Principal="*", Resource="for the bucket to say")), BUCKET_POLICY)


TWICE = policy(statement()).replace('"Effect"', '"Effect": "Deny", "Effect"')


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"Version":' * 30_000,
        '{"a":' * 900 + "1" + "}" * 900,
        policy(statement(Action=[[[[[["s3:x"]]]]]])),
        TWICE,
        TWICE.replace('"Effect"', '"":1,"Effect"', 1),
        policy(statement(Resource="arn:aws:s3:::\ud800")),
        policy(statement(Resource="\x00")),
        policy(statement(Condition={"StringEquals": {"\x01": "a"}})),
        policy(statement()).replace('"Allow"', "NaN"),
        policy(statement()).replace('"Allow"', "9" * 5000),
        policy(statement(Resource=["*"] * 40_000)),
    ],
)
def test_hostile_documents_are_syntax_errors_soon(text: str) -> None:
    begin = time.process_time()
    assert refusal(text) == SYNTAX
    assert time.process_time() - begin < 1


def test_large_documents_take_linear_time() -> None:
    many = policy(statement(Resource=[f"arn:aws:s3:::{n:05}/*" for n in range(5_000)]))
    long = policy(statement(Resource="arn:aws:s3:::" + "*?" * 60_000))
    date = condition("DateEquals", "1" * 120_000)
    begin = time.process_time()
    assert (refusal(many), refusal(long), refusal(date)) == (None, None, LEGACY)
    assert time.process_time() - begin < 2
