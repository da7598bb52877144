"""Roles: made, changed, listed, tagged, bounded."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from msgspec import UNSET

from cloche.core import executors
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.store import Change
from cloche.services.iam import tags
from cloche.services.iam.entities import (
    already_exists,
    boundary_shown,
    check_trust,
    checked,
    delete_conflict,
    find_role,
    modified_meanwhile,
    profiles_of,
    used_policy,
)
from cloche.services.iam.identity import Identity, Role
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions import (
    BOUNDARY,
    CREATE_ROLE,
    HELD_BOUNDARY,
    TAG_KEYS,
    on_role,
    role_folder,
)
from cloche.services.iam.record import RoleDocument

TAG_QUOTA = "TagsPerRole"


@operation(permissions=CREATE_ROLE)
async def create_role(
    call: Call[Identity],
    *,
    RoleName: str,
    AssumeRolePolicyDocument: str,
    Path: str = "/",
    Description: str | None = None,
    MaxSessionDuration: int = 3600,
    PermissionsBoundary: str | None = None,
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Make a role that its trust policy's principals may assume."""
    await checked(check_trust, AssumeRolePolicyDocument)
    tags.check(Tags or [])
    bounding = () if PermissionsBoundary is None else used_policy(call, PermissionsBoundary, True)
    try:
        role = await call.service.create_role(
            call.account,
            RoleName,
            AssumeRolePolicyDocument,
            path=Path,
            description=Description,
            max_session_s=MaxSessionDuration,
            tags=Tags,
            boundary=PermissionsBoundary,
            also=bounding,
            now=call.now,
        )
    except AlreadyExists as error:
        raise already_exists(f"Role with name {RoleName} already exists.") from error
    except Conflict as error:
        raise modified_meanwhile() from error
    return {"Role": without(described(role), "Description", "MaxSessionDuration")}


@operation(permissions=[on_role("iam:GetRole")])
def get_role(call: Call[Identity], *, RoleName: str) -> dict[str, Any]:
    """Return a role with its trust policy and tags."""
    role = find_role(call, RoleName)
    return {"Role": described(role)}


