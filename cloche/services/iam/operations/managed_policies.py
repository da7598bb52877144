"""Managed policies: AWS's, and those that customers make."""

from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.services.iam import policies, tags
from cloche.services.iam.attachments import Usage
from cloche.services.iam.customer_policies import CustomerPolicy
from cloche.services.iam.entities import (
    already_exists,
    check_managed,
    checked,
    delete_conflict,
    find_policy,
    modified_meanwhile,
)
from cloche.services.iam.identity import Identity
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions import CREATE_POLICY, TAG_KEYS, on_policy
from cloche.services.iam.policies import ManagedPolicy
from cloche.services.iam.record import PolicyDocument

TAG_QUOTA = "TagsPerPolicy"
USAGES: tuple[Usage, ...] = ("PermissionsPolicy", "PermissionsBoundary")
# Where ListPolicies is: AWS's come first, by ARN, then the customer's, by name.
CUSTOMER = "customer:"


@operation(permissions=CREATE_POLICY)
async def create_policy(
    call: Call[Identity],
    *,
    PolicyName: str,
    PolicyDocument: str,
    Path: str = "/",
    Description: str | None = None,
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Make a managed policy whose first version is the default."""
    await checked(check_managed, PolicyDocument)
    tags.check(Tags or [], tags.EXACTLY)
    try:
        policy = await call.service.policies.customer.create(
            call.account,
            PolicyName,
            PolicyDocument,
            path=Path,
            description=Description,
            tags=Tags or [],
            now=call.now,
        )
    except AlreadyExists as error:
        message = f"A policy called {PolicyName} already exists. Duplicate names are not allowed."
        raise already_exists(message) from error
    shown = described(call, policy)
    if Tags:
        shown["Tags"] = list(policy.document.tags)
    return {"Policy": shown}


@operation(permissions=[on_policy("iam:GetPolicy")])
def get_policy(call: Call[Identity], *, PolicyArn: str) -> dict[str, Any]:
    """Return a managed policy, its description and tags."""
    if (managed := policies.MANAGED.get(PolicyArn)) is not None:
        return {"Policy": {**managed_described(call, managed), "Tags": []}}
    policy = find_policy(call, PolicyArn)
    shown = described(call, policy)
    if policy.document.description is not UNSET:
        shown["Description"] = policy.document.description
    return {"Policy": {**shown, "Tags": tags.in_order(policy.document.tags)}}


@operation(permissions=[Permission("iam:ListPolicies")], on=executors.RECORDS)
def list_policies(
    call: Call[Identity],
    *,
    Scope: str = "All",
    OnlyAttached: bool = False,
    PathPrefix: str = "/",
    PolicyUsageFilter: Usage | None = None,
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the managed policies that may be attached: AWS's, the customer's, or both."""
    usage: Usage | None = "PermissionsPolicy" if OnlyAttached else None
    wanted = [each for each in (usage, PolicyUsageFilter) if each is not None]

    def fits(arn: str) -> bool:
        return policies.path_of(arn).startswith(PathPrefix) and all(
            call.service.attachments.count(call.account, arn, each) for each in wanted
        )

    def listed(behind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if Scope != "Local":
            for arn, managed in policies.MANAGED.items():
                if arn > behind and fits(arn):
                    yield arn, managed_described(call, managed)
        if Scope != "AWS":
            name = behind.removeprefix(CUSTOMER) if behind.startswith(CUSTOMER) else None
            for policy in call.service.policies.customer.after(call.account, name):
                if fits(policy.arn):
                    yield CUSTOMER + policy.record.name, described(call, policy)

    page = first_page(listed(key_of(Marker) or ""), MaxItems)
    return {"Policies": page.pop("items"), **page}


@operation(permissions=[on_policy("iam:DeletePolicy")])
async def delete_policy(call: Call[Identity], *, PolicyArn: str) -> None:
    """Remove a policy that nobody uses and that has one version."""
    policy = find_policy(call, PolicyArn)
    if any(call.service.attachments.count(call.account, PolicyArn, usage) for usage in USAGES):
        raise delete_conflict("Cannot delete a policy attached to entities.")
    if len(policy.document.versions) > 1:
        raise delete_conflict(
            "This policy has more than one version. Before you delete a policy, you must delete "
            "the policy's versions. The default version is deleted with the policy."
        )
    try:
        await call.service.policies.customer.delete(policy)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_policy("iam:ListEntitiesForPolicy")], on=executors.RECORDS)
