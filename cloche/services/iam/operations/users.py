"""Users: made, changed, listed, tagged, bounded."""

from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from cloche.core import executors
from cloche.core.ids import unique_id
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.services.iam import tags
from cloche.services.iam.entities import (
    ATTEMPTS,
    already_exists,
    boundary_shown,
    delete_conflict,
    modified_meanwhile,
    no_such,
    used_policy,
)
from cloche.services.iam.holder_policies import changed, find_user, user_or_caller
from cloche.services.iam.identity import Identity
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions_users import (
    BOUNDARY,
    CREATE_USER,
    TAG_NAMES,
    USERS_BOUNDARY,
    moved_user_arns,
    on_user,
)
from cloche.services.iam.record_users import UserDocument
from cloche.services.iam.users import User


@operation(permissions=CREATE_USER)
async def create_user(
    call: Call[Identity],
    *,
    UserName: str,
    Path: str = "/",
    PermissionsBoundary: str | None = None,
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Make a user that may do nothing yet."""
    tags.check(Tags or [])
    bounding = () if PermissionsBoundary is None else used_policy(call, PermissionsBoundary, True)
    document = UserDocument(
        user_name=UserName,
        user_id=unique_id("AIDA"),
        path=Path,
        permissions_boundary=UNSET if PermissionsBoundary is None else PermissionsBoundary,
        tags=tuple(Tags or ()),
    )
    try:
        record = await call.service.users.create(call.account, document, call.now, *bounding)
    except AlreadyExists as error:
        raise already_exists(f"User with name {UserName} already exists.") from error
    except Conflict as error:
        raise modified_meanwhile() from error
    return {"User": described(User(record, document))}


@operation(permissions=[on_user("iam:GetUser")])
def get_user(call: Call[Identity], *, UserName: str | None = None) -> dict[str, Any]:
    """Return a user; the caller where none is named, root too."""
    root = call.service.root(call.account)
    if UserName is None and call.principal.kind == "root" and root is not None:
        return {"User": {"UserId": call.account, "Arn": root.arn, "CreateDate": root.created}}
    return {"User": described(user_or_caller(call, UserName))}


@operation(permissions=[Permission("iam:ListUsers")], on=executors.RECORDS)
def list_users(
    call: Call[Identity],
    *,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the users whose path begins with the prefix, by name; without tags and boundary."""
    behind = key_of(Marker)

    def listed() -> Iterator[tuple[str, dict[str, Any]]]:
        for user in call.service.users.users(call.account, behind):
            if user.document.path.startswith(PathPrefix):
                yield user.record.name, briefly(user)

    page = first_page(listed(), MaxItems)
    return {"Users": page.pop("items"), **page}


@operation(
    permissions=[
        on_user("iam:UpdateUser"),
        Permission("iam:UpdateUser", moved_user_arns),
    ]
)
async def update_user(
    call: Call[Identity],
    *,
    UserName: str,
    NewPath: str | None = None,
    NewUserName: str | None = None,
) -> None:
    """Give a user another name or path; its id, keys, groups and policies stay."""
    user = find_user(call, UserName)
    name = user.name if NewUserName is None else NewUserName
    path = user.document.path if NewPath is None else NewPath
    if (name, path) == (user.name, user.document.path):
        return
    document = user.document.replace(user_name=name, path=path)
    try:
        await call.service.rename_user(user, document)
    except AlreadyExists as error:
        raise already_exists(f"User with name {name} already exists.") from error
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_user("iam:DeleteUser")])
async def delete_user(call: Call[Identity], *, UserName: str) -> None:
    """Remove a user that nothing belongs to; its sessions end."""
    user = find_user(call, UserName)
    document = user.document
    if document.groups:
        raise delete_conflict("Cannot delete entity, must remove users from group first.")
    if document.policies:
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if document.inline:
        raise delete_conflict("Cannot delete entity, must delete policies first.")
    if document.login_profile is not UNSET:
        raise delete_conflict("Cannot delete entity, must delete login profile first.")
    if call.service.keys_of(user.id):
        raise delete_conflict("Cannot delete entity, must delete access keys first.")
    if call.service.mfa.of(user.id):
        raise delete_conflict("Cannot delete entity, must delete MFA device first.")
    try:
        await call.service.delete_user(user)
    except Conflict as error:
        raise modified_meanwhile() from error


# ---------------------------------------------------------------------- tags


@operation(permissions=[on_user("iam:TagUser", REQUEST_TAGS)])
async def tag_user(call: Call[Identity], *, UserName: str, Tags: list[dict[str, str]]) -> None:
    """Put tags on a user, over those with the same keys."""
    user = find_user(call, UserName)
    tags.check(Tags)
    found = tags.merged(user.document.tags, Tags, "TagsPerUser")
    await changed(call, user, user.document.replace(tags=found))


@operation(permissions=[on_user("iam:UntagUser", TAG_NAMES)])
async def untag_user(call: Call[Identity], *, UserName: str, TagKeys: list[str]) -> None:
    """Take tags from a user; keys that it has not are fine."""
    user = find_user(call, UserName)
    found = tags.without(user.document.tags, TagKeys)
    await changed(call, user, user.document.replace(tags=found))


@operation(permissions=[on_user("iam:ListUserTags")])
def list_user_tags(
    call: Call[Identity], *, UserName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return a user's tags by key."""
    found = tags.in_order(find_user(call, UserName).document.tags)
    page = paged(found, [tag["Key"] for tag in found], Marker, MaxItems)
    return {"Tags": page.pop("items"), **page}


# ---------------------------------------------------------------------- boundary


@operation(permissions=[on_user("iam:PutUserPermissionsBoundary", BOUNDARY)])
async def put_user_permissions_boundary(
    call: Call[Identity], *, UserName: str, PermissionsBoundary: str
) -> None:
    """Let a user do nothing that this managed policy does not allow."""
    for _ in range(ATTEMPTS):  # another may begin to use the same policy at the same time
        user = find_user(call, UserName)
        bounding = used_policy(call, PermissionsBoundary, True)
        document = user.document.replace(permissions_boundary=PermissionsBoundary)
        try:
            await call.service.users.save(user, document, *bounding)
        except Conflict:
            continue
        return
    raise modified_meanwhile()


@operation(permissions=[on_user("iam:DeleteUserPermissionsBoundary", USERS_BOUNDARY)])
async def delete_user_permissions_boundary(call: Call[Identity], *, UserName: str) -> None:
    """Let a user do all that its policies allow."""
    user = find_user(call, UserName)
    if user.document.permissions_boundary is UNSET:
        raise no_such(f"User with name {user.name} does not have a permissions boundary.")
    await changed(call, user, user.document.replace(permissions_boundary=UNSET))


# ---------------------------------------------------------------------- shown


def described(user: User) -> dict[str, Any]:
    """Return a user as the API shows it."""
    shown = briefly(user)
    if user.document.permissions_boundary is not UNSET:
        shown["PermissionsBoundary"] = boundary_shown(user.document.permissions_boundary)
    if user.document.tags:
        shown["Tags"] = list(user.document.tags)
    return shown


def briefly(user: User) -> dict[str, Any]:
    """Return a user as lists show it."""
    return {
        "Path": user.document.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": user.arn,
        "CreateDate": user.record.created,
    }
