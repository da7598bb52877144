"""For every operation of IAM and STS, a request that is right."""

from __future__ import annotations

from typing import Any

from cloche.testing.platform import ACCOUNT

# What `prepare_identity` makes, and no request removes.
USER, GROUP, PROFILE, ROLE, POLICY = "someone", "some", "profile", "other", "policy"
TAGS = [{"Key": "a", "Value": "b"}]
DOCUMENT = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject",'
    '"Resource":"arn:aws:s3:::b/${aws:username}/*",'
    '"Condition":{"IpAddress":{"aws:SourceIp":"1.2.3.0/24"}}}]}'
)
TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":'
    '"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
)
AWS_POLICY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
OWN_POLICY = f"arn:aws:iam::{ACCOUNT}:policy/{POLICY}"
DEVICE = f"arn:aws:iam::{ACCOUNT}:mfa/device"
GONE_KEY = "AKIAIOSFODNN7EXAMPLE"
PAGE = {"MaxItems": 5}
PATHS = PAGE | {"PathPrefix": "/"}


def identity(role: str, key: str = GONE_KEY) -> dict[str, dict[str, Any]]:
    """Return the parameters of IAM's and STS's operations; the key is one of the user."""
    by_role = {"RoleName": ROLE}
    return (
        roles()
        | users(key)
        | groups()
        | policies()
        | profiles()
        | devices()
        | account()
        | simulation(role)
        | {
            "AssumeRole": {
                "RoleArn": role,
                "RoleSessionName": "session",
                "DurationSeconds": 900,
            },
            "GetAccessKeyInfo": {"AccessKeyId": key},
            "GetCallerIdentity": {},
            "GetSessionToken": {"DurationSeconds": 900},
            "ListInstanceProfilesForRole": by_role | PAGE,
        }
    )


def roles() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with roles."""
    one = {"RoleName": ROLE}
    by = "sagemaker.application-autoscaling.amazonaws.com"
    linked = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    return {
        "AttachRolePolicy": one | {"PolicyArn": AWS_POLICY},
        "CreateRole": {
            "RoleName": "r{n}",
            "AssumeRolePolicyDocument": TRUST,
            "Description": "d",
            "MaxSessionDuration": 3600,
            "Tags": TAGS,
        },
        "CreateServiceLinkedRole": {
            "AWSServiceName": by,
            "Description": "d",
        },
        "DeleteRole": {"RoleName": "gone"},
        "DeleteRolePermissionsBoundary": one,
        "DeleteRolePolicy": one | {"PolicyName": "gone"},
        "DeleteServiceLinkedRole": {"RoleName": linked},
        "DetachRolePolicy": one | {"PolicyArn": AWS_POLICY},
        "GetRole": one,
        "GetRolePolicy": one | {"PolicyName": "inline"},
        "GetServiceLinkedRoleDeletionStatus": {
            "DeletionTaskId": f"task/aws-service-role/{by}/{linked}/"
            "00000000-0000-4000-8000-000000000000"
        },
        "ListAttachedRolePolicies": one | PATHS,
        "ListRolePolicies": one | PAGE,
        "ListRoles": PATHS,
        "ListRoleTags": one | PAGE,
        "PutRolePermissionsBoundary": one | {"PermissionsBoundary": AWS_POLICY},
        "PutRolePolicy": one | {"PolicyName": "inline", "PolicyDocument": DOCUMENT},
        "TagRole": one | {"Tags": TAGS},
        "UntagRole": one | {"TagKeys": ["a"]},
        "UpdateAssumeRolePolicy": one | {"PolicyDocument": TRUST},
        "UpdateRole": one | {"Description": "d", "MaxSessionDuration": 3600},
        "UpdateRoleDescription": one | {"Description": "d"},
    }


def users(key: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with users, their keys and passwords."""
    one = {"UserName": USER}
    password = {"Password": "Right-{n}-horse-battery", "PasswordResetRequired": True}
    return {
        "AttachUserPolicy": one | {"PolicyArn": AWS_POLICY},
        "ChangePassword": {"OldPassword": "Old-horse-1", "NewPassword": "New-horse-{n}"},
        "CreateAccessKey": one,
        "CreateLoginProfile": one | password,
        "CreateUser": {
            "UserName": "u{n}",
            "Path": "/a/",
            "PermissionsBoundary": AWS_POLICY,
            "Tags": TAGS,
        },
        "DeleteAccessKey": one | {"AccessKeyId": GONE_KEY},
        "DeleteLoginProfile": one,
        "DeleteUser": {"UserName": "gone"},
        "DeleteUserPermissionsBoundary": one,
        "DeleteUserPolicy": one | {"PolicyName": "gone"},
        "DetachUserPolicy": one | {"PolicyArn": AWS_POLICY},
        "GetAccessKeyLastUsed": {"AccessKeyId": key},
        "GetLoginProfile": one,
        "GetUser": {},
        "GetUserPolicy": one | {"PolicyName": "inline"},
        "ListAccessKeys": one | PAGE,
        "ListAttachedUserPolicies": one | PATHS,
        "ListGroupsForUser": one | PAGE,
        "ListUserPolicies": one | PAGE,
        "ListUsers": PATHS,
        "ListUserTags": one | PAGE,
        "PutUserPermissionsBoundary": one | {"PermissionsBoundary": AWS_POLICY},
        "PutUserPolicy": one | {"PolicyName": "inline", "PolicyDocument": DOCUMENT},
        "TagUser": one | {"Tags": TAGS},
        "UntagUser": one | {"TagKeys": ["a"]},
        "UpdateAccessKey": one | {"AccessKeyId": key, "Status": "Inactive"},
        "UpdateLoginProfile": one | password,
        "UpdateUser": {"UserName": "gone", "NewPath": "/b/", "NewUserName": "went"},
    }


