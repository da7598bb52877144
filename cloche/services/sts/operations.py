"""GetCallerIdentity, AssumeRole, GetSessionToken."""

from typing import Any

from cloche.core.errors import AwsError
from cloche.core.identity import Credential
from cloche.operation import Call, operation
from cloche.permissions import NOBODY_IS_ASKED, Permission, arns_at, context, key
from cloche.services.iam import Identity, Role

CHAINED_S = 3600  # a session that was got with another session lasts an hour at the most
ASSUME_KEYS = (
    key("sts:RoleSessionName", "RoleSessionName"),
    key("sts:ExternalId", "ExternalId"),
)
TOKEN_S, ROOT_TOKEN_S = 43200, 3600  # GetSessionToken's default; root's is an hour at the most


@operation(permissions=NOBODY_IS_ASKED)
def get_caller_identity(call: Call[Identity]) -> dict[str, Any]:
    """Return who signed the request."""
    who = call.principal
    return {"UserId": who.user_id, "Account": who.account, "Arn": who.arn}


@operation(permissions=[Permission("sts:AssumeRole", arns_at("RoleArn"), keys=ASSUME_KEYS)])
async def assume_role(
    call: Call[Identity],
    *,
    RoleArn: str,
    RoleSessionName: str,
    DurationSeconds: int = 3600,
    ExternalId: str | None = None,
) -> dict[str, Any]:
    """Return keys of a new session of a role whose trust policy names the caller.

    AccessDenied tells nobody whether the role exists, as on AWS.
    """
    if call.principal.kind == "root":
        raise AwsError("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    role = call.service.role_by_arn(RoleArn)
    given = {"RoleSessionName": RoleSessionName, "ExternalId": ExternalId}
    asked = call.actor.question("sts:AssumeRole", RoleArn, context(call, given, ASSUME_KEYS))
    if role is None or not role.trusts(asked):
        message = (
            f"User: {call.principal.arn} is not authorized to perform: sts:AssumeRole "
            f"on resource: {RoleArn}"
        )
        raise AwsError("AccessDenied", message, 403)
    check_duration(call, role, DurationSeconds)
    session = await call.service.session(RoleArn, RoleSessionName, DurationSeconds, call.now)
    return {
        "Credentials": keys(session),
        "AssumedRoleUser": {
            "AssumedRoleId": session.principal.user_id,
            "Arn": session.principal.arn,
        },
    }


@operation(permissions=NOBODY_IS_ASKED)
async def get_session_token(
    call: Call[Identity], *, DurationSeconds: int = TOKEN_S
) -> dict[str, Any]:
    """Return temporary keys of the caller itself: of root, whose own last an hour at the most."""
    if call.principal.kind == "assumed-role":
        message = "Cannot call GetSessionToken with session credentials"
        raise AwsError("AccessDenied", message, 403)
    duration_s = min(DurationSeconds, ROOT_TOKEN_S)
    session = await call.service.issue(call.principal, call.account, duration_s, call.now)
    return {"Credentials": keys(session)}


def check_duration(call: Call[Identity], role: Role, duration_s: int) -> None:
    """Raise ValidationError when a session may not last so long."""
    if duration_s > role.max_session_s:
        message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise AwsError("ValidationError", message)
    if call.principal.kind == "assumed-role" and duration_s > CHAINED_S:
        message = (
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed "
            "by role chaining."
        )
        raise AwsError("ValidationError", message)


def keys(session: Credential) -> dict[str, Any]:
    """Return a session's keys as the API shows them."""
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        "SessionToken": session.session_token,
        "Expiration": session.expires,
    }
