"""GetCallerIdentity, AssumeRole, GetSessionToken, GetAccessKeyInfo."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloche.core.authorization import Context
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.core.identity import Credential, Session
from cloche.operation import Call, operation
from cloche.permissions import NOBODY_IS_ASKED, Permission
from cloche.services.iam import Identity, Role, check_session_policies, packed_size
from cloche.services.sts.mfa import prove_mfa
from cloche.services.sts.permissions import ASSUME_ROLE, Parameters
from cloche.services.sts.tags import session_tags

CHAINED_S = 3600  # a session that was got with another session lasts an hour at the most
TOKEN_S, ROOT_TOKEN_S = 43200, 3600  # GetSessionToken's default; root's is an hour at the most
ARN = re.compile(r"arn:[^:\s]+:[^:\s]+:[^:\s]*:[^:\s]*:\S+")


@operation(permissions=NOBODY_IS_ASKED)
def get_caller_identity(call: Call[Identity]) -> dict[str, Any]:
    """Return who signed the request."""
    who = call.principal
    return {"UserId": who.user_id, "Account": who.account, "Arn": who.arn}


@operation(permissions=(), further=ASSUME_ROLE)
async def assume_role(
    call: Call[Identity],
    *,
    RoleArn: str,
    RoleSessionName: str,
    PolicyArns: Sequence[Mapping[str, str]] = (),
    Policy: str | None = None,
    DurationSeconds: int = 3600,
    Tags: Sequence[Mapping[str, str]] = (),
    TransitiveTagKeys: Sequence[str] = (),
    ExternalId: str | None = None,
    SerialNumber: str | None = None,
    TokenCode: str | None = None,
    SourceIdentity: str | None = None,
) -> dict[str, Any]:
    """Return keys of a new session of a role whose trust policy names the caller.

    Permissions are asked here, since an MFA code is true of them once it is proven. AccessDenied
    tells nobody whether the role exists, as on AWS.
    """
    if not ARN.fullmatch(RoleArn):
        raise AwsError("ValidationError", f"{RoleArn} is invalid")
    tags, transitive = session_tags(call.principal.session, Tags, TransitiveTagKeys)
    texts = () if Policy is None else (Policy,)
    arns = tuple(each["arn"] for each in PolicyArns if "arn" in each)
    behind = source_identity(call, SourceIdentity)
    given = {
        "RoleArn": RoleArn,
        "RoleSessionName": RoleSessionName,
        "ExternalId": ExternalId,
        "Tags": Tags,
        "TransitiveTagKeys": TransitiveTagKeys,
        "SourceIdentity": behind,
    }
    mfa = await prove_mfa(call, SerialNumber, TokenCode)
    role = assumed(call, given, Context() if mfa is None else MFA_GIVEN)
    check_duration(call, role, DurationSeconds)
    size = packed_size(texts, arns, tags)
    check_session_policies(call.service.policies, role.record.account, texts, arns)
    session = Session(
        issued_at_ms=to_ms(call.now),
        policies=texts,
        policy_arns=arns,
        tags=tags,
        transitive=transitive,
        source_identity=behind,
    )
    who = role.session(RoleSessionName, session)
    issued = await call.service.issue(who, role.id, DurationSeconds, call.now)
    answer = {
        "Credentials": keys(issued),
        "AssumedRoleUser": {"AssumedRoleId": who.user_id, "Arn": who.arn},
        "PackedPolicySize": size,
        "SourceIdentity": behind,
    }
    return {name: value for name, value in answer.items() if value is not None}


@operation(permissions=NOBODY_IS_ASKED)
async def get_session_token(
    call: Call[Identity],
    *,
    DurationSeconds: int = TOKEN_S,
    SerialNumber: str | None = None,
    TokenCode: str | None = None,
) -> dict[str, Any]:
    """Return temporary keys of the caller itself: of root, whose own last an hour at the most."""
    if call.principal.kind == "assumed-role" or call.principal.session is not None:
        raise with_session_credentials(call)
    duration_s = DurationSeconds
    if call.principal.kind == "root":
        duration_s = min(DurationSeconds, ROOT_TOKEN_S)
    session = Session(
        issued_at_ms=to_ms(call.now),
        mfa_at_ms=await prove_mfa(call, SerialNumber, TokenCode),
        from_token=True,
    )
    issued = await call.service.issue_for(call.principal, session, duration_s, call.now)
    return {"Credentials": keys(issued)}


@operation(permissions=[Permission("sts:GetAccessKeyInfo")])
def get_access_key_info(call: Call[Identity], *, AccessKeyId: str) -> dict[str, Any]:
    """Return the account that a key was issued for: anybody may ask about any key."""
    account = call.service.account_of(AccessKeyId)
    if account is None:
        message = f"The access key {AccessKeyId} was not issued here."
        raise AwsError("ValidationError", message)
    return {"Account": account}


def admit(call: Call[Identity]) -> None:
    """Refuse what GetSessionToken's keys may not call of STS.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
    """
    session = call.principal.session
    allowed = ("AssumeRole", "GetCallerIdentity")
    if session is not None and session.from_token and call.operation not in allowed:
        raise with_session_credentials(call)


def with_session_credentials(call: Call[Any]) -> AwsError:
    """Return the refusal of a session that asks for another by itself."""
    message = f"Cannot call {call.operation} with session credentials"
    return AwsError("AccessDenied", message, 403)


# ---------------------------------------------------------------------- AssumeRole

# What is true while the role is assumed with a code; its session says nothing of it, as on AWS.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_mfa_configure-api-require.html
MFA_GIVEN = Context({"aws:multifactorauthpresent": "true", "aws:multifactorauthage": "0"})


def assumed(call: Call[Identity], given: Parameters, mfa: Context) -> Role:
    """Return the role, when the caller may assume it: its own policies and the role's agree."""
    asked = [
        (action, resource, mfa.over(lambda keys=keys: keys))  # type: ignore[misc]
        for permission in ASSUME_ROLE
        for action, resource, keys in permission.asked(call, given)
    ]
    for action, resource, context in asked:
        call.authorize(action, resource, context)
    if call.principal.kind == "root":
        raise AwsError("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    role = call.service.role_by_arn(given["RoleArn"])
    for action, resource, context in asked:
        question = call.actor.question(action, resource, context)
        if role is None or not role.trusts(question):
            raise not_trusted(call, action, resource)
    assert role is not None
    return role


def not_trusted(call: Call[Identity], action: str, role_arn: str) -> AwsError:
    """Return the refusal of a role's trust policy; of a role that is not there as well."""
    message = (
        f"User: {call.principal.arn} is not authorized to perform: {action} on resource: {role_arn}"
    )
    return AwsError("AccessDenied", message, 403)


def source_identity(call: Call[Identity], given: str | None) -> str | None:
    """Return who is behind the session: the caller's own goes down a chain unchanged."""
    session = call.principal.session
    own = None if session is None else session.source_identity
    if own is not None and given not in (None, own):
        message = (
            f"User: {call.principal.arn} is not authorized to perform: sts:SetSourceIdentity: "
            f"its source identity is {own}, and goes down a chain of roles unchanged"
        )
        raise AwsError("AccessDenied", message, 403)
    return given if own is None else own


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
