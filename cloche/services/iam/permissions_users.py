"""What IAM's operations on users, groups and what belongs to them ask of IAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from cloche.core.arn import parse_arn
from cloche.core.authorization import Values
from cloche.operation import Call
from cloche.permissions import (
    REQUEST_TAGS,
    ConditionKeys,
    Find,
    Parameters,
    Permission,
    key,
    tag_keys,
)
from cloche.services.iam.identity import Identity


def user_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of a user, with its path where there is one; of who calls, if none is named.

    Root is meant by its name or the account's id, where root itself calls and no user has the name.
    """
    name = parameters.get("UserName")
    if name is None:
        return [call.principal.arn]
    user = call.service.users.user(call.account, name)
    if user is None and call.principal.kind == "root" and name in ("root", call.account):
        return [call.principal.arn]
    return [user.arn if user is not None else f"arn:aws:iam::{call.account}:user/{name}"]


def group_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of a group that is named, with its path where there is one."""
    name = parameters["GroupName"]
    group = call.service.users.group(call.account, name)
    return [group.arn if group is not None else f"arn:aws:iam::{call.account}:group/{name}"]


def new_arns(kind: str, name: str) -> Find:
    """Return what finds the ARN that something new gets; its name is at this parameter."""

    def find(call: Call[Any], parameters: Parameters) -> list[str]:
        path = parameters.get("Path") or "/"
        return [f"arn:aws:iam::{call.account}:{kind}{path}{parameters[name]}"]

    return find


def moved_user_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN that a user gets by another name or path; nothing where it gets neither."""
    if not parameters.get("NewUserName") and not parameters.get("NewPath"):
        return []
    user = call.service.users.user(call.account, parameters["UserName"])
    path = parameters.get("NewPath") or (user.document.path if user is not None else "/")
    name = parameters.get("NewUserName") or parameters["UserName"]
    return [f"arn:aws:iam::{call.account}:user{path}{name}"]


def moved_group_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN that a group gets by another name or path; nothing where it gets neither."""
    if not parameters.get("NewGroupName") and not parameters.get("NewPath"):
        return []
    group = call.service.users.group(call.account, parameters["GroupName"])
    path = parameters.get("NewPath") or (group.document.path if group is not None else "/")
    name = parameters.get("NewGroupName") or parameters["GroupName"]
    return [f"arn:aws:iam::{call.account}:group{path}{name}"]


def user_tags(call: Call[Identity], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the tags that a user has."""
    user = user_at(call, arn)
    tags = user.document.tags if user is not None else ()
    return {**tag_keys(tags, "aws:resourcetag"), **tag_keys(tags, "iam:resourcetag")}


def user_boundary(call: Call[Identity], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the permissions boundary that a user has."""
    user = user_at(call, arn)
    bound = UNSET if user is None else user.document.permissions_boundary
    return {} if bound is UNSET else {"iam:permissionsboundary": bound}


def user_at(call: Call[Identity], arn: str) -> Any:
    """Return the user with this ARN, or None."""
    return call.service.users.user(call.account, parse_arn(arn).resource.rpartition("/")[2])


def tag_names(_call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the keys of tags that are to go."""
    return {"aws:tagkeys": tuple(parameters["TagKeys"])} if parameters.get("TagKeys") else {}


TAGS_OF_USER = ConditionKeys(
    "aws:ResourceTag/${TagKey}", "iam:ResourceTag/${TagKey}", values=user_tags
)
TAG_NAMES = ConditionKeys("aws:TagKeys", values=tag_names)
BOUNDARY = key("iam:PermissionsBoundary", "PermissionsBoundary")
USERS_BOUNDARY = ConditionKeys("iam:PermissionsBoundary", values=user_boundary)
POLICY = key("iam:PolicyARN", "PolicyArn")
NEW_USER = new_arns("user", "UserName")
CREATE_USER = (
    Permission("iam:CreateUser", NEW_USER, keys=(REQUEST_TAGS, BOUNDARY)),
    Permission("iam:TagUser", NEW_USER, keys=(REQUEST_TAGS,), when="Tags"),
)


def on_user(action: str, *keys: ConditionKeys) -> Permission:
    """Return a permission on the user that the request names, or that calls."""
    return Permission(action, user_arns, keys=(TAGS_OF_USER, *keys))


def on_group(action: str, *keys: ConditionKeys) -> Permission:
    """Return a permission on the group that the request names."""
    return Permission(action, group_arns, keys=keys)
