"""Groups: made, changed, listed; who is in them; their policies."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from cloche.core import executors
from cloche.core.ids import unique_id
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.services.iam import holder_policies, policy_limits
from cloche.services.iam.entities import (
    ATTEMPTS,
    already_exists,
    delete_conflict,
    modified_meanwhile,
)
from cloche.services.iam.holder_policies import find_group, find_user
from cloche.services.iam.identity import Identity
from cloche.services.iam.operations.users import briefly
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions_users import (
    POLICY,
    moved_group_arns,
    new_arns,
    on_group,
    on_user,
)
from cloche.services.iam.record_users import GroupDocument
from cloche.services.iam.users import Group, User

GROUPS_PER_USER = 10  # IAM quotas


@operation(permissions=[Permission("iam:CreateGroup", new_arns("group", "GroupName"))])
async def create_group(call: Call[Identity], *, GroupName: str, Path: str = "/") -> dict[str, Any]:
    """Make a group that nobody is in."""
    document = GroupDocument(group_name=GroupName, group_id=unique_id("AGPA"), path=Path)
    try:
        record = await call.service.users.create(call.account, document, call.now)
    except AlreadyExists as error:
        raise already_exists(f"Group with name {GroupName} already exists.") from error
    return {"Group": described(Group(record, document))}


@operation(permissions=[on_group("iam:GetGroup")], on=executors.RECORDS)
def get_group(
    call: Call[Identity], *, GroupName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return a group and a page of its users."""
    group = find_group(call, GroupName)
    members = call.service.users.members(group, key_of(Marker))
    page = first_page(((user.record.name, briefly(user)) for user in members), MaxItems)
    return {"Group": described(group), "Users": page.pop("items"), **page}


