"""Instance profiles: what hands a role to a machine."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UNSET

from cloche.core import executors
from cloche.core.authorization import Values
from cloche.core.ids import unique_id
from cloche.core.typed import decode, encode
from cloche.operation import Call, operation
from cloche.permissions import (
    REQUEST_TAGS,
    ConditionKeys,
    Parameters,
    PassRole,
    Permission,
    tag_keys,
)
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.resource import Resource
from cloche.records.store import Change
from cloche.services.iam import policy_limits, tags
from cloche.services.iam.entities import (
    already_exists,
    delete_conflict,
    find_role,
    modified_meanwhile,
    no_such,
    profile_status,
    profiles_of,
)
from cloche.services.iam.identity import REGION, Identity
from cloche.services.iam.operations.roles import described as role_described
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions import on_role, role_arns
from cloche.services.iam.permissions_users import TAG_NAMES, new_arns
from cloche.services.iam.record_users import InstanceProfileDocument

KIND = "instance-profile"
NEW = new_arns(KIND, "InstanceProfileName")


def profile_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of an instance profile, with its path where there is one."""
    name = parameters["InstanceProfileName"]
    row = call.store.get(KIND, call.account, REGION, name.lower())
    return [row.arn if row is not None else f"arn:aws:iam::{call.account}:{KIND}/{name}"]