@operation(permissions=[Permission("iam:ListRoles", role_folder)], on=executors.RECORDS)
def list_roles(
    call: Call[Identity],
    *,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the roles whose path begins with the prefix, by name, without tags and boundary."""
    behind = key_of(Marker)

    def listed() -> Iterator[tuple[str, dict[str, Any]]]:
        for role in call.service.roles_after(call.account, behind):
            if role.document.path.startswith(PathPrefix):
                yield role.record.name, without(described(role), "Tags", "PermissionsBoundary")

    page = first_page(listed(), MaxItems)
    return {"Roles": page.pop("items"), **page}


@operation(permissions=[on_role("iam:DeleteRole", HELD_BOUNDARY)])
async def delete_role(call: Call[Identity], *, RoleName: str) -> None:
    """Remove a role that has no policies; its sessions end."""
    role = find_role(call, RoleName)
    if role.policies:
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if role.document.inline:
        raise delete_conflict("Cannot delete entity, must delete policies first.")
    if profiles_of(call, role):
        message = "Cannot delete entity, must remove roles from instance profile first."
        raise delete_conflict(message)
    try:
        await call.service.delete_role(role)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_role("iam:UpdateRole", HELD_BOUNDARY)])
async def update_role(
    call: Call[Identity],
    *,
    RoleName: str,
    Description: str | None = None,
    MaxSessionDuration: int | None = None,
) -> dict[str, Any]:
    """Change what is given."""
    changes: dict[str, Any] = {}
    if Description is not None:
        changes["description"] = Description
    if MaxSessionDuration is not None:
        changes["max_session_duration"] = MaxSessionDuration
    role = find_role(call, RoleName)
    await changed(call, role, role.document.replace(**changes))
    return {}


@operation(permissions=[on_role("iam:UpdateRoleDescription", HELD_BOUNDARY)])
async def update_role_description(
    call: Call[Identity], *, RoleName: str, Description: str
) -> dict[str, Any]:
    """Change a role's description."""
    role = find_role(call, RoleName)
    role = await changed(call, role, role.document.replace(description=Description))
    return {"Role": without(described(role), "MaxSessionDuration", "Tags")}


@operation(permissions=[on_role("iam:UpdateAssumeRolePolicy", HELD_BOUNDARY)])
async def update_assume_role_policy(
    call: Call[Identity], *, RoleName: str, PolicyDocument: str
) -> None:
    """Change who may assume a role; sessions that are there go on."""
    find_role(call, RoleName)
    await checked(check_trust, PolicyDocument)
    role = find_role(call, RoleName)
    await changed(call, role, role.document.replace(assume_role_policy_document=PolicyDocument))


# ---------------------------------------------------------------------- tags


@operation(permissions=[on_role("iam:TagRole", REQUEST_TAGS)])
async def tag_role(call: Call[Identity], *, RoleName: str, Tags: list[dict[str, str]]) -> None:
    """Put tags on a role, over those with the same keys."""
    role = find_role(call, RoleName)
    tags.check(Tags)
    found = tags.merged(role.document.tags, Tags, TAG_QUOTA)
    await changed(call, role, role.document.replace(tags=found))


@operation(permissions=[on_role("iam:UntagRole", TAG_KEYS)])
async def untag_role(call: Call[Identity], *, RoleName: str, TagKeys: list[str]) -> None:
    """Take tags from a role; keys that it has not are fine."""
    role = find_role(call, RoleName)
    found = tags.without(role.document.tags, TagKeys)
    await changed(call, role, role.document.replace(tags=found))


@operation(permissions=[on_role("iam:ListRoleTags")])
def list_role_tags(
    call: Call[Identity], *, RoleName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return a role's tags by key."""
    found = tags.in_order(find_role(call, RoleName).document.tags)
    page = paged(found, [tag["Key"] for tag in found], Marker, MaxItems)
    return {"Tags": page.pop("items"), **page}


# ---------------------------------------------------------------------- boundary


@operation(permissions=[on_role("iam:PutRolePermissionsBoundary", BOUNDARY)])
async def put_role_permissions_boundary(
    call: Call[Identity], *, RoleName: str, PermissionsBoundary: str
) -> None:
    """Let a role do nothing that this managed policy does not allow."""
    role = find_role(call, RoleName)
    bounding = used_policy(call, PermissionsBoundary, True)
    document = role.document.replace(permissions_boundary=PermissionsBoundary)
    await changed(call, role, document, *bounding)


@operation(permissions=[on_role("iam:DeleteRolePermissionsBoundary", HELD_BOUNDARY)])
async def delete_role_permissions_boundary(call: Call[Identity], *, RoleName: str) -> None:
    """Let a role do all that its policies allow."""
    role = find_role(call, RoleName)
    await changed(call, role, role.document.replace(permissions_boundary=UNSET))


# ---------------------------------------------------------------------- helpers


async def changed(call: Call[Identity], role: Role, document: RoleDocument, *also: Change) -> Role:
    """Write a role's document, and what goes with it; ConcurrentModification: others just did."""
    try:
        return await call.service.change_role(role, document, *also)
    except Conflict as error:
        raise modified_meanwhile() from error


def described(role: Role) -> dict[str, Any]:
    """Return a role as the API shows it, the trust policy percent-encoded (RFC 3986)."""
    document = role.document
    shown = {
        "Path": document.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": role.record.created,
        "AssumeRolePolicyDocument": quote(role.trust, safe="-_.~"),
        "MaxSessionDuration": role.max_session_s,
    }
    if document.description is not UNSET:
        shown["Description"] = document.description
    if document.permissions_boundary is not UNSET:
        shown["PermissionsBoundary"] = boundary_shown(document.permissions_boundary)
    if document.tags:
        shown["Tags"] = list(document.tags)
    return shown


def without(shown: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return what is shown of a role, but for members that this operation does not show."""
    return {name: value for name, value in shown.items() if name not in names}