@operation(permissions=[Permission("iam:ListGroups")], on=executors.RECORDS)
def list_groups(
    call: Call[Identity],
    *,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the groups whose path begins with the prefix, by name."""
    behind = key_of(Marker)

    def listed() -> Iterator[tuple[str, dict[str, Any]]]:
        for group in call.service.users.groups(call.account, behind):
            if group.document.path.startswith(PathPrefix):
                yield group.record.name, described(group)

    page = first_page(listed(), MaxItems)
    return {"Groups": page.pop("items"), **page}


@operation(
    permissions=[
        on_group("iam:UpdateGroup"),
        Permission("iam:UpdateGroup", moved_group_arns),
    ]
)
async def update_group(
    call: Call[Identity],
    *,
    GroupName: str,
    NewPath: str | None = None,
    NewGroupName: str | None = None,
) -> None:
    """Give a group another name or path; its id, users and policies stay."""
    group = find_group(call, GroupName)
    name = group.name if NewGroupName is None else NewGroupName
    path = group.document.path if NewPath is None else NewPath
    if (name, path) == (group.name, group.document.path):
        return
    document = group.document.replace(group_name=name, path=path)
    try:
        await call.service.users.rename_group(group, document)
    except AlreadyExists as error:
        raise already_exists(f"Group with name {name} already exists.") from error
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_group("iam:DeleteGroup")])
async def delete_group(call: Call[Identity], *, GroupName: str) -> None:
    """Remove a group that nobody is in and that has no policies."""
    group = find_group(call, GroupName)
    if next(call.service.users.members(group), None) is not None:
        raise delete_conflict("Cannot delete entity, must remove users from group first.")
    if group.document.policies:
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if group.document.inline:
        raise delete_conflict("Cannot delete entity, must delete policies first.")
    try:
        await call.service.users.delete(group)
    except Conflict as error:
        raise modified_meanwhile() from error


# ---------------------------------------------------------------------- who is in it


@operation(permissions=[on_group("iam:AddUserToGroup")])
async def add_user_to_group(call: Call[Identity], *, GroupName: str, UserName: str) -> None:
    """Put a user into a group; doing it again changes nothing."""

    async def add(user: User, group: Group, inside: bool) -> None:
        if inside:
            return
        if len(user.document.groups) >= GROUPS_PER_USER:
            raise policy_limits.exceeded("GroupsPerUser", GROUPS_PER_USER)
        await call.service.users.add(user, group, call.now)

    await settled(call, GroupName, UserName, add)


@operation(permissions=[on_group("iam:RemoveUserFromGroup")])
async def remove_user_from_group(call: Call[Identity], *, GroupName: str, UserName: str) -> None:
    """Take a user out of a group; one that is not in it is fine."""

    async def remove(user: User, group: Group, inside: bool) -> None:
        if inside:
            await call.service.users.remove(user, group)

    await settled(call, GroupName, UserName, remove)


async def settled(
    call: Call[Identity],
    group_name: str,
    user_name: str,
    change: Callable[[User, Group, bool], Awaitable[None]],
) -> None:
    """Change whether a user is in a group, also when others change the group at the same time."""
    for _ in range(ATTEMPTS):
        user, group = find_user(call, user_name), find_group(call, group_name)
        inside = group.name.lower() in map(str.lower, user.document.groups)
        try:
            await change(user, group, inside)
        except (AlreadyExists, Conflict):
            continue
        return
    raise modified_meanwhile()


@operation(permissions=[on_user("iam:ListGroupsForUser")])
def list_groups_for_user(
    call: Call[Identity], *, UserName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the groups that a user is in, by name."""
    user = find_user(call, UserName)
    names = sorted(user.document.groups, key=str.lower)
    page = paged(names, names, Marker, MaxItems)
    found = (call.service.users.group(call.account, name) for name in page.pop("items"))
    return {"Groups": [described(group) for group in found if group is not None], **page}


# ---------------------------------------------------------------------- policies


@operation(permissions=[on_group("iam:AttachGroupPolicy", POLICY)])
async def attach_group_policy(call: Call[Identity], *, GroupName: str, PolicyArn: str) -> None:
    """Attach a managed policy; attaching it again changes nothing."""
    await holder_policies.attach(call, find_group, GroupName, PolicyArn)


@operation(permissions=[on_group("iam:DetachGroupPolicy", POLICY)])
async def detach_group_policy(call: Call[Identity], *, GroupName: str, PolicyArn: str) -> None:
    """Detach a managed policy."""
    await holder_policies.detach(call, find_group(call, GroupName), PolicyArn)


@operation(permissions=[on_group("iam:ListAttachedGroupPolicies")])
def list_attached_group_policies(
    call: Call[Identity],
    *,
    GroupName: str,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the managed policies that are attached to a group."""
    return holder_policies.attached(find_group(call, GroupName), PathPrefix, Marker, MaxItems)


@operation(permissions=[on_group("iam:PutGroupPolicy")])
async def put_group_policy(
    call: Call[Identity], *, GroupName: str, PolicyName: str, PolicyDocument: str
) -> None:
    """Write an inline policy of a group, over one of the same name."""
    group = find_group(call, GroupName)
    await holder_policies.put_inline(call, group, PolicyName, PolicyDocument)


@operation(permissions=[on_group("iam:GetGroupPolicy")])
def get_group_policy(call: Call[Identity], *, GroupName: str, PolicyName: str) -> dict[str, Any]:
    """Return an inline policy of a group."""
    return holder_policies.inline(find_group(call, GroupName), PolicyName)


@operation(permissions=[on_group("iam:DeleteGroupPolicy")])
async def delete_group_policy(call: Call[Identity], *, GroupName: str, PolicyName: str) -> None:
    """Remove an inline policy of a group."""
    await holder_policies.delete_inline(call, find_group(call, GroupName), PolicyName)


@operation(permissions=[on_group("iam:ListGroupPolicies")])
def list_group_policies(
    call: Call[Identity], *, GroupName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the names of a group's inline policies."""
    return holder_policies.inline_names(find_group(call, GroupName), Marker, MaxItems)


def described(group: Group) -> dict[str, Any]:
    """Return a group as the API shows it."""
    return {
        "Path": group.document.path,
        "GroupName": group.name,
        "GroupId": group.document.group_id,
        "Arn": group.arn,
        "CreateDate": group.record.created,
    }
