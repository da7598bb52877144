"""IAM and STS through boto3."""

import json
import re
from typing import Any

import boto3
import pytest
from botocore.config import Config
from iam_client import FULL_ACCESS, S3_FULL_ACCESS, client, made, refused, trust

from cloche.testing.platform import ACCOUNT, Platform


def test_get_role_of_the_execution_role(platform: Platform) -> None:
    iam, sts = client(platform, "iam"), client(platform, "sts", "role")
    arn = sts.get_caller_identity()["Arn"]
    found = re.fullmatch(rf"arn:aws:sts::{ACCOUNT}:assumed-role/([^/]+)/[^/]+", arn)
    assert found is not None
    role = iam.get_role(RoleName=found[1])["Role"]
    assert role["Path"] == "/service-role/"
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/{found[1]}"
    principal = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert principal == {"Service": "sagemaker.amazonaws.com"}
    attached = iam.list_attached_role_policies(RoleName=found[1])["AttachedPolicies"]
    assert [each["PolicyArn"] for each in attached] == [
        S3_FULL_ACCESS,
        FULL_ACCESS,
    ]


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
    assert got == {**role, "Description": "trains", "MaxSessionDuration": 7200}
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
        (json.dumps({"Statement": []}), "Syntax errors in policy."),
        (
            json.dumps({"Statement": [{**trust(AWS="*")["Statement"][0], "Resource": "*"}]}),
            "Has prohibited field Resource",
        ),
        (json.dumps(trust(AWS="bob")), 'Invalid principal in policy: "AWS":"bob"'),
    ],
)
def test_malformed_trust(platform: Platform, document: str, message: str) -> None:
    iam = client(platform, "iam")
    found = refused(iam.create_role, RoleName="Malformed", AssumeRolePolicyDocument=document)
    assert found == (400, "MalformedPolicyDocument", message)
    name = made(platform, f"Remade{len(document)}", trust(AWS=ACCOUNT))["RoleName"]
    found = refused(iam.update_assume_role_policy, RoleName=name, PolicyDocument=document)
    assert found == (400, "MalformedPolicyDocument", message)


