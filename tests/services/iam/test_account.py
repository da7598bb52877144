"""The account's alias and summary, instance profiles, service-linked roles, through boto3."""

import json
from typing import Any

import pytest
from people import refused

from cloche.testing.platform import ACCOUNT, Platform

SAGEMAKER = "sagemaker.application-autoscaling.amazonaws.com"
SCALING_ROLE = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
EC2 = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@pytest.fixture(scope="module")
def iam(platform: Platform) -> Any:
    return platform.client("iam", as_="root")


def test_the_account_has_one_alias(iam: Any) -> None:
    iam.create_account_alias(AccountAlias="first-one")
    iam.create_account_alias(AccountAlias="second-one")
    assert iam.list_account_aliases()["AccountAliases"] == ["second-one"]
    assert refused(iam.delete_account_alias, AccountAlias="first-one") == (
        404,
        "NoSuchEntity",
        "The account alias first-one cannot be found.",
    )
    iam.delete_account_alias(AccountAlias="second-one")
    assert iam.list_account_aliases()["AccountAliases"] == []


def test_the_summary_counts(iam: Any) -> None:
    before = iam.get_account_summary()["SummaryMap"]
    assert (before["UsersQuota"], before["AccountAccessKeysPresent"]) == (5000, 1)
    iam.create_user(UserName="Counted")
    iam.create_group(GroupName="Counted")
    iam.create_virtual_mfa_device(VirtualMFADeviceName="Counted")
    iam.create_instance_profile(InstanceProfileName="Counted")
    iam.create_role(RoleName="Counted", AssumeRolePolicyDocument=json.dumps(EC2))
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    iam.create_policy(PolicyName="Counted", PolicyDocument=document)
    after = iam.get_account_summary()["SummaryMap"]
    more = {name: after[name] - before[name] for name in before if after[name] != before[name]}
    assert more == {
        "Users": 1,
        "Groups": 1,
        "MFADevices": 1,
        "InstanceProfiles": 1,
        "Roles": 1,
        "Policies": 1,
        "PolicyVersionsInUse": 1,
    }


def test_an_instance_profile_and_its_role(iam: Any) -> None:
    made = iam.create_instance_profile(InstanceProfileName="Machine", Path="/m/")
    profile = made["InstanceProfile"]
    assert profile["Arn"] == f"arn:aws:iam::{ACCOUNT}:instance-profile/m/Machine"
    assert profile["InstanceProfileId"].startswith("AIPA") and profile["Roles"] == []
    again = refused(iam.create_instance_profile, InstanceProfileName="machine")
    assert again == (409, "EntityAlreadyExists", "Instance Profile machine already exists.")
    for name in ("OnMachine", "Another"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(EC2))
    add, remove = iam.add_role_to_instance_profile, iam.remove_role_from_instance_profile
    add(InstanceProfileName="Machine", RoleName="OnMachine")
    got = iam.get_instance_profile(InstanceProfileName="Machine")["InstanceProfile"]
    assert [role["RoleName"] for role in got["Roles"]] == ["OnMachine"] and got["Tags"] == []
    of_role = iam.list_instance_profiles_for_role(RoleName="OnMachine")["InstanceProfiles"]
    assert [each["InstanceProfileName"] for each in of_role] == ["Machine"]
    assert iam.list_instance_profiles_for_role(RoleName="Another")["InstanceProfiles"] == []
    listed = iam.list_instance_profiles(PathPrefix="/m/")["InstanceProfiles"]
    assert [each["InstanceProfileName"] for each in listed] == ["Machine"]
    assert refused(add, InstanceProfileName="Machine", RoleName="Another") == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1",
    )
    first = "Cannot delete entity, must remove roles from instance profile first."
    assert refused(iam.delete_instance_profile, InstanceProfileName="Machine") == (
        409,
        "DeleteConflict",
        first,
    )
    assert refused(iam.delete_role, RoleName="OnMachine") == (409, "DeleteConflict", first)
    assert refused(remove, InstanceProfileName="Machine", RoleName="Another") == (
        404,
        "NoSuchEntity",
        "Role Another in Instance Profile Machine cannot be found.",
    )
    remove(InstanceProfileName="Machine", RoleName="OnMachine")
    iam.delete_role(RoleName="OnMachine")
    iam.tag_instance_profile(InstanceProfileName="Machine", Tags=[{"Key": "a", "Value": "b"}])
    tags = iam.list_instance_profile_tags(InstanceProfileName="Machine")["Tags"]
    assert tags == [{"Key": "a", "Value": "b"}]
    iam.untag_instance_profile(InstanceProfileName="Machine", TagKeys=["a"])
    iam.delete_instance_profile(InstanceProfileName="Machine")
    assert refused(iam.get_instance_profile, InstanceProfileName="Machine") == (
        404,
        "NoSuchEntity",
        "Instance Profile Machine cannot be found.",
    )


def test_a_service_linked_role(iam: Any) -> None:
    role = iam.create_service_linked_role(AWSServiceName=SAGEMAKER)["Role"]
    assert role["RoleName"] == SCALING_ROLE
    assert role["Arn"] == (
        f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{SAGEMAKER}/{SCALING_ROLE}"
    )
    principal = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert principal == {"Service": SAGEMAKER}
    (attached,) = iam.list_attached_role_policies(RoleName=SCALING_ROLE)["AttachedPolicies"]
    arn = attached["PolicyArn"]
    assert arn.endswith("/aws-service-role/AWSApplicationAutoscalingSageMakerEndpointPolicy")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    said = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    assert "sagemaker:UpdateEndpointWeightsAndCapacities" in json.dumps(said)
    assert refused(iam.create_service_linked_role, AWSServiceName=SAGEMAKER) == (
        400,
        "InvalidInput",
        f"Service role name {SCALING_ROLE} has been taken in this account, please try a "
        "different suffix.",
    )
    iam.create_user(UserName="Attacher")
    assert refused(iam.attach_user_policy, UserName="Attacher", PolicyArn=arn) == (
        400,
        "PolicyNotAttachable",
        "Cannot attach a Service Role Policy to a Customer Role.",
    )
    task = iam.delete_service_linked_role(RoleName=SCALING_ROLE)["DeletionTaskId"]
    assert task.startswith(f"task/aws-service-role/{SAGEMAKER}/{SCALING_ROLE}/")
    status = iam.get_service_linked_role_deletion_status(DeletionTaskId=task)
    assert status["Status"] == "SUCCEEDED"
    assert refused(iam.get_role, RoleName=SCALING_ROLE)[1] == "NoSuchEntity"
    other = refused(iam.create_service_linked_role, AWSServiceName="other.amazonaws.com")
    assert other[1] == "InvalidInput"