def list_entities_for_policy(
    call: Call[Identity],
    *,
    PolicyArn: str,
    EntityFilter: str | None = None,
    PathPrefix: str = "/",
    PolicyUsageFilter: Usage | None = None,
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the roles, users and groups that use a managed policy."""
    if PolicyArn not in policies.MANAGED:
        find_policy(call, PolicyArn)
    usages = USAGES if PolicyUsageFilter is None else (PolicyUsageFilter,)
    found: set[str] = set()
    for usage in usages:
        found |= call.service.attachments.of(call.account, PolicyArn, usage)
    arns = [
        arn
        for arn in sorted(found)
        if EntityFilter in (None, kind_of(arn).capitalize()) and in_path(arn, PathPrefix)
    ]
    page = paged(arns, arns, Marker, MaxItems)
    shown: dict[str, list[dict[str, str]]] = {
        "PolicyGroups": [],
        "PolicyUsers": [],
        "PolicyRoles": [],
    }
    for arn in page.pop("items"):
        record, kind = call.store.find(arn), kind_of(arn).capitalize()
        if record is not None:
            names = (f"{kind}Name", f"{kind}Id")
            shown[f"Policy{kind}s"].append({name: record.document[name] for name in names})
    return {**shown, **page}


# ---------------------------------------------------------------------- tags


@operation(permissions=[on_policy("iam:TagPolicy", REQUEST_TAGS)])
async def tag_policy(call: Call[Identity], *, PolicyArn: str, Tags: list[dict[str, str]]) -> None:
    """Put tags on a policy, over those with the same keys."""
    policy = find_policy(call, PolicyArn)
    tags.check(Tags, tags.EXACTLY)
    found = tags.merged(policy.document.tags, Tags, TAG_QUOTA, tags.EXACTLY)
    await saved(call, policy, policy.document.replace(tags=found))


@operation(permissions=[on_policy("iam:UntagPolicy", TAG_KEYS)])
async def untag_policy(call: Call[Identity], *, PolicyArn: str, TagKeys: list[str]) -> None:
    """Take tags from a policy; keys that it has not are fine."""
    policy = find_policy(call, PolicyArn)
    found = tags.without(policy.document.tags, TagKeys, tags.EXACTLY)
    await saved(call, policy, policy.document.replace(tags=found))


@operation(permissions=[on_policy("iam:ListPolicyTags")])
def list_policy_tags(
    call: Call[Identity], *, PolicyArn: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return a policy's tags by key; AWS's own policies have none."""
    found: list[tags.Tag] = []
    if PolicyArn not in policies.MANAGED:
        found = tags.in_order(find_policy(call, PolicyArn).document.tags)
    page = paged(found, [tag["Key"] for tag in found], Marker, MaxItems)
    return {"Tags": page.pop("items"), **page}


# ---------------------------------------------------------------------- helpers


async def saved(call: Call[Identity], policy: CustomerPolicy, document: PolicyDocument) -> None:
    """Write a policy's document; ConcurrentModification when somebody else just did."""
    try:
        await call.service.policies.customer.save(policy, document)
    except Conflict as error:
        raise modified_meanwhile() from error


def described(call: Call[Identity], policy: CustomerPolicy) -> dict[str, Any]:
    """Return a customer managed policy as lists show it."""
    document = policy.document
    return {
        "PolicyName": document.policy_name,
        "PolicyId": document.policy_id,
        "Arn": policy.arn,
        "Path": document.path,
        "DefaultVersionId": document.default_version_id,
        "CreateDate": policy.record.created,
        "UpdateDate": from_ms(document.versions[-1].create_date),
        **uses(call, policy.arn),
    }


def managed_described(call: Call[Identity], policy: ManagedPolicy) -> dict[str, Any]:
    """Return one of AWS's policies as lists show it."""
    return {
        "PolicyName": policies.name_of(policy.arn),
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policies.path_of(policy.arn),
        "DefaultVersionId": policy.default_version,
        "CreateDate": policy.created,
        "UpdateDate": policy.updated,
        **uses(call, policy.arn),
    }


def uses(call: Call[Identity], arn: str) -> dict[str, Any]:
    """Return how many of the account's entities use a policy."""
    count = call.service.attachments.count
    return {
        "AttachmentCount": count(call.account, arn),
        "PermissionsBoundaryUsageCount": count(call.account, arn, "PermissionsBoundary"),
        "IsAttachable": True,
    }


def kind_of(arn: str) -> str:
    """Return the kind of entity that an ARN names: role, user or group."""
    return arn.split(":", 5)[5].partition("/")[0]


def in_path(arn: str, prefix: str) -> bool:
    """Tell whether an entity's path begins with a prefix."""
    tail = arn.split(":", 5)[5]
    return tail[tail.index("/") : tail.rindex("/") + 1].startswith(prefix)