def test_trust_policies_have_a_size(platform: Platform) -> None:
    iam = client(platform, "iam")
    many = trust(AWS=[f"arn:aws:iam::{n:012}:root" for n in range(70)])
    asked = {"RoleName": "Large", "AssumeRolePolicyDocument": json.dumps(many)}
    error = (409, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048")
    assert refused(iam.create_role, **asked) == error
    wide = json.dumps(trust(AWS=ACCOUNT), indent=500)  # white space is free
    assert len(wide) > 2048
    iam.create_role(RoleName="Large", AssumeRolePolicyDocument=wide)
    found = refused(
        iam.update_assume_role_policy, RoleName="Large", PolicyDocument=json.dumps(many)
    )
    assert found == error


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


def test_what_a_role_says_can_be_changed(platform: Platform) -> None:
    iam = client(platform, "iam")
    role = made(platform, "Changing", trust(AWS=ACCOUNT))
    assert "Description" not in iam.get_role(RoleName="Changing")["Role"]
    iam.update_role(RoleName="Changing", Description="first", MaxSessionDuration=7200)
    iam.update_role(RoleName="Changing")  # nothing given, nothing changed
    got = iam.get_role(RoleName="Changing")["Role"]
    assert (got["Description"], got["MaxSessionDuration"]) == ("first", 7200)
    shown = iam.update_role_description(RoleName="Changing", Description="second")["Role"]
    assert shown == {**role, "Description": "second"}
    policy = trust(Service="lambda.amazonaws.com")
    iam.update_assume_role_policy(RoleName="Changing", PolicyDocument=json.dumps(policy))
    assert iam.get_role(RoleName="Changing")["Role"]["AssumeRolePolicyDocument"] == policy
    for call, more in (
        (iam.update_role, {}),
        (iam.update_role_description, {"Description": ""}),
        (iam.update_assume_role_policy, {"PolicyDocument": json.dumps(policy)}),
        (iam.tag_role, {"Tags": []}),
        (iam.untag_role, {"TagKeys": []}),
        (iam.list_role_tags, {}),
        (iam.put_role_permissions_boundary, {"PermissionsBoundary": FULL_ACCESS}),
        (iam.delete_role_permissions_boundary, {}),
    ):
        assert refused(call, RoleName="nobody", **more) == (
            404,
            "NoSuchEntity",
            "The role with name nobody cannot be found.",
        )


def test_a_new_trust_policy_is_in_force_at_once(platform: Platform) -> None:
    iam, sts = client(platform, "iam"), client(platform, "sts")
    arn = made(platform, "Closing", trust(AWS=ACCOUNT))["Arn"]
    sts.assume_role(RoleArn=arn, RoleSessionName="me")
    closed = json.dumps(trust(Service="lambda.amazonaws.com"))
    iam.update_assume_role_policy(RoleName="Closing", PolicyDocument=closed)
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me")[1] == "AccessDenied"


def test_tags_of_a_role(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Tagged", trust(AWS=ACCOUNT))
    iam.tag_role(
        RoleName="Tagged", Tags=[{"Key": "team", "Value": "cats"}, {"Key": "b", "Value": ""}]
    )
    iam.tag_role(RoleName="Tagged", Tags=[{"Key": "Team", "Value": "dogs"}])  # over `team`
    tags = [{"Key": "Team", "Value": "dogs"}, {"Key": "b", "Value": ""}]
    assert iam.list_role_tags(RoleName="Tagged")["Tags"] == tags
    page = iam.list_role_tags(RoleName="Tagged", MaxItems=1)
    assert (page["Tags"], page["IsTruncated"]) == (tags[:1], True)
    rest = iam.list_role_tags(RoleName="Tagged", MaxItems=1, Marker=page["Marker"])
    assert (rest["Tags"], rest["IsTruncated"]) == (tags[1:], False)
    iam.untag_role(RoleName="Tagged", TagKeys=["TEAM", "other"])
    assert iam.get_role(RoleName="Tagged")["Role"]["Tags"] == tags[1:]
    twice = [{"Key": "a", "Value": ""}, {"Key": "A", "Value": ""}]
    duplicate = (
        400,
        "InvalidInput",
        "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
    )
    assert refused(iam.tag_role, RoleName="Tagged", Tags=twice) == duplicate
    own = [{"Key": "aws:x", "Value": ""}]
    assert refused(iam.tag_role, RoleName="Tagged", Tags=own)[1] == "InvalidInput"
    many = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    assert refused(iam.tag_role, RoleName="Tagged", Tags=many)[:2] == (409, "LimitExceeded")


def test_permissions_boundaries(platform: Platform) -> None:
    iam = client(platform, "iam")
    missing = f"arn:aws:iam::{ACCOUNT}:policy/missing"
    made(platform, "Bounded", trust(AWS=ACCOUNT), PermissionsBoundary=FULL_ACCESS)
    shown = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": FULL_ACCESS}
    assert iam.get_role(RoleName="Bounded")["Role"]["PermissionsBoundary"] == shown
    listed = next(r for r in iam.list_roles()["Roles"] if r["RoleName"] == "Bounded")
    assert "PermissionsBoundary" not in listed
    iam.delete_role_permissions_boundary(RoleName="Bounded")
    assert "PermissionsBoundary" not in iam.get_role(RoleName="Bounded")["Role"]
    iam.delete_role_permissions_boundary(RoleName="Bounded")  # there is none: fine
    iam.put_role_permissions_boundary(RoleName="Bounded", PermissionsBoundary=FULL_ACCESS)
    assert iam.get_role(RoleName="Bounded")["Role"]["PermissionsBoundary"] == shown
    wrong = f"arn:aws:iam::{ACCOUNT}:not_a_policy/invalid"
    asked = {"RoleName": "Other", "AssumeRolePolicyDocument": json.dumps(trust(AWS=ACCOUNT))}
    for call, parameters in (
        (iam.put_role_permissions_boundary, {"RoleName": "Bounded"}),
        (iam.create_role, asked),
    ):
        assert refused(call, **parameters, PermissionsBoundary=wrong) == (
            400,
            "InvalidInput",
            f"ARN {wrong} is not valid.",
        )
        assert refused(call, **parameters, PermissionsBoundary=missing) == (
            404,
            "NoSuchEntity",
            f"Scope ARN: {missing} does not exist or is not attachable.",
        )


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
    for marker in ("nonsense", "é", "YQ=="):
        assert refused(iam.list_roles, Marker=marker)[1:] == ("ValidationError", "Invalid Marker.")


def test_pages_go_on_when_the_last_role_of_one_is_gone(platform: Platform) -> None:
    iam = client(platform, "iam")
    names = [f"Going{number}" for number in range(4)]
    for name in names:
        made(platform, name, trust(AWS=ACCOUNT), Path="/going/")
    found, marker = [], {}
    while True:
        page = iam.list_roles(PathPrefix="/going/", MaxItems=1, **marker)
        for role in page["Roles"]:
            found.append(role["RoleName"])
            iam.delete_role(RoleName=role["RoleName"])
        if not page["IsTruncated"]:
            break
        marker = {"Marker": page["Marker"]}
    assert found == names


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
    sts = client(platform, "sts", "role")
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
