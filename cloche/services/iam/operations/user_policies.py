"""A user's policies: managed ones attached, inline ones written."""

from typing import Any

from cloche.operation import Call, operation
from cloche.services.iam import holder_policies
from cloche.services.iam.holder_policies import find_user
from cloche.services.iam.identity import Identity
from cloche.services.iam.paging import PAGE
from cloche.services.iam.permissions_users import POLICY, USERS_BOUNDARY, on_user


@operation(permissions=[on_user("iam:AttachUserPolicy", POLICY, USERS_BOUNDARY)])
async def attach_user_policy(call: Call[Identity], *, UserName: str, PolicyArn: str) -> None:
    """Attach a managed policy; attaching it again changes nothing."""
    await holder_policies.attach(call, find_user, UserName, PolicyArn)


@operation(permissions=[on_user("iam:DetachUserPolicy", POLICY, USERS_BOUNDARY)])
async def detach_user_policy(call: Call[Identity], *, UserName: str, PolicyArn: str) -> None:
    """Detach a managed policy."""
    await holder_policies.detach(call, find_user(call, UserName), PolicyArn)


@operation(permissions=[on_user("iam:ListAttachedUserPolicies")])
def list_attached_user_policies(
    call: Call[Identity],
    *,
    UserName: str,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the managed policies that are attached to a user."""
    return holder_policies.attached(find_user(call, UserName), PathPrefix, Marker, MaxItems)


@operation(permissions=[on_user("iam:PutUserPolicy", USERS_BOUNDARY)])
async def put_user_policy(
    call: Call[Identity], *, UserName: str, PolicyName: str, PolicyDocument: str
) -> None:
    """Write an inline policy of a user, over one of the same name."""
    user = find_user(call, UserName)
    await holder_policies.put_inline(call, user, PolicyName, PolicyDocument)


@operation(permissions=[on_user("iam:GetUserPolicy")])
def get_user_policy(call: Call[Identity], *, UserName: str, PolicyName: str) -> dict[str, Any]:
    """Return an inline policy of a user."""
    return holder_policies.inline(find_user(call, UserName), PolicyName)


@operation(permissions=[on_user("iam:DeleteUserPolicy", USERS_BOUNDARY)])
async def delete_user_policy(call: Call[Identity], *, UserName: str, PolicyName: str) -> None:
    """Remove an inline policy of a user."""
    await holder_policies.delete_inline(call, find_user(call, UserName), PolicyName)


@operation(permissions=[on_user("iam:ListUserPolicies")])
def list_user_policies(
    call: Call[Identity], *, UserName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the names of a user's inline policies."""
    return holder_policies.inline_names(find_user(call, UserName), Marker, MaxItems)