def groups() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with groups."""
    one = {"GroupName": GROUP}
    return {
        "AddUserToGroup": one | {"UserName": USER},
        "AttachGroupPolicy": one | {"PolicyArn": AWS_POLICY},
        "CreateGroup": {"GroupName": "g{n}", "Path": "/a/"},
        "DeleteGroup": {"GroupName": "gone"},
        "DeleteGroupPolicy": one | {"PolicyName": "gone"},
        "DetachGroupPolicy": one | {"PolicyArn": AWS_POLICY},
        "GetGroup": one | PAGE,
        "GetGroupPolicy": one | {"PolicyName": "inline"},
        "ListAttachedGroupPolicies": one | PATHS,
        "ListGroupPolicies": one | PAGE,
        "ListGroups": PATHS,
        "PutGroupPolicy": one | {"PolicyName": "inline", "PolicyDocument": DOCUMENT},
        "RemoveUserFromGroup": one | {"UserName": USER},
        "UpdateGroup": {"GroupName": "gone", "NewPath": "/b/", "NewGroupName": "went"},
    }


def policies() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with managed policies."""
    one = {"PolicyArn": OWN_POLICY}
    return {
        "CreatePolicy": {
            "PolicyName": "p{n}",
            "Path": "/a/",
            "PolicyDocument": DOCUMENT,
            "Description": "d",
            "Tags": TAGS,
        },
        "CreatePolicyVersion": one | {"PolicyDocument": DOCUMENT, "SetAsDefault": False},
        "DeletePolicy": {"PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/gone"},
        "DeletePolicyVersion": one | {"VersionId": "v2"},
        "GetPolicy": one,
        "GetPolicyVersion": one | {"VersionId": "v1"},
        "ListEntitiesForPolicy": one | PATHS | {"EntityFilter": "Role"},
        "ListPolicies": PATHS | {"Scope": "Local", "OnlyAttached": False},
        "ListPolicyTags": one | PAGE,
        "ListPolicyVersions": one | PAGE,
        "SetDefaultPolicyVersion": one | {"VersionId": "v1"},
        "TagPolicy": one | {"Tags": TAGS},
        "UntagPolicy": one | {"TagKeys": ["a"]},
    }


