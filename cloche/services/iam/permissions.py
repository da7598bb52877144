"""What IAM's own operations ask of IAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from cloche.core.authorization import Values
from cloche.operation import Call
from cloche.permissions import (
    REQUEST_TAGS,
    ConditionKeys,
    Parameters,
    Permission,
    arns_at,
    key,
    list_key,
    tag_keys,
)
from cloche.services.iam.identity import Identity


def role_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of a role that is named, with its path where there is one."""
    name = parameters["RoleName"]
    role = call.service.role(call.account, name)
    return [role.arn if role is not None else f"arn:aws:iam::{call.account}:role/{name}"]


def new_role_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN that a new role gets."""
    path = parameters.get("Path") or "/"
    return [f"arn:aws:iam::{call.account}:role{path}{parameters['RoleName']}"]


def role_folder(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return what AWS asks ListRoles about: the path that the roles are to be in."""
    return [f"arn:aws:iam::{call.account}:role{parameters.get('PathPrefix') or '/'}"]


def new_policy_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN that a new managed policy gets."""
    path = parameters.get("Path") or "/"
    return [f"arn:aws:iam::{call.account}:policy{path}{parameters['PolicyName']}"]


def user_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN of a user; of who calls, where none is named."""
    name = parameters.get("UserName")
    return [call.principal.arn if name is None else f"arn:aws:iam::{call.account}:user/{name}"]


def role_tags(call: Call[Identity], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the tags that a role has."""
    role = call.service.role_by_arn(arn)
    tags = role.document.tags if role is not None else ()
    return {**tag_keys(tags, "aws:resourcetag"), **tag_keys(tags, "iam:resourcetag")}


def role_boundary(call: Call[Identity], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the boundary that a role has."""
    role = call.service.role_by_arn(arn)
    boundary = role.document.permissions_boundary if role is not None else UNSET
    return {} if boundary is UNSET else {"iam:permissionsboundary": boundary}


def policy_tags(call: Call[Identity], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the tags that a customer managed policy has."""
    policy = call.service.policies.customer.find(call.account, arn)
    return {} if policy is None else tag_keys(policy.document.tags, "aws:resourcetag")


ROLE_TAGS = ConditionKeys(
    "aws:ResourceTag/${TagKey}", "iam:ResourceTag/${TagKey}", values=role_tags
)
POLICY_TAGS = ConditionKeys("aws:ResourceTag/${TagKey}", values=policy_tags)
POLICY = key("iam:PolicyARN", "PolicyArn")
BOUNDARY = key("iam:PermissionsBoundary", "PermissionsBoundary")  # the one that is asked for
HELD_BOUNDARY = ConditionKeys("iam:PermissionsBoundary", values=role_boundary)
TAG_KEYS = list_key("aws:TagKeys", "TagKeys")
CREATE_ROLE = (
    Permission("iam:CreateRole", new_role_arns, keys=(REQUEST_TAGS, BOUNDARY)),
    Permission("iam:TagRole", new_role_arns, keys=(REQUEST_TAGS,), when="Tags"),
)
CREATE_POLICY = (
    Permission("iam:CreatePolicy", new_policy_arns, keys=(REQUEST_TAGS,)),
    Permission("iam:TagPolicy", new_policy_arns, keys=(REQUEST_TAGS,), when="Tags"),
)


def on_role(action: str, *keys: ConditionKeys) -> Permission:
    """Return a permission on the role that the request names."""
    return Permission(action, role_arns, keys=(ROLE_TAGS, *keys))


def on_policy(action: str, *keys: ConditionKeys) -> Permission:
    """Return a permission on the managed policy that the request names."""
    return Permission(action, arns_at("PolicyArn"), keys=(POLICY_TAGS, *keys))
