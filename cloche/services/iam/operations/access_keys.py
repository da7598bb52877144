"""Access keys of users: made, made inactive, removed; when they were last used.

Root's keys are chosen or drawn by `cloche up`; they are listed, and not changed here.
"""

from typing import Any

from cloche.core.clock import from_ms
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.permissions import Parameters, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.store import Resource
from cloche.services.iam import policy_limits
from cloche.services.iam.entities import ATTEMPTS, modified_meanwhile, no_such
from cloche.services.iam.holder_policies import find_user, must_name, user_or_caller
from cloche.services.iam.identity import Identity
from cloche.services.iam.keys import key_arn
from cloche.services.iam.paging import PAGE, paged
from cloche.services.iam.permissions_users import on_user, user_arns
from cloche.services.iam.users import User

KEYS_PER_USER = 2  # IAM quotas
ROOTS_KEYS = "changing root's access keys"
CHOSEN = "`cloche up --root-access-key-id --root-secret-access-key` chooses them."


def owner_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of the user whose key a request names; of who calls, where nobody's."""
    key = own_key(call, parameters["AccessKeyId"])
    if key is None or key.status == call.account:
        return user_arns(call, {})
    return [call.service.principal_of(key).arn]


@operation(permissions=[on_user("iam:CreateAccessKey")])
async def create_access_key(call: Call[Identity], *, UserName: str | None = None) -> dict[str, Any]:
    """Return a new key of a user, the secret for the only time."""
    if UserName is None and call.principal.kind == "root":
        raise unsupported(ROOTS_KEYS, CHOSEN)
    for _ in range(ATTEMPTS):  # two requests may make one at the same time
        user = user_or_caller(call, UserName)
        if len(call.service.keys_of(user.id)) >= KEYS_PER_USER:
            raise policy_limits.exceeded("AccessKeysPerUser", KEYS_PER_USER)
        try:
            made = await call.service.create_key(user, call.now)
        except (AlreadyExists, Conflict):
            continue
        return {
            "AccessKey": {
                "UserName": user.name,
                "AccessKeyId": made.access_key_id,
                "Status": "Active",
                "SecretAccessKey": made.secret_access_key,
                "CreateDate": call.now,
            }
        }
    raise modified_meanwhile()


@operation(permissions=[on_user("iam:UpdateAccessKey")])
async def update_access_key(
    call: Call[Identity], *, AccessKeyId: str, Status: str, UserName: str | None = None
) -> None:
    """Let a key work or not; in force at the next request."""
    key = find_key(call, AccessKeyId, UserName)
    try:
        await call.service.set_key_active(key, Status == "Active")
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_user("iam:DeleteAccessKey")])
async def delete_access_key(
    call: Call[Identity], *, AccessKeyId: str, UserName: str | None = None
) -> None:
    """Remove a key; in force at the next request."""
    key = find_key(call, AccessKeyId, UserName)
    try:
        await call.service.delete_key(key)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_user("iam:ListAccessKeys")])
def list_access_keys(
    call: Call[Identity],
    *,
    UserName: str | None = None,
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return a user's keys, or the caller's, without their secrets."""
    if UserName is None and call.principal.kind == "root":
        owner, shown = call.account, {}
    else:
        user = user_or_caller(call, UserName)
        owner, shown = user.id, {"UserName": user.name}
    keys = sorted(call.service.keys_of(owner), key=lambda key: (key.created, key.name))
    page = paged(keys, [key.name for key in keys], Marker, MaxItems)
    listed = [
        {
            **shown,
            "AccessKeyId": key.name,
            "Status": "Inactive" if key.document.get("Active") is False else "Active",
            "CreateDate": key.created,
        }
        for key in page.pop("items")
    ]
    return {"AccessKeyMetadata": listed, **page}


@operation(permissions=[Permission("iam:GetAccessKeyLastUsed", owner_arns)])
def get_access_key_last_used(call: Call[Identity], *, AccessKeyId: str) -> dict[str, Any]:
    """Return when a key last signed a request, and what for."""
    key = own_key(call, AccessKeyId)
    if key is None:
        message = (
            f"User: {call.principal.arn} is not authorized to perform iam:GetAccessKeyLastUsed "
            f"on resource: access key {AccessKeyId}"
        )
        raise AwsError("AccessDenied", message, 403)
    use = call.service.key_use.of(AccessKeyId)
    shown: dict[str, Any] = {"ServiceName": "N/A", "Region": "N/A"}
    if use is not None:
        shown = {
            "LastUsedDate": from_ms(use.last_used_date),
            "ServiceName": use.service_name,
            "Region": use.region,
        }
    named = {} if key.status == call.account else {"UserName": owner_name(call, key)}
    return {**named, "AccessKeyLastUsed": shown}


# ---------------------------------------------------------------------- helpers


def own_key(call: Call[Identity], key_id: str) -> Resource | None:
    """Return an access key of the caller's account, or None."""
    key = call.store.find(key_arn("access-key", key_id))
    return key if key is not None and key.account == call.account else None


def owner_name(call: Call[Identity], key: Resource) -> str:
    """Return the name of the user whose key it is."""
    return call.service.principal_of(key).arn.rpartition("/")[2]


def find_key(call: Call[Identity], key_id: str, name: str | None) -> Resource:
    """Return a user's key, the caller's where no user is named; NoSuchEntity: it has none such."""
    user: User | None = find_user(call, name) if name is not None else None
    if user is None and call.principal.kind == "root":
        if any(key.name == key_id for key in call.service.keys_of(call.account)):
            raise unsupported(ROOTS_KEYS, CHOSEN)
        raise must_name()
    user = user or user_or_caller(call, name)
    for key in call.service.keys_of(user.id):
        if key.name == key_id:
            return key
    raise no_such(f"The Access Key with id {key_id} cannot be found.")
