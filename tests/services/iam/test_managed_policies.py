"""Managed policies through boto3: AWS's, and those that customers make, with their versions."""

import json
from typing import Any

import pytest
from iam_client import FULL_ACCESS, client, made, policy, refused, statement, trust

from cloche.services.iam import policies
from cloche.testing.platform import ACCOUNT, Platform

TRUST = trust(Service="lambda.amazonaws.com")
NOBODY = f"arn:aws:iam::{ACCOUNT}:policy/Nobody"
S3_READS = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def created(platform: Platform, name: str, **more: Any) -> dict[str, Any]:
    iam = client(platform, "iam")
    found: dict[str, Any] = iam.create_policy(
        **{"PolicyName": name, "PolicyDocument": policy(), **more}
    )["Policy"]
    return found


def test_create_policy_keeps_what_was_sent(platform: Platform) -> None:
    iam = client(platform, "iam")
    tags = [{"Key": "b", "Value": "1"}, {"Key": "a", "Value": ""}, {"Key": "A", "Value": "x"}]
    made_ = created(platform, "Kept", Path="/team/dogs/", Description="reads", Tags=tags)
    arn = f"arn:aws:iam::{ACCOUNT}:policy/team/dogs/Kept"
    assert (made_["Arn"], made_["Path"], made_["PolicyName"]) == (arn, "/team/dogs/", "Kept")
    assert made_["PolicyId"].startswith("ANPA") and len(made_["PolicyId"]) == 21
    assert (made_["DefaultVersionId"], made_["IsAttachable"]) == ("v1", True)
    assert (made_["AttachmentCount"], made_["PermissionsBoundaryUsageCount"]) == (0, 0)
    assert (made_["Tags"], "Description" in made_) == (tags, False)
    in_order = [tags[2], tags[1], tags[0]]
    got = iam.get_policy(PolicyArn=arn)["Policy"]
    assert got == {**made_, "Description": "reads", "Tags": in_order}
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert version == {
        "Document": json.loads(policy()),
        "VersionId": "v1",
        "IsDefaultVersion": True,
        "CreateDate": made_["CreateDate"],
    }
    assert "Tags" not in created(platform, "Untagged")
    untagged = f"arn:aws:iam::{ACCOUNT}:policy/Untagged"
    assert iam.get_policy(PolicyArn=untagged)["Policy"]["Tags"] == []


def test_a_name_is_there_once(platform: Platform) -> None:
    created(platform, "Once")
    for name, path in (("Once", "/"), ("ONCE", "/other/")):
        found = refused(
            client(platform, "iam").create_policy,
            PolicyName=name,
            PolicyDocument=policy(),
            Path=path,
        )
        assert found == (
            409,
            "EntityAlreadyExists",
            f"A policy called {name} already exists. Duplicate names are not allowed.",
        )


def test_documents_are_checked(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = created(platform, "ToCheck")["Arn"]
    without = json.dumps({"Statement": [statement()]})
    large = policy(statement(resource=[f"arn:aws:s3:::{'x' * 6100}"]))
    for document, error in (
        ("no json", (400, "MalformedPolicyDocument", "Syntax errors in policy.")),
        (
            without,
            (
                400,
                "MalformedPolicyDocument",
                "Policy document must be version 2012-10-17 or greater.",
            ),
        ),
        (large, (409, "LimitExceeded", "Cannot exceed quota for PolicySize: 6144")),
    ):
        assert refused(iam.create_policy, PolicyName="Bad", PolicyDocument=document) == error
        assert refused(iam.create_policy_version, PolicyArn=arn, PolicyDocument=document) == error
    fits = json.dumps(json.loads(policy()), indent=2000)  # white space is free
    assert len(fits) > 6144
    created(platform, "Wide", PolicyDocument=fits)


def test_versions(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = created(platform, "Versions")["Arn"]
    second = policy(statement("s3:PutObject"))
    shown = iam.create_policy_version(PolicyArn=arn, PolicyDocument=second, SetAsDefault=True)
    version = shown["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v2", True)
    assert "Document" not in version
    for number in (3, 4, 5):
        shown = iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy())
        version = shown["PolicyVersion"]
        assert (version["VersionId"], version["IsDefaultVersion"]) == (f"v{number}", False)
    assert refused(iam.create_policy_version, PolicyArn=arn, PolicyDocument=second) == (
        409,
        "LimitExceeded",
        "A managed policy can have up to 5 versions. Before you create a new version, you must "
        "delete an existing version.",
    )
    listed = iam.list_policy_versions(PolicyArn=arn)
    assert [each["VersionId"] for each in listed["Versions"]] == ["v5", "v4", "v3", "v2", "v1"]
    assert [each["IsDefaultVersion"] for each in listed["Versions"]].index(True) == 3
    assert refused(iam.delete_policy_version, PolicyArn=arn, VersionId="v2") == (
        409,
        "DeleteConflict",
        "Cannot delete the default version of a policy.",
    )
    iam.delete_policy_version(PolicyArn=arn, VersionId="v5")
    again = iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy())["PolicyVersion"]
    assert again["VersionId"] == "v6"  # a number is not used again
    assert iam.get_policy(PolicyArn=arn)["Policy"]["UpdateDate"] == again["CreateDate"]
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v1"
    assert refused(iam.delete_policy, PolicyArn=arn) == (
        409,
        "DeleteConflict",
        "This policy has more than one version. Before you delete a policy, you must delete the "
        "policy's versions. The default version is deleted with the policy.",
    )
    page = iam.list_policy_versions(PolicyArn=arn, MaxItems=2)
    assert [each["VersionId"] for each in page["Versions"]] == ["v6", "v4"]
    for version_id in ("v6", "v4", "v3", "v2"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version_id)
    iam.delete_policy(PolicyArn=arn)
    assert refused(iam.get_policy, PolicyArn=arn)[1] == "NoSuchEntity"


