"""A role's policies: managed ones attached, inline ones written."""

from typing import Any
from urllib.parse import quote

from cloche.operation import Call, operation
from cloche.records.errors import Conflict
from cloche.services.iam import policies, policy_limits
from cloche.services.iam.entities import (
    ATTEMPTS,
    check_inline,
    check_policy_arn,
    checked,
    find_role,
    modified_meanwhile,
    no_such,
    used_policy,
)
from cloche.services.iam.identity import Identity
from cloche.services.iam.operations.roles import changed
from cloche.services.iam.paging import PAGE, paged
from cloche.services.iam.permissions import HELD_BOUNDARY, POLICY, on_role


@operation(permissions=[on_role("iam:AttachRolePolicy", POLICY, HELD_BOUNDARY)])
async def attach_role_policy(call: Call[Identity], *, RoleName: str, PolicyArn: str) -> None:
    """Attach a managed policy; attaching it again changes nothing."""
    for _ in range(ATTEMPTS):  # another role may begin to use the same policy at the same time
        role = find_role(call, RoleName)
        using = used_policy(call, PolicyArn)
        if PolicyArn in role.policies:
            return
        policy_limits.check_attached("role", len(role.policies) + 1)
        document = role.document.replace(policies=(*role.policies, PolicyArn))
        try:
            await call.service.change_role(role, document, *using)
        except Conflict:
            continue
        return
    raise modified_meanwhile()


@operation(permissions=[on_role("iam:DetachRolePolicy", POLICY, HELD_BOUNDARY)])
async def detach_role_policy(call: Call[Identity], *, RoleName: str, PolicyArn: str) -> None:
    """Detach a managed policy."""
    role = find_role(call, RoleName)
    check_policy_arn(PolicyArn)
    if PolicyArn not in role.policies:
        raise no_such(f"Policy {PolicyArn} was not found.")
    kept = tuple(arn for arn in role.policies if arn != PolicyArn)
    await changed(call, role, role.document.replace(policies=kept))


@operation(permissions=[on_role("iam:ListAttachedRolePolicies")])
def list_attached_role_policies(
    call: Call[Identity],
    *,
    RoleName: str,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the managed policies that are attached to a role."""
    role = find_role(call, RoleName)
    arns = sorted(arn for arn in role.policies if policies.path_of(arn).startswith(PathPrefix))
    page = paged(arns, arns, Marker, MaxItems)
    listed = [{"PolicyName": policies.name_of(arn), "PolicyArn": arn} for arn in page.pop("items")]
    return {"AttachedPolicies": listed, **page}


@operation(permissions=[on_role("iam:PutRolePolicy", HELD_BOUNDARY)])
async def put_role_policy(
    call: Call[Identity], *, RoleName: str, PolicyName: str, PolicyDocument: str
) -> None:
    """Write an inline policy of a role, over one of the same name."""
    find_role(call, RoleName)
    await checked(check_inline, PolicyDocument)
    role = find_role(call, RoleName)
    inline = {**role.document.inline, PolicyName: PolicyDocument}
    policy_limits.check_inline("role", role.name, inline.values())
    await changed(call, role, role.document.replace(inline=inline))


@operation(permissions=[on_role("iam:GetRolePolicy")])
def get_role_policy(call: Call[Identity], *, RoleName: str, PolicyName: str) -> dict[str, Any]:
    """Return an inline policy of a role, percent-encoded (RFC 3986)."""
    role = find_role(call, RoleName)
    text = role.document.inline.get(PolicyName)
    if text is None:
        raise no_such_inline(PolicyName)
    return {
        "RoleName": role.name,
        "PolicyName": PolicyName,
        "PolicyDocument": quote(text, safe="-_.~"),
    }


@operation(permissions=[on_role("iam:DeleteRolePolicy", HELD_BOUNDARY)])
async def delete_role_policy(call: Call[Identity], *, RoleName: str, PolicyName: str) -> None:
    """Remove an inline policy of a role."""
    role = find_role(call, RoleName)
    inline = dict(role.document.inline)
    if inline.pop(PolicyName, None) is None:
        raise no_such_inline(PolicyName)
    await changed(call, role, role.document.replace(inline=inline))


@operation(permissions=[on_role("iam:ListRolePolicies")])
def list_role_policies(
    call: Call[Identity], *, RoleName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the names of a role's inline policies."""
    names = sorted(find_role(call, RoleName).document.inline)
    page = paged(names, names, Marker, MaxItems)
    return {"PolicyNames": page.pop("items"), **page}


def no_such_inline(name: str) -> Exception:
    """Return the refusal of an inline policy that a role has not."""
    return no_such(f"The role policy with name {name} cannot be found.")