def profile_tags(call: Call[Any], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the tags that an instance profile has."""
    row = call.store.find(arn)
    return {} if row is None else tag_keys(opened(row).tags, "aws:resourcetag")


PROFILE_TAGS = ConditionKeys("aws:ResourceTag/${TagKey}", values=profile_tags)


def on_profile(action: str, *keys: ConditionKeys) -> Permission:
    """Return a permission on the instance profile that the request names."""
    return Permission(action, profile_arns, keys=(PROFILE_TAGS, *keys))


class PassNamedRole(PassRole):
    """That the caller may hand the role that is named to EC2."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("RoleName", to="ec2.amazonaws.com")
        self.resources = (role_arns,)


@operation(
    permissions=[
        Permission("iam:CreateInstanceProfile", NEW, keys=(REQUEST_TAGS,)),
        Permission("iam:TagInstanceProfile", NEW, keys=(REQUEST_TAGS,), when="Tags"),
    ]
)
async def create_instance_profile(
    call: Call[Identity],
    *,
    InstanceProfileName: str,
    Path: str = "/",
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Make an instance profile without a role."""
    tags.check(Tags or [])
    document = InstanceProfileDocument(
        instance_profile_name=InstanceProfileName,
        instance_profile_id=unique_id("AIPA"),
        path=Path,
        tags=tuple(Tags or ()),
    )
    record = Resource(
        account=call.account,
        region=REGION,
        kind=KIND,
        name=InstanceProfileName.lower(),
        arn=f"arn:aws:iam::{call.account}:{KIND}{Path}{InstanceProfileName}",
        created=call.now,
        modified=call.now,
        document=encode(document),
    )
    try:
        await call.store.insert(record)
    except AlreadyExists as error:
        message = f"Instance Profile {InstanceProfileName} already exists."
        raise already_exists(message) from error
    return {"InstanceProfile": described(call, record, with_tags=bool(Tags))}


@operation(permissions=[on_profile("iam:GetInstanceProfile")])
def get_instance_profile(call: Call[Identity], *, InstanceProfileName: str) -> dict[str, Any]:
    """Return an instance profile with its role and tags."""
    return {"InstanceProfile": described(call, find(call, InstanceProfileName), with_tags=True)}


@operation(permissions=[on_profile("iam:DeleteInstanceProfile")])
async def delete_instance_profile(call: Call[Identity], *, InstanceProfileName: str) -> None:
    """Remove an instance profile that has no role."""
    record = find(call, InstanceProfileName)
    if opened(record).role is not UNSET:
        message = "Cannot delete entity, must remove roles from instance profile first."
        raise delete_conflict(message)
    try:
        await call.store.delete(record)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[Permission("iam:ListInstanceProfiles")], on=executors.RECORDS)
def list_instance_profiles(
    call: Call[Identity],
    *,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the instance profiles whose path begins with the prefix, by name."""
    behind = key_of(Marker)

    def listed() -> Iterator[tuple[str, dict[str, Any]]]:
        for record in call.service.users.rows(KIND, call.account, behind):
            document = opened(record)
            if document.path.startswith(PathPrefix):
                yield record.name, described(call, record)

    page = first_page(listed(), MaxItems)
    return {"InstanceProfiles": page.pop("items"), **page}


@operation(permissions=[on_role("iam:ListInstanceProfilesForRole")])
def list_instance_profiles_for_role(
    call: Call[Identity], *, RoleName: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the instance profiles that a role is in, by name."""
    records = sorted(profiles_of(call, find_role(call, RoleName)), key=lambda record: record.name)
    page = paged(records, [record.name for record in records], Marker, MaxItems)
    return {"InstanceProfiles": [described(call, each) for each in page.pop("items")], **page}


@operation(permissions=[on_profile("iam:AddRoleToInstanceProfile"), PassNamedRole()])
async def add_role_to_instance_profile(
    call: Call[Identity], *, InstanceProfileName: str, RoleName: str
) -> None:
    """Put a role into an instance profile that has none."""
    record = find(call, InstanceProfileName)
    role = find_role(call, RoleName)
    document = opened(record)
    if document.role is not UNSET:
        raise policy_limits.exceeded("InstanceSessionsPerInstanceProfile", 1)
    # The role's row, too: who deletes the role at the same time gets Conflict, or wins.
    touched = Change(old=role.record, new=call.store.newer(role.record))
    try:
        await call.store.update(
            record,
            status=profile_status(role),
            document=encode(document.replace(role=role.name)),
            also=[touched],
        )
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_profile("iam:RemoveRoleFromInstanceProfile")])
async def remove_role_from_instance_profile(
    call: Call[Identity], *, InstanceProfileName: str, RoleName: str
) -> None:
    """Take the role out of an instance profile."""
    record = find(call, InstanceProfileName)
    role = find_role(call, RoleName)
    document = opened(record)
    if document.role is UNSET or document.role.lower() != role.name.lower():
        message = f"Role {RoleName} in Instance Profile {InstanceProfileName} cannot be found."
        raise no_such(message)
    try:
        without = document.replace(role=UNSET)
        await call.store.update(record, status="", document=encode(without))
    except Conflict as error:
        raise modified_meanwhile() from error


# ---------------------------------------------------------------------- tags


@operation(permissions=[on_profile("iam:TagInstanceProfile", REQUEST_TAGS)])
async def tag_instance_profile(
    call: Call[Identity], *, InstanceProfileName: str, Tags: list[dict[str, str]]
) -> None:
    """Put tags on an instance profile, over those with the same keys."""
    record = find(call, InstanceProfileName)
    tags.check(Tags)
    document = opened(record)
    found = tags.merged(document.tags, Tags, "TagsPerInstanceProfile")
    await save(call, record, document.replace(tags=found))


@operation(permissions=[on_profile("iam:UntagInstanceProfile", TAG_NAMES)])
async def untag_instance_profile(
    call: Call[Identity], *, InstanceProfileName: str, TagKeys: list[str]
) -> None:
    """Take tags from an instance profile; keys that it has not are fine."""
    record = find(call, InstanceProfileName)
    document = opened(record)
    await save(call, record, document.replace(tags=tags.without(document.tags, TagKeys)))


@operation(permissions=[on_profile("iam:ListInstanceProfileTags")])
def list_instance_profile_tags(
    call: Call[Identity],
    *,
    InstanceProfileName: str,
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return an instance profile's tags by key."""
    found = tags.in_order(opened(find(call, InstanceProfileName)).tags)
    page = paged(found, [tag["Key"] for tag in found], Marker, MaxItems)
    return {"Tags": page.pop("items"), **page}


# ---------------------------------------------------------------------- helpers


def find(call: Call[Identity], name: str) -> Resource:
    """Return the record of the caller's instance profile, or raise NoSuchEntity."""
    record = call.store.get(KIND, call.account, REGION, name.lower())
    if record is None:
        raise no_such(f"Instance Profile {name} cannot be found.")
    return record


def opened(record: Resource) -> InstanceProfileDocument:
    """Return what is kept of an instance profile."""
    return decode(InstanceProfileDocument, record.document, record.arn)


async def save(call: Call[Identity], record: Resource, document: InstanceProfileDocument) -> None:
    """Write an instance profile; ConcurrentModification: somebody else just did."""
    try:
        await call.store.update(record, document=encode(document))
    except Conflict as error:
        raise modified_meanwhile() from error


def described(call: Call[Identity], record: Resource, with_tags: bool = False) -> dict[str, Any]:
    """Return an instance profile as the API shows it."""
    document = opened(record)
    names = () if document.role is UNSET else (document.role,)
    found = (call.service.role(call.account, name) for name in names)
    roles = [role_described(role) for role in found if role is not None]
    for role in roles:
        role.pop("MaxSessionDuration", None)
        role.pop("Tags", None)
    shown = {
        "Path": document.path,
        "InstanceProfileName": document.instance_profile_name,
        "InstanceProfileId": document.instance_profile_id,
        "Arn": record.arn,
        "CreateDate": record.created,
        "Roles": roles,
    }
    return {**shown, "Tags": list(document.tags)} if with_tags else shown
