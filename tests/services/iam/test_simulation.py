"""Simulations through boto3: what policies say, without doing it."""

from typing import Any

import pytest
from iam_client import FULL_ACCESS, client, made, policy, refused, statement, trust

from cloche.records.store import Resource, insert_in
from cloche.testing.platform import ACCOUNT, Platform

TRUST = trust(Service="lambda.amazonaws.com")
GET, PUT = "s3:GetObject", "s3:PutObject"
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def decisions(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    names = ("EvalActionName", "EvalResourceName", "EvalDecision")
    return [tuple(each[name] for name in names) for each in answer["EvaluationResults"]]


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
    assert decisions({"EvaluationResults": results}) == [
        (asked[0], places[0], "allowed"),
        (asked[0], places[1], "allowed"),
        (asked[1], places[0], "allowed"),
        (asked[1], places[1], "implicitDeny"),
    ]
    matched = results[0]["MatchedStatements"][0]
    assert matched["SourcePolicyId"] == "AmazonSageMakerFullAccess"
    assert matched["SourcePolicyType"] == "IAM Policy"
    simulate = iam.simulate_principal_policy
    nobody = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    assert refused(simulate, PolicySourceArn=nobody, ActionNames=asked) == (
        404,
        "NoSuchEntity",
        "The role with name nobody cannot be found.",
    )
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


def test_all_policies_of_a_role_count(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = made(platform, "Simulated", TRUST)["Arn"]
    asked = {"PolicySourceArn": arn, "ActionNames": [GET]}

    def verdict(**more: Any) -> tuple[str, list[str]]:
        (found,) = iam.simulate_principal_policy(**{**asked, **more})["EvaluationResults"]
        return found["EvalDecision"], [m["SourcePolicyId"] for m in found["MatchedStatements"]]

    assert verdict() == ("implicitDeny", [])
    assert verdict(PolicyInputList=[policy()]) == ("allowed", ["PolicyInputList.1"])
    iam.put_role_policy(RoleName="Simulated", PolicyName="own", PolicyDocument=policy())
    assert verdict() == ("allowed", ["role_Simulated_own"])
    customer = iam.create_policy(PolicyName="SimulatedOne", PolicyDocument=policy())["Policy"]
    iam.attach_role_policy(RoleName="Simulated", PolicyArn=customer["Arn"])
    assert verdict() == ("allowed", ["SimulatedOne", "role_Simulated_own"])
    # The version that is in force is the one that counts.
    denied = policy(statement(Effect="Deny"))
    iam.create_policy_version(PolicyArn=customer["Arn"], PolicyDocument=denied)
    assert verdict()[0] == "allowed"
    iam.set_default_policy_version(PolicyArn=customer["Arn"], VersionId="v2")
    assert verdict() == ("explicitDeny", ["SimulatedOne"])
    iam.detach_role_policy(RoleName="Simulated", PolicyArn=customer["Arn"])
    assert verdict()[0] == "allowed"


def test_boundaries(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = made(platform, "BoundedRole", TRUST, PermissionsBoundary=READ_ONLY)["Arn"]
    wide = policy(statement("s3:*"))
    iam.put_role_policy(RoleName="BoundedRole", PolicyName="all", PolicyDocument=wide)
    asked = {"PolicySourceArn": arn, "ActionNames": [GET, PUT]}

    def found(**more: Any) -> list[tuple[str, Any]]:
        results = iam.simulate_principal_policy(**asked, **more)["EvaluationResults"]
        return [
            (
                each["EvalDecision"],
                each.get("PermissionsBoundaryDecisionDetail", {}).get(
                    "AllowedByPermissionsBoundary"
                ),
            )
            for each in results
        ]

    assert found() == [("allowed", True), ("implicitDeny", False)]
    puts = [policy(statement(PUT))]
    # One that is given counts instead of the role's own.
    assert found(PermissionsBoundaryPolicyInputList=puts) == [
        ("implicitDeny", False),
        ("allowed", True),
    ]
    denies = [policy(statement("*"), statement(PUT, Effect="Deny"))]
    assert found(PermissionsBoundaryPolicyInputList=denies) == [
        ("allowed", True),
        ("explicitDeny", False),
    ]
    iam.delete_role_permissions_boundary(RoleName="BoundedRole")
    assert found() == [("allowed", None), ("allowed", None)]


def test_simulate_custom_policy(platform: Platform) -> None:
    iam = client(platform, "iam")
    objects = "arn:aws:s3:::b/*"
    answer = iam.simulate_custom_policy(
        PolicyInputList=[policy(statement(GET, objects)), policy(statement(PUT, Effect="Deny"))],
        ActionNames=[GET, PUT],
        ResourceArns=["arn:aws:s3:::b/k", "arn:aws:s3:::c/k"],
    )
    assert [each[2] for each in decisions(answer)] == [
        "allowed",
        "implicitDeny",
        "explicitDeny",
        "explicitDeny",
    ]
    matched = answer["EvaluationResults"][0]["MatchedStatements"]
    column = len('{"Version": "2012-10-17", "Statement": [') + 1
    end = len(policy(statement(GET, objects))) - 1
    assert matched == [
        {
            "SourcePolicyId": "PolicyInputList.1",
            "SourcePolicyType": "IAM Policy",
            "StartPosition": {"Line": 1, "Column": column},
            "EndPosition": {"Line": 1, "Column": end},
        }
    ]
    bounded = iam.simulate_custom_policy(
        PolicyInputList=[policy(statement("s3:*"))],
        PermissionsBoundaryPolicyInputList=[policy(statement(GET))],
        ActionNames=[GET, PUT],
    )
    assert [each[2] for each in decisions(bounded)] == ["allowed", "implicitDeny"]
    for wrong in ("{", policy(statement(Principal="*"))):
        asked = {"PolicyInputList": [wrong], "ActionNames": [GET]}
        assert refused(iam.simulate_custom_policy, **asked)[1] == "InvalidInput"


@pytest.mark.parametrize(
    ("kind", "values", "verdict"),
    [
        ("string", ["a"], "allowed"),
        ("string", ["c"], "implicitDeny"),
        ("stringList", ["c", "a"], "allowed"),
        ("stringList", ["c", "d"], "implicitDeny"),
    ],
)
def test_context_entries(platform: Platform, kind: str, values: list[str], verdict: str) -> None:
    condition = {"StringEquals": {"aws:RequestTag/Team": ["a", "b"]}}
    iam = client(platform, "iam")
    asked = {"PolicyInputList": [policy(statement(Condition=condition))], "ActionNames": [GET]}
    (missing,) = iam.simulate_custom_policy(**asked)["EvaluationResults"]
    assert missing["EvalDecision"] == "implicitDeny"
    assert missing["MissingContextValues"] == ["aws:RequestTag/Team"]
    entry = {
        "ContextKeyName": "aws:requesttag/team",
        "ContextKeyValues": values,
        "ContextKeyType": kind,
    }
    (found,) = iam.simulate_custom_policy(**asked, ContextEntries=[entry])["EvaluationResults"]
    assert (found["EvalDecision"], found["MissingContextValues"]) == (verdict, [])
    several = {**entry, "ContextKeyType": "string", "ContextKeyValues": ["a", "b"]}
    found = refused(iam.simulate_custom_policy, **asked, ContextEntries=[several])
    assert found[1] == "InvalidInput"


def test_who_is_simulated_is_in_the_context(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = made(platform, "InContext", TRUST)["Arn"]
    own = statement(Condition={"ArnEquals": {"aws:PrincipalArn": arn}})
    iam.put_role_policy(RoleName="InContext", PolicyName="own", PolicyDocument=policy(own))
    answer = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=[GET])
    assert answer["EvaluationResults"][0]["EvalDecision"] == "allowed"


def test_context_keys(platform: Platform) -> None:
    iam = client(platform, "iam")
    one = policy(
        statement(
            resource="arn:aws:s3:::b/${aws:username}/${aws:PrincipalTag/team, 'none'}/${*}",
            Condition={
                "StringLike": {"s3:prefix": ["${aws:userid}/*", "public/*"]},
                "Bool": {"aws:SecureTransport": "true"},
            },
        ),
        statement(Condition={"Null": {"AWS:UserName": "false"}}),
    )
    keys = ["aws:username", "aws:PrincipalTag/team", "s3:prefix", "aws:userid"]
    found = iam.get_context_keys_for_custom_policy(PolicyInputList=[one])["ContextKeyNames"]
    assert found == [*keys, "aws:SecureTransport"]
    arn = made(platform, "WithKeys", TRUST)["Arn"]
    iam.attach_role_policy(RoleName="WithKeys", PolicyArn=FULL_ACCESS)
    iam.put_role_policy(RoleName="WithKeys", PolicyName="one", PolicyDocument=one)
    found = iam.get_context_keys_for_principal_policy(PolicySourceArn=arn)["ContextKeyNames"]
    assert {*keys, "iam:PassedToService"} <= set(found)
    more = policy(statement(Condition={"Bool": {"aws:ViaAWSService": "true"}}))
    found = iam.get_context_keys_for_principal_policy(PolicySourceArn=arn, PolicyInputList=[more])
    assert "aws:ViaAWSService" in found["ContextKeyNames"]


def test_pages_of_large_policies_are_shorter_than_asked_for(platform: Platform) -> None:
    iam = client(platform, "iam")
    large = [policy(statement(resource=["arn:aws:s3:::" + "x" * 120_000]))] * 8
    asked = {"PolicyInputList": large, "ActionNames": [GET, PUT, "s3:ListBucket"]}
    pages = iam.get_paginator("simulate_custom_policy").paginate(
        **asked, ResourceArns=["arn:aws:s3:::b", "arn:aws:s3:::c"]
    )
    found = [len(page["EvaluationResults"]) for page in pages]
    assert found == [4, 2]


def recorded(platform: Platform, kind: str, name: str, **document: Any) -> str:
    now = platform.app.store.clock.now()
    record = Resource(
        account=ACCOUNT,
        region="",
        kind=kind,
        name=name.lower(),
        arn=f"arn:aws:iam::{ACCOUNT}:{kind}/{name}",
        created=now,
        modified=now,
        document=document,
    )
    platform.app.store.write_now(lambda connection: insert_in(connection, record))
    return record.arn


def test_users_and_groups_are_simulated(platform: Platform) -> None:
    iam = client(platform, "iam")
    own = statement(GET, "arn:aws:s3:::home/${aws:username}/*")
    group = recorded(platform, "group", "Readers", Inline={"all": policy(own)}, GroupName="Readers")
    user = recorded(
        platform,
        "user",
        "ann",
        UserName="ann",
        UserId="AIDA1",
        Groups=["Readers"],
        Inline={"own": policy(statement(PUT))},
    )
    answer = iam.simulate_principal_policy(
        PolicySourceArn=user,
        ActionNames=[GET, PUT],
        ResourceArns=["arn:aws:s3:::home/ann/k", "arn:aws:s3:::home/bob/k"],
    )
    found = [
        (each["EvalDecision"], [one["SourcePolicyId"] for one in each["MatchedStatements"]])
        for each in answer["EvaluationResults"]
    ]
    assert found == [
        ("allowed", ["group_Readers_all"]),
        ("implicitDeny", []),
        ("allowed", ["user_ann_own"]),
        ("allowed", ["user_ann_own"]),
    ]
    keys = iam.get_context_keys_for_principal_policy(PolicySourceArn=group)["ContextKeyNames"]
    assert keys == ["aws:username"]
    nobody = f"arn:aws:iam::{ACCOUNT}:user/nobody"
    asked = {"PolicySourceArn": nobody, "ActionNames": [GET]}
    assert refused(iam.simulate_principal_policy, **asked) == (
        404,
        "NoSuchEntity",
        "The user with name nobody cannot be found.",
    )
