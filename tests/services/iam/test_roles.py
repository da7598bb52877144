"""IAM and STS through boto3."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cloche.testing.platform import ACCOUNT, Platform

Trust = dict[str, Any]
FULL_ACCESS = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"


def trust(**principal: str) -> Trust:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


@cache
def client(platform: Platform, service: str) -> Any:
    """Return a client; making one takes longer than most requests."""
    return platform.client(service)


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def made(platform: Platform, name: str, policy: Trust, **more: Any) -> dict[str, Any]:
    text = json.dumps(policy)
    role: dict[str, Any] = client(platform, "iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=text, **more
    )["Role"]
    return role


def test_get_role_of_the_execution_role(platform: Platform) -> None:
    iam, sts = client(platform, "iam"), client(platform, "sts")
    arn = sts.get_caller_identity()["Arn"]
    found = re.fullmatch(rf"arn:aws:sts::{ACCOUNT}:assumed-role/([^/]+)/[^/]+", arn)
    assert found is not None
    role = iam.get_role(RoleName=found[1])["Role"]
    assert role["Path"] == "/service-role/"
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/{found[1]}"
    principal = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert principal == {"Service": "sagemaker.amazonaws.com"}
    attached = iam.list_attached_role_policies(RoleName=found[1])["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": FULL_ACCESS}]


def test_create_role_keeps_what_was_sent(platform: Platform) -> None:
    policy = trust(Service="lambda.amazonaws.com")
    role = made(
        platform,
        "Trainer",
        policy,
        Path="/team/",
        Description="trains",
        MaxSessionDuration=7200,
        Tags=[{"Key": "team", "Value": "dogs"}],
    )
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/Trainer"
    assert role["RoleId"].startswith("AROA")
    assert role["AssumeRolePolicyDocument"] == policy
    got = client(platform, "iam").get_role(RoleName="trainer")["Role"]  # names ignore case
    assert got == role
    assert (got["Description"], got["MaxSessionDuration"]) == ("trains", 7200)
    assert got["Tags"] == [{"Key": "team", "Value": "dogs"}]


def test_errors_in_the_words_of_aws(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Twice", trust(Service="lambda.amazonaws.com"))
    policy = json.dumps(trust(Service="lambda.amazonaws.com"))
    assert refused(iam.create_role, RoleName="twice", AssumeRolePolicyDocument=policy) == (
        409,
        "EntityAlreadyExists",
        "Role with name twice already exists.",
    )
    for call in (iam.get_role, iam.delete_role, iam.list_attached_role_policies):
        assert refused(call, RoleName="nobody") == (
            404,
            "NoSuchEntity",
            "The role with name nobody cannot be found.",
        )
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="nobody")
    assert refused(iam.get_user, UserName="ann")[1:] == (
        "NoSuchEntity",
        "The user with name ann cannot be found.",
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "This policy contains invalid Json"),
        ("[" * 100_000, "This policy contains invalid Json"),
        ("[]", "Syntax errors in policy."),
        ('{"Version": "2012-10-17"}', "Missing required field Statement"),
        (
            json.dumps({"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole"}}),
            "Missing required field Principal",
        ),
        (
            json.dumps({"Statement": [{**trust(AWS="*")["Statement"][0], "Resource": "*"}]}),
            "Has prohibited field Resource",
        ),
        (
            json.dumps({"Statement": [{**trust(AWS="*")["Statement"][0], "Action": "s3:*"}]}),
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
        (json.dumps(trust(AWS="bob")), 'Invalid principal in policy: "AWS":"bob"'),
        (json.dumps(trust(Service="x")), 'Invalid principal in policy: "SERVICE":"x"'),
    ],
)
def test_malformed_trust(platform: Platform, document: str, message: str) -> None:
    iam = client(platform, "iam")
    found = refused(iam.create_role, RoleName="Malformed", AssumeRolePolicyDocument=document)
    assert found == (400, "MalformedPolicyDocument", message)


def test_a_condition_operator_that_there_is_not_is_malformed(platform: Platform) -> None:
    policy = trust(AWS=ACCOUNT)
    policy["Statement"][0]["Condition"] = {"StringSounds": {"aws:SourceIp": "10.0.0.0/8"}}
    document = json.dumps(policy)
    iam = client(platform, "iam")
    assert refused(iam.create_role, RoleName="Odd", AssumeRolePolicyDocument=document) == (
        400,
        "MalformedPolicyDocument",
        "Syntax errors in policy.",
    )


def test_a_trust_policy_asks_for_an_address_and_names_exceptions(platform: Platform) -> None:
    sts = client(platform, "sts")
    arns = {}
    for name, block in (("Near", "127.0.0.0/8"), ("Far", "10.0.0.0/8")):
        policy = trust(AWS=ACCOUNT)
        policy["Statement"][0]["Condition"] = {"IpAddress": {"aws:SourceIp": block}}
        arns[name] = made(platform, name, policy)["Arn"]
    sts.assume_role(RoleArn=arns["Near"], RoleSessionName="me")
    assert refused(sts.assume_role, RoleArn=arns["Far"], RoleSessionName="me")[1] == "AccessDenied"
    me = sts.get_caller_identity()["Arn"]
    role = client(platform, "iam").get_role(RoleName=me.split("/")[1])["Role"]["Arn"]
    mine = [me, role, f"arn:aws:iam::{ACCOUNT}:root"]
    for name, excepted, allowed in (("ButMe", mine, True), ("ButRoot", mine[2:], False)):
        policy = trust(AWS=ACCOUNT)
        deny = {"Effect": "Deny", "NotPrincipal": {"AWS": excepted}, "Action": "sts:AssumeRole"}
        policy["Statement"].append(deny)
        arn = made(platform, name, policy)["Arn"]
        if allowed:
            sts.assume_role(RoleArn=arn, RoleSessionName="me")
        else:
            found = refused(sts.assume_role, RoleArn=arn, RoleSessionName="me")
            assert found[1] == "AccessDenied"


def test_what_would_pretend_enforcement_is_refused_by_name(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Bounded", trust(Service="lambda.amazonaws.com"))
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    _, _, message = refused(
        iam.put_role_policy, RoleName="Bounded", PolicyName="p", PolicyDocument=policy
    )
    assert "PutRolePolicy" in message
    _, _, message = refused(
        iam.create_role,
        RoleName="Boundary",
        AssumeRolePolicyDocument=json.dumps(trust(AWS=ACCOUNT)),
        PermissionsBoundary=FULL_ACCESS,
    )
    assert "PermissionsBoundary" in message


def test_list_roles_pages_and_prefixes(platform: Platform) -> None:
    iam = client(platform, "iam")
    names = [f"Paged{number}" for number in range(5)]
    for name in names:
        made(platform, name, trust(AWS=ACCOUNT), Path="/paged/")
    pages = iam.get_paginator("list_roles").paginate(
        PathPrefix="/paged/", PaginationConfig={"PageSize": 2}
    )
    found = [[role["RoleName"] for role in page["Roles"]] for page in pages]
    assert found == [names[:2], names[2:4], names[4:]]
    assert refused(iam.list_roles, Marker="nonsense")[1:] == ("ValidationError", "Invalid Marker.")


def test_policies_are_recorded(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Attached", trust(AWS=ACCOUNT))
    for arn in (FULL_ACCESS, "arn:aws:iam::aws:policy/AmazonS3FullAccess", FULL_ACCESS):
        iam.attach_role_policy(RoleName="Attached", PolicyArn=arn)
    attached = iam.list_attached_role_policies(RoleName="Attached")["AttachedPolicies"]
    assert [one["PolicyName"] for one in attached] == [
        "AmazonS3FullAccess",
        "AmazonSageMakerFullAccess",
    ]
    assert refused(iam.delete_role, RoleName="Attached") == (
        409,
        "DeleteConflict",
        "Cannot delete entity, must detach all policies first.",
    )
    nothing = "arn:aws:iam::aws:policy/NoSuchPolicy"
    assert refused(iam.attach_role_policy, RoleName="Attached", PolicyArn=nothing)[1:] == (
        "NoSuchEntity",
        f"Policy {nothing} does not exist or is not attachable.",
    )
    for one in attached:
        iam.detach_role_policy(RoleName="Attached", PolicyArn=one["PolicyArn"])
    assert refused(iam.detach_role_policy, RoleName="Attached", PolicyArn=FULL_ACCESS)[1:] == (
        "NoSuchEntity",
        f"Policy {FULL_ACCESS} was not found.",
    )
    iam.delete_role(RoleName="Attached")


def test_root_is_the_one_user(platform: Platform) -> None:
    user = platform.client("iam", as_="root").get_user()["User"]
    assert (user["UserId"], user["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
    assert refused(client(platform, "iam").get_user)[1:] == (
        "ValidationError",
        "Must specify userName when calling with non-User credentials",
    )
    assert client(platform, "iam").list_account_aliases()["AccountAliases"] == []


# ---------------------------------------------------------------------- STS


def with_keys(platform: Platform, service: str, keys: dict[str, Any]) -> Any:
    return boto3.client(
        service,
        endpoint_url=platform.address,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def test_assume_role_gives_keys_that_work(platform: Platform) -> None:
    role = made(platform, "Assumed", trust(AWS=f"arn:aws:iam::{ACCOUNT}:root"))
    answer = client(platform, "sts").assume_role(
        RoleArn=role["Arn"], RoleSessionName="tester", DurationSeconds=900
    )
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/Assumed/tester"
    assert answer["AssumedRoleUser"] == {"AssumedRoleId": f"{role['RoleId']}:tester", "Arn": arn}
    who = with_keys(platform, "sts", answer["Credentials"]).get_caller_identity()
    assert (who["Arn"], who["UserId"]) == (arn, f"{role['RoleId']}:tester")


def test_assume_role_asks_the_trust_policy(platform: Platform) -> None:
    sts = client(platform, "sts")
    caller = sts.get_caller_identity()["Arn"]
    execution = client(platform, "iam").list_roles(PathPrefix="/service-role/")["Roles"][0]["Arn"]
    other = made(platform, "ForAnother", trust(AWS="arn:aws:iam::999999999999:root"))["Arn"]
    for arn in (execution, other, f"arn:aws:iam::{ACCOUNT}:role/nobody"):
        assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me") == (
            403,
            "AccessDenied",
            f"User: {caller} is not authorized to perform: sts:AssumeRole on resource: {arn}",
        )
    named = made(platform, "ForTheRole", trust(AWS=execution))["Arn"]
    sts.assume_role(RoleArn=named, RoleSessionName="me")


def test_external_id_and_deny(platform: Platform) -> None:
    sts = client(platform, "sts")
    policy = trust(AWS=ACCOUNT)
    policy["Statement"][0]["Condition"] = {"StringEquals": {"sts:ExternalId": "secret"}}
    policy["Statement"].append(
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sts:AssumeRole",
            "Condition": {"StringLike": {"sts:RoleSessionName": "bad-*"}},
        }
    )
    arn = made(platform, "External", policy)["Arn"]
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="good")[1] == "AccessDenied"
    sts.assume_role(RoleArn=arn, RoleSessionName="good", ExternalId="secret")
    denied = {"RoleArn": arn, "RoleSessionName": "bad-one", "ExternalId": "secret"}
    assert refused(sts.assume_role, **denied)[1] == "AccessDenied"


def test_sessions_last_no_longer_than_allowed(platform: Platform) -> None:
    sts = client(platform, "sts")
    short = made(platform, "Short", trust(AWS=ACCOUNT))["Arn"]
    assert refused(sts.assume_role, RoleArn=short, RoleSessionName="me", DurationSeconds=7200) == (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    )
    long = made(platform, "Long", trust(AWS=ACCOUNT), MaxSessionDuration=43200)["Arn"]
    assert refused(sts.assume_role, RoleArn=long, RoleSessionName="me", DurationSeconds=7200)[
        2
    ].endswith("exceeds the 1 hour session limit for roles assumed by role chaining.")


def test_root(platform: Platform) -> None:
    sts = platform.client("sts", as_="root")
    who = sts.get_caller_identity()
    assert (who["Arn"], who["UserId"]) == (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    arn = made(platform, "NotByRoot", trust(AWS=ACCOUNT))["Arn"]
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me") == (
        403,
        "AccessDenied",
        "Roles may not be assumed by root accounts.",
    )
    keys = sts.get_session_token()["Credentials"]
    assert with_keys(platform, "sts", keys).get_caller_identity()["Arn"] == who["Arn"]
    assert refused(client(platform, "sts").get_session_token) == (
        403,
        "AccessDenied",
        "Cannot call GetSessionToken with session credentials",
    )


def test_simulate_principal_policy(platform: Platform) -> None:
    iam = client(platform, "iam")
    role = next(r for r in iam.list_roles()["Roles"] if "ExecutionRole" in r["RoleName"])
    asked = ["ecr:GetAuthorizationToken", "s3:PutObject"]
    places = ["arn:aws:s3:::sagemaker-x/*", "arn:aws:s3:::other/*"]
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=role["Arn"],
        ActionNames=asked,
        ResourceArns=places,
        PaginationConfig={"PageSize": 3},
    )
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [(r["EvalActionName"], r["EvalResourceName"], r["EvalDecision"]) for r in results] == [
        (asked[0], places[0], "allowed"),
        (asked[0], places[1], "allowed"),
        (asked[1], places[0], "allowed"),
        (asked[1], places[1], "implicitDeny"),
    ]
    assert results[0]["MatchedStatements"][0]["SourcePolicyId"] == "AmazonSageMakerFullAccess"
    simulate = iam.simulate_principal_policy
    nobody = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    assert refused(simulate, PolicySourceArn=nobody, ActionNames=asked)[1] == "NoSuchEntity"
    nameless = [{"ContextKeyValues": ["x"], "ContextKeyType": "string"}]
    asked_so = {"PolicySourceArn": role["Arn"], "ActionNames": asked}
    assert refused(simulate, **asked_so, ContextEntries=nameless)[1:] == (
        "InvalidInput",
        "Invalid Context Entry: ContextKeyName is missing",
    )
    for marker in ("x", "99", "-1"):
        assert refused(simulate, **asked_so, Marker=marker)[1:] == (
            "ValidationError",
            "Invalid Marker.",
        )
    bad = refused(simulate, PolicySourceArn=role["Arn"], ActionNames=["s3:*"])
    assert bad[1:] == ("InvalidInput", "Invalid Action Name: s3:*")