def test_what_is_not_there(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = created(platform, "There")["Arn"]
    for policy_arn, version in ((NOBODY, "v1"), (arn, "v9")):
        asked = {"PolicyArn": policy_arn, "VersionId": version}
        text = f"Policy {policy_arn} version {version} does not exist or is not attachable."
        for call in (
            iam.get_policy_version,
            iam.delete_policy_version,
            iam.set_default_policy_version,
        ):
            assert refused(call, **asked) == (404, "NoSuchEntity", text)
    for call, more in (
        (iam.get_policy, {}),
        (iam.delete_policy, {}),
        (iam.tag_policy, {"Tags": []}),
        (iam.untag_policy, {"TagKeys": []}),
        (iam.list_policy_tags, {}),
        (iam.list_entities_for_policy, {}),
    ):
        assert refused(call, PolicyArn=NOBODY, **more) == (
            404,
            "NoSuchEntity",
            f"Policy {NOBODY} was not found.",
        )
    of_another = "arn:aws:iam::999999999999:policy/There"
    assert refused(iam.get_policy, PolicyArn=of_another)[1] == "NoSuchEntity"


def test_tags_of_a_policy(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = created(platform, "Tagged")["Arn"]
    iam.tag_policy(PolicyArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}])
    iam.tag_policy(PolicyArn=arn, Tags=[{"Key": "a", "Value": ""}])
    tags = [{"Key": "A", "Value": "2"}, {"Key": "a", "Value": ""}]
    assert iam.list_policy_tags(PolicyArn=arn)["Tags"] == tags
    page = iam.list_policy_tags(PolicyArn=arn, MaxItems=1)
    assert (page["Tags"], page["IsTruncated"]) == (tags[:1], True)
    iam.untag_policy(PolicyArn=arn, TagKeys=["a"])
    assert iam.get_policy(PolicyArn=arn)["Policy"]["Tags"] == tags[:1]
    twice = [{"Key": "a", "Value": ""}] * 2
    assert refused(iam.tag_policy, PolicyArn=arn, Tags=twice) == (
        400,
        "InvalidInput",
        "Duplicate tag keys found.",
    )


def listed(platform: Platform, **filters: Any) -> list[str]:
    pages = (
        client(platform, "iam")
        .get_paginator("list_policies")
        .paginate(**filters, PaginationConfig={"PageSize": 3})
    )
    return [each["Arn"] for page in pages for each in page["Policies"]]


def test_lists_of_policies(platform: Platform) -> None:
    iam = client(platform, "iam")
    arns = [
        created(platform, f"Listed{number}", Path=f"/listed/{number % 2}/")["Arn"]
        for number in range(5)
    ]
    assert listed(platform, Scope="AWS") == list(policies.MANAGED)
    local = listed(platform, Scope="Local", PathPrefix="/listed/")
    assert local == arns
    assert listed(platform, Scope="Local", PathPrefix="/listed/1/") == [arns[1], arns[3]]
    everything = listed(platform)
    assert everything[: len(policies.MANAGED)] == list(policies.MANAGED)
    assert set(arns) <= set(everything) and len(set(everything)) == len(everything)
    assert listed(platform, PathPrefix="/job-function/") == [
        f"{policies.PREFIX}job-function/ViewOnlyAccess"
    ]
    attached = listed(platform, OnlyAttached=True)
    assert FULL_ACCESS in attached and arns[0] not in attached
    made(platform, "Listing", TRUST, PermissionsBoundary=arns[1])
    iam.attach_role_policy(RoleName="Listing", PolicyArn=arns[0])
    mine = {"Scope": "Local", "PathPrefix": "/listed/"}
    assert listed(platform, **mine, OnlyAttached=True) == [arns[0]]
    assert listed(platform, **mine, PolicyUsageFilter="PermissionsPolicy") == [arns[0]]
    assert listed(platform, **mine, PolicyUsageFilter="PermissionsBoundary") == [arns[1]]
    assert refused(iam.list_policies, Marker="nonsense")[1:] == (
        "ValidationError",
        "Invalid Marker.",
    )
    shown = iam.list_policies(Scope="Local", PathPrefix="/listed/0/")["Policies"][0]
    assert (shown["AttachmentCount"], "Tags" in shown, "Description" in shown) == (1, False, False)


