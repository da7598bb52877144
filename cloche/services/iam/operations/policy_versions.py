"""Versions of managed policies."""

from typing import Any
from urllib.parse import quote

from cloche.core.clock import from_ms
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.services.iam import policies, policy_limits
from cloche.services.iam.customer_policies import CustomerPolicy
from cloche.services.iam.entities import (
    check_managed,
    checked,
    delete_conflict,
    find_policy,
    no_such,
)
from cloche.services.iam.identity import Identity
from cloche.services.iam.operations.managed_policies import saved
from cloche.services.iam.paging import PAGE, paged
from cloche.services.iam.permissions import on_policy
from cloche.services.iam.policies import ManagedPolicy
from cloche.services.iam.record import PolicyVersion


@operation(permissions=[on_policy("iam:CreatePolicyVersion")])
async def create_policy_version(
    call: Call[Identity], *, PolicyArn: str, PolicyDocument: str, SetAsDefault: bool = False
) -> dict[str, Any]:
    """Add a version to a policy; it is in force when it is set as the default."""
    find_policy(call, PolicyArn, not_attachable(PolicyArn))
    await checked(check_managed, PolicyDocument)
    policy = find_policy(call, PolicyArn, not_attachable(PolicyArn))
    if len(policy.document.versions) >= policy_limits.VERSIONS:
        message = (
            f"A managed policy can have up to {policy_limits.VERSIONS} versions. Before you create "
            "a new version, you must delete an existing version."
        )
        raise AwsError("LimitExceeded", message, 409)
    document = policy.with_version(PolicyDocument, call.now, SetAsDefault)
    await saved(call, policy, document)
    return {"PolicyVersion": described(document.versions[-1], document.default_version_id)}


@operation(permissions=[on_policy("iam:GetPolicyVersion")])
def get_policy_version(call: Call[Identity], *, PolicyArn: str, VersionId: str) -> dict[str, Any]:
    """Return one version with its document, percent-encoded (RFC 3986)."""
    if (managed := policies.MANAGED.get(PolicyArn)) is not None:
        if VersionId != managed.default_version:
            raise unsupported(
                f"{VersionId} of the AWS managed policy {policies.name_of(PolicyArn)}",
                f"Its default version, {managed.default_version}, is here.",
            )
        text, shown = policies.text(PolicyArn), managed_described(managed)
    else:
        policy, version = find_version(call, PolicyArn, VersionId)
        text, shown = version.document, described(version, policy.document.default_version_id)
    return {"PolicyVersion": {**shown, "Document": quote(text, safe="-_.~")}}


@operation(permissions=[on_policy("iam:ListPolicyVersions")])
def list_policy_versions(
    call: Call[Identity], *, PolicyArn: str, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the versions, newest first; of AWS's policies the default one."""
    if (managed := policies.MANAGED.get(PolicyArn)) is not None:
        return {"Versions": [managed_described(managed)], "IsTruncated": False}
    policy = find_policy(call, PolicyArn, not_attachable(PolicyArn))
    default = policy.document.default_version_id
    shown = [described(each, default) for each in reversed(policy.document.versions)]
    page = paged(shown, [each["VersionId"] for each in shown], Marker, MaxItems)
    return {"Versions": page.pop("items"), **page}


@operation(permissions=[on_policy("iam:SetDefaultPolicyVersion")])
async def set_default_policy_version(
    call: Call[Identity], *, PolicyArn: str, VersionId: str
) -> None:
    """Put a version in force, for all that the policy is attached to."""
    policy, _ = find_version(call, PolicyArn, VersionId)
    await saved(call, policy, policy.document.replace(default_version_id=VersionId))


@operation(permissions=[on_policy("iam:DeletePolicyVersion")])
async def delete_policy_version(call: Call[Identity], *, PolicyArn: str, VersionId: str) -> None:
    """Remove a version that is not the default one."""
    policy, _ = find_version(call, PolicyArn, VersionId)
    if VersionId == policy.document.default_version_id:
        raise delete_conflict("Cannot delete the default version of a policy.")
    await saved(call, policy, policy.without_version(VersionId))


# ---------------------------------------------------------------------- helpers


def find_version(
    call: Call[Identity], arn: str, version_id: str
) -> tuple[CustomerPolicy, PolicyVersion]:
    """Return one version of a customer managed policy, or raise NoSuchEntity."""
    message = f"Policy {arn} version {version_id} does not exist or is not attachable."
    policy = find_policy(call, arn, message)
    found = policy.version(version_id)
    if found is None:
        raise no_such(message)
    return policy, found


def not_attachable(arn: str) -> str:
    """Return what IAM says of a policy that is not there, where its versions are asked about."""
    return f"Policy {arn} does not exist or is not attachable."


def described(version: PolicyVersion, default: str) -> dict[str, Any]:
    """Return a version as the API shows it."""
    return {
        "VersionId": version.version_id,
        "IsDefaultVersion": version.version_id == default,
        "CreateDate": from_ms(version.create_date),
    }


def managed_described(policy: ManagedPolicy) -> dict[str, Any]:
    """Return the default version of one of AWS's policies as the API shows it."""
    return {
        "VersionId": policy.default_version,
        "IsDefaultVersion": True,
        "CreateDate": policy.updated,
    }
