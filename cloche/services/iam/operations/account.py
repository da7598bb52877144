"""The account itself: its alias, and how much it holds of how much it may."""

from collections.abc import Mapping
from typing import Any

from cloche.core import executors
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.store import Change, Resource
from cloche.services.iam.entities import already_exists, modified_meanwhile, no_such
from cloche.services.iam.identity import REGION, Identity
from cloche.services.iam.paging import PAGE, invalid_marker

KIND = "account-alias"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
QUOTAS: Mapping[str, int] = {
    "AccessKeysPerUserQuota": 2,
    "AssumeRolePolicySizeQuota": 2048,
    "AttachedPoliciesPerGroupQuota": 10,
    "AttachedPoliciesPerRoleQuota": 10,
    "AttachedPoliciesPerUserQuota": 10,
    "GlobalEndpointTokenVersion": 1,
    "GroupPolicySizeQuota": 5120,
    "GroupsPerUserQuota": 10,
    "GroupsQuota": 300,
    "InstanceProfilesQuota": 1000,
    "PoliciesQuota": 1500,
    "PolicySizeQuota": 6144,
    "PolicyVersionsInUseQuota": 10000,
    "RolePolicySizeQuota": 10240,
    "RolesQuota": 1000,
    "ServerCertificatesQuota": 20,
    "SigningCertificatesPerUserQuota": 2,
    "UserPolicySizeQuota": 2048,
    "UsersQuota": 5000,
    "VersionsPerPolicyQuota": 5,
}
# What there is none of here, nor can be.
NONE = (
    "AccountPasswordPresent",
    "AccountSigningCertificatesPresent",
    "Providers",
    "ServerCertificates",
)
COUNTED: Mapping[str, str] = {
    "Groups": "group",
    "InstanceProfiles": "instance-profile",
    "MFADevices": "mfa",
    "Policies": "policy",
    "Roles": "role",
}


@operation(permissions=[Permission("iam:CreateAccountAlias")])
async def create_account_alias(call: Call[Identity], *, AccountAlias: str) -> None:
    """Give the account this alias, for the one that it had."""
    new = Resource(
        account=call.account,
        region=REGION,
        kind=KIND,
        name=AccountAlias,
        arn=f"{KIND}/{AccountAlias}",  # no other account may have it
        created=call.now,
        modified=call.now,
    )
    had = aliases(call)
    if [each.name for each in had] == [AccountAlias]:
        return
    try:
        await call.store.change([*(Change(old=each) for each in had), Change(new=new)])
    except AlreadyExists as error:
        raise already_exists(f"The account alias {AccountAlias} already exists.") from error
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[Permission("iam:DeleteAccountAlias")])
async def delete_account_alias(call: Call[Identity], *, AccountAlias: str) -> None:
    """Take the account's alias away."""
    found = call.store.get(KIND, call.account, REGION, AccountAlias)
    if found is None:
        raise no_such(f"The account alias {AccountAlias} cannot be found.")
    try:
        await call.store.delete(found)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[Permission("iam:ListAccountAliases")])
def list_account_aliases(
    call: Call[Identity], *, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return the account's alias, where it has one."""
    if Marker is not None:
        raise invalid_marker()  # there is one page
    return {"AccountAliases": [each.name for each in aliases(call)], "IsTruncated": False}


@operation(permissions=[Permission("iam:GetAccountSummary")], on=executors.RECORDS)
def get_account_summary(call: Call[Identity]) -> dict[str, Any]:
    """Return how much the account holds, counted now, and how much it may hold."""
    store, account, identity = call.store, call.account, call.service
    counts = {name: store.count(kind, account, REGION) for name, kind in COUNTED.items()}
    counts["Users"] = store.count("user", account, REGION) - 1  # root's record is of this kind
    counts["MFADevicesInUse"] = store.count("mfa", account, REGION, without="")
    counts["PolicyVersionsInUse"] = sum(
        len(policy.document.versions) for policy in identity.policies.customer.after(account, None)
    )
    counts["AccountAccessKeysPresent"] = int(bool(identity.keys_of(account)))
    counts["AccountMFAEnabled"] = int(bool(identity.mfa.of(account)))
    return {"SummaryMap": {**counts, **dict.fromkeys(NONE, 0), **QUOTAS}}


def aliases(call: Call[Identity]) -> list[Resource]:
    """Return the records of the account's aliases: one at the most."""
    return list(call.service.users.rows(KIND, call.account, None))