def test_who_uses_a_policy(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = created(platform, "Used")["Arn"]
    first = made(platform, "UsedFirst", TRUST, Path="/used/")
    second = made(platform, "UsedSecond", TRUST, PermissionsBoundary=arn)
    iam.attach_role_policy(RoleName="UsedFirst", PolicyArn=arn)

    def users(**more: Any) -> list[str]:
        answer = iam.list_entities_for_policy(PolicyArn=arn, **more)
        assert (answer["PolicyUsers"], answer["PolicyGroups"]) == ([], [])
        return [(each["RoleName"], each["RoleId"]) for each in answer["PolicyRoles"]]

    one, other = [(each["RoleName"], each["RoleId"]) for each in (first, second)]
    assert users() == [other, one]  # by ARN
    assert users(EntityFilter="Role") == [other, one]
    assert users(EntityFilter="User") == []
    assert users(PathPrefix="/used/") == [one]
    assert users(PolicyUsageFilter="PermissionsPolicy") == [one]
    assert users(PolicyUsageFilter="PermissionsBoundary") == [other]
    shown = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (shown["AttachmentCount"], shown["PermissionsBoundaryUsageCount"]) == (1, 1)
    conflict = (409, "DeleteConflict", "Cannot delete a policy attached to entities.")
    assert refused(iam.delete_policy, PolicyArn=arn) == conflict
    iam.detach_role_policy(RoleName="UsedFirst", PolicyArn=arn)
    assert refused(iam.delete_policy, PolicyArn=arn) == conflict
    iam.delete_role(RoleName="UsedSecond")
    iam.delete_policy(PolicyArn=arn)


@pytest.mark.parametrize(
    "name",
    [
        "AmazonSageMakerFullAccess",
        "AmazonS3FullAccess",
        "AmazonS3ReadOnlyAccess",
        "service-role/AWSLambdaBasicExecutionRole",
        "AdministratorAccess",
        "ReadOnlyAccess",
        "PowerUserAccess",
        "AWSLambda_FullAccess",
        "CloudWatchLogsFullAccess",
        "CloudWatchFullAccess",
        "AmazonEC2FullAccess",
        "AmazonEC2ReadOnlyAccess",
        "IAMFullAccess",
        "SecurityAudit",
    ],
)
def test_the_policies_of_aws_have_documents(platform: Platform, name: str) -> None:
    iam = client(platform, "iam")
    arn = policies.PREFIX + name
    shown = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (shown["Arn"], shown["IsAttachable"], shown["Tags"]) == (arn, True, [])
    assert f"{shown['Path']}{shown['PolicyName']}" == f"/{name}"
    default = shown["DefaultVersionId"]
    version = iam.get_policy_version(PolicyArn=arn, VersionId=default)["PolicyVersion"]
    assert version["IsDefaultVersion"] and version["Document"]["Statement"]
    assert iam.list_policy_versions(PolicyArn=arn)["Versions"][0]["VersionId"] == default


def test_the_policies_of_aws_are_not_for_customers_to_change(platform: Platform) -> None:
    iam = client(platform, "iam")
    for call, more in (
        (iam.delete_policy, {}),
        (iam.create_policy_version, {"PolicyDocument": policy()}),
        (iam.set_default_policy_version, {"VersionId": "v1"}),
        (iam.delete_policy_version, {"VersionId": "v1"}),
        (iam.tag_policy, {"Tags": [{"Key": "a", "Value": ""}]}),
    ):
        assert refused(call, PolicyArn=S3_READS, **more) == (
            403,
            "AccessDenied",
            "Policy is outside your own account.",
        )
    _, _, message = refused(iam.get_policy_version, PolicyArn=S3_READS, VersionId="v1")
    assert message == (
        "Cloche does not support v1 of the AWS managed policy AmazonS3ReadOnlyAccess. "
        "Its default version, v3, is here."
    )


def test_what_waits_is_refused_by_name(platform: Platform) -> None:
    iam = client(platform, "iam")
    for call in (
        iam.get_account_authorization_details,
        iam.generate_credential_report,
        iam.get_credential_report,
    ):
        with pytest.raises(Exception, match="does not support") as caught:
            call()
        assert call.__name__.replace("_", "") in str(caught.value).lower()