def profiles() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with instance profiles."""
    one = {"InstanceProfileName": PROFILE}
    return {
        "AddRoleToInstanceProfile": one | {"RoleName": ROLE},
        "CreateInstanceProfile": {
            "InstanceProfileName": "i{n}",
            "Path": "/a/",
            "Tags": TAGS,
        },
        "DeleteInstanceProfile": {"InstanceProfileName": "gone"},
        "GetInstanceProfile": one,
        "ListInstanceProfiles": PATHS,
        "ListInstanceProfileTags": one | PAGE,
        "RemoveRoleFromInstanceProfile": one | {"RoleName": ROLE},
        "TagInstanceProfile": one | {"Tags": TAGS},
        "UntagInstanceProfile": one | {"TagKeys": ["a"]},
    }


def devices() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with MFA devices. The codes are wrong ones."""
    one = {"UserName": USER, "SerialNumber": DEVICE}
    codes = {"AuthenticationCode1": "123456", "AuthenticationCode2": "654321"}
    return {
        "CreateVirtualMFADevice": {
            "VirtualMFADeviceName": "d{n}",
            "Path": "/",
            "Tags": TAGS,
        },
        "DeactivateMFADevice": one,
        "DeleteVirtualMFADevice": {"SerialNumber": f"arn:aws:iam::{ACCOUNT}:mfa/gone"},
        "EnableMFADevice": one | codes,
        "ListMFADevices": {"UserName": USER} | PAGE,
        "ListVirtualMFADevices": {"AssignmentStatus": "Any"} | PAGE,
        "ResyncMFADevice": one | codes,
    }


def account() -> dict[str, dict[str, Any]]:
    """Return the parameters of what is done with the account."""
    return {
        "CreateAccountAlias": {"AccountAlias": "alias-{n}"},
        "DeleteAccountAlias": {"AccountAlias": "gone"},
        "DeleteAccountPasswordPolicy": {},
        "GetAccountPasswordPolicy": {},
        "GetAccountSummary": {},
        "ListAccountAliases": PAGE,
        "UpdateAccountPasswordPolicy": {
            "MinimumPasswordLength": 8,
            "RequireNumbers": True,
            "AllowUsersToChangePassword": True,
            "MaxPasswordAge": 90,
            "PasswordReusePrevention": 3,
        },
    }


def simulation(role: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of what asks what policies would decide."""
    context = {
        "ContextKeyName": "aws:SourceIp",
        "ContextKeyValues": ["1.2.3.4"],
        "ContextKeyType": "ip",
    }
    asked = {
        "ActionNames": ["s3:GetObject"],
        "ResourceArns": ["arn:aws:s3:::b/k"],
        "ContextEntries": [context],
        "MaxItems": 5,
    }
    return {
        "GetContextKeysForCustomPolicy": {"PolicyInputList": [DOCUMENT]},
        "GetContextKeysForPrincipalPolicy": {
            "PolicySourceArn": role,
            "PolicyInputList": [DOCUMENT],
        },
        "SimulateCustomPolicy": asked
        | {"PolicyInputList": [DOCUMENT], "PermissionsBoundaryPolicyInputList": [DOCUMENT]},
        "SimulatePrincipalPolicy": asked | {"PolicySourceArn": role},
    }


def prepare_identity(iam: Any, role: str) -> dict[str, dict[str, Any]]:
    """Make what the requests name; return their parameters."""
    asked = identity(role)
    iam.create_role(**asked["CreateRole"] | {"RoleName": ROLE})
    iam.create_user(**asked["CreateUser"] | {"UserName": USER})
    iam.create_group(**asked["CreateGroup"] | {"GroupName": GROUP})
    iam.create_policy(**asked["CreatePolicy"] | {"PolicyName": POLICY, "Path": "/"})
    iam.create_instance_profile(**asked["CreateInstanceProfile"] | {"InstanceProfileName": PROFILE})
    iam.create_virtual_mfa_device(
        **asked["CreateVirtualMFADevice"] | {"VirtualMFADeviceName": "device"}
    )
    iam.put_role_policy(**asked["PutRolePolicy"])
    iam.put_user_policy(**asked["PutUserPolicy"])
    iam.put_group_policy(**asked["PutGroupPolicy"])
    key = iam.create_access_key(UserName=USER)["AccessKey"]["AccessKeyId"]
    return identity(role, key)
