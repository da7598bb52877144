"""The operations on roles and on root."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar, overload
from urllib.parse import quote

from msgspec import UNSET

from cloche.core import executors
from cloche.core.authorization import Context, Question
from cloche.core.errors import AwsError, unsupported
from cloche.core.numbers import integer
from cloche.operation import Call, operation
from cloche.permissions import Permission, arns_at
from cloche.records.errors import AlreadyExists, Conflict
from cloche.services.iam import policies, trust_policies
from cloche.services.iam.evaluate import CompiledStatement, compiled, evaluate
from cloche.services.iam.identity import Identity, Role
from cloche.services.iam.permissions import (
    CREATE_ROLE,
    POLICY,
    on_role,
    role_folder,
    user_arns,
)

T = TypeVar("T")
ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+")
PAGE = 100  # entries of a list where MaxItems does not say
SIMULATED = "simulated"  # the session that a simulated request is said to come from
ATTACHED = 10  # managed policies that a role may have (IAM quotas)


@operation(permissions=CREATE_ROLE)
async def create_role(
    call: Call[Identity],
    *,
    RoleName: str,
    AssumeRolePolicyDocument: str,
    Path: str = "/",
    Description: str | None = None,
    MaxSessionDuration: int = 3600,
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Make a role that its trust policy's principals may assume."""
    trust_policies.check(AssumeRolePolicyDocument)
    check_tags(Tags or [])
    try:
        role = await call.service.create_role(
            call.account,
            RoleName,
            AssumeRolePolicyDocument,
            path=Path,
            description=Description,
            max_session_s=MaxSessionDuration,
            tags=Tags,
            now=call.now,
        )
    except AlreadyExists as error:
        message = f"Role with name {RoleName} already exists."
        raise AwsError("EntityAlreadyExists", message, 409) from error
    return {"Role": described(role)}


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
    """Return the roles whose path begins with the prefix, by name; without their tags."""
    roles = [r for r in call.service.roles(call.account) if r.document.path.startswith(PathPrefix)]
    page = paged(roles, [role.name for role in roles], Marker, MaxItems)
    listed = [described(role) for role in page.pop("items")]
    for role in listed:
        role.pop("Tags", None)
    return {"Roles": listed, **page}


@operation(permissions=[on_role("iam:DeleteRole")])
async def delete_role(call: Call[Identity], *, RoleName: str) -> None:
    """Remove a role that has no policies attached; its sessions end."""
    role = find_role(call, RoleName)
    if role.policies:
        message = "Cannot delete entity, must detach all policies first."
        raise AwsError("DeleteConflict", message, 409)
    try:
        await call.service.delete_role(role)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_role("iam:AttachRolePolicy", POLICY)])
async def attach_role_policy(call: Call[Identity], *, RoleName: str, PolicyArn: str) -> None:
    """Record that a managed policy is attached; attaching it again changes nothing."""
    role = find_role(call, RoleName)
    arn = policies.attachable(PolicyArn)
    if arn in role.policies:
        return
    if len(role.policies) >= ATTACHED:
        message = f"Cannot exceed quota for PoliciesPerRole: {ATTACHED}"
        raise AwsError("LimitExceeded", message, 409)
    await set_policies(call, role, [*role.policies, arn])


@operation(permissions=[on_role("iam:DetachRolePolicy", POLICY)])
async def detach_role_policy(call: Call[Identity], *, RoleName: str, PolicyArn: str) -> None:
    """Record that a managed policy is no longer attached."""
    role = find_role(call, RoleName)
    if PolicyArn not in role.policies:
        raise AwsError("NoSuchEntity", f"Policy {PolicyArn} was not found.", 404)
    await set_policies(call, role, [arn for arn in role.policies if arn != PolicyArn])


@operation(permissions=[on_role("iam:ListAttachedRolePolicies")])
def list_attached_role_policies(
    call: Call[Identity],
    *,
    RoleName: str,
    PathPrefix: str = "/",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the managed policies that are attached to a role."""
    role = find_role(call, RoleName)
    arns = [arn for arn in role.policies if policies.path_of(arn).startswith(PathPrefix)]
    page = paged(sorted(arns), sorted(arns), Marker, MaxItems)
    listed = [{"PolicyName": policies.name_of(arn), "PolicyArn": arn} for arn in page.pop("items")]
    return {"AttachedPolicies": listed, **page}


@operation(permissions=[Permission("iam:GetUser", user_arns)])
def get_user(call: Call[Identity], *, UserName: str | None = None) -> dict[str, Any]:
    """Return the caller where that is root, the only user there is."""
    if UserName is not None:
        message = f"The user with name {UserName} cannot be found."
        raise AwsError("NoSuchEntity", message, 404)
    root = call.service.root(call.account)
    if call.principal.kind != "root" or root is None:
        message = "Must specify userName when calling with non-User credentials"
        raise AwsError("ValidationError", message)
    return {"User": {"UserId": call.account, "Arn": root.arn, "CreateDate": root.created}}


@operation(permissions=[Permission("iam:ListAccountAliases")])
def list_account_aliases(
    call: Call[Identity], *, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return no alias: there is no way to make one."""
    return {"AccountAliases": [], "IsTruncated": False}


@operation(permissions=[Permission("iam:SimulatePrincipalPolicy", arns_at("PolicySourceArn"))])
def simulate_principal_policy(
    call: Call[Identity],
    *,
    PolicySourceArn: str,
    ActionNames: Sequence[str],
    ResourceArns: Sequence[str] = ("*",),
    ContextEntries: Sequence[dict[str, Any]] = (),
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return what a role's attached policies say about each action on each resource."""
    role = call.service.role_by_arn(PolicySourceArn)
    if role is None or role.record.account != call.account:
        name = PolicySourceArn.rsplit("/", 1)[-1]
        raise AwsError("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
    attached = [
        statement
        for arn in role.policies
        for statement in compiled(policies.name_of(arn), policies.document(arn))
    ]
    who = role.session(SIMULATED)
    context = Context(dict(context_entry(entry) for entry in ContextEntries))
    resources = len(ResourceArns)
    pairs = range(len(ActionNames) * resources)  # by number: there may be millions
    page = paged(pairs, Numbered(pairs), Marker, MaxItems)
    results = [
        simulated(
            Question(who, ActionNames[n // resources], ResourceArns[n % resources], context),
            attached,
        )
        for n in page.pop("items")
    ]
    return {"EvaluationResults": results, **page}


# ---------------------------------------------------------------------- helpers


class Numbered(Sequence[str]):
    """The numbers of a range as text, made when asked for."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        found = self.numbers[place]
        return Numbered(found) if isinstance(found, range) else str(found)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return where a number is; ValueError when it is not there."""
        return self.numbers.index(integer(value))


def context_entry(entry: dict[str, Any]) -> tuple[str, str]:
    """Return a condition key, in lower case, and its value; a list of several is refused."""
    name = entry.get("ContextKeyName")
    if name is None:
        raise AwsError("InvalidInput", "Invalid Context Entry: ContextKeyName is missing")
    values: list[str] = entry.get("ContextKeyValues") or [""]
    if len(values) > 1:
        raise unsupported(f"several values of the context key {name}")
    return name.lower(), values[0]


def simulated(asked: Question, attached: Sequence[CompiledStatement]) -> dict[str, Any]:
    """Return one result of a simulation, as the API shows it."""
    if not ACTION.fullmatch(asked.action):
        raise AwsError("InvalidInput", f"Invalid Action Name: {asked.action}")
    found = evaluate(attached, asked)
    decided = dict.fromkeys(statement.policy for statement in found.by)
    return {
        "EvalActionName": asked.action,
        "EvalResourceName": asked.resource,
        "EvalDecision": found.verdict,
        "MatchedStatements": [
            {"SourcePolicyId": name, "SourcePolicyType": "aws-managed"} for name in decided
        ],
        "MissingContextValues": list(found.missing),
    }


def find_role(call: Call[Identity], name: str) -> Role:
    """Return the caller's role of that name, or raise NoSuchEntity."""
    role = call.service.role(call.account, name)
    if role is None:
        raise AwsError("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
    return role


async def set_policies(call: Call[Identity], role: Role, arns: list[str]) -> None:
    """Write the attached policies; ConcurrentModification when somebody else just did."""
    try:
        await call.service.set_policies(role, arns)
    except Conflict as error:
        raise modified_meanwhile() from error


def modified_meanwhile() -> AwsError:
    """Return what IAM answers when two requests change one entity at once."""
    message = "The request was rejected because multiple requests to change this object were "
    return AwsError("ConcurrentModification", message + "submitted simultaneously.", 409)


def check_tags(tags: list[dict[str, str]]) -> None:
    """Raise InvalidInput when a tag key is there twice."""
    keys = [tag["Key"].lower() for tag in tags]
    if len(keys) != len(set(keys)):
        message = "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        raise AwsError("InvalidInput", message)


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
    if document.tags:
        shown["Tags"] = list(document.tags)
    return shown


def paged(
    items: Sequence[T], keys: Sequence[str], marker: str | None, limit: int
) -> dict[str, Any]:
    """Return one page: `items` and IAM's IsTruncated and Marker (the key that the page ends at)."""
    start = 0
    if marker is not None:
        try:
            start = keys.index(marker) + 1
        except ValueError as error:
            raise AwsError("ValidationError", "Invalid Marker.") from error
    page: dict[str, Any] = {"items": items[start : start + limit], "IsTruncated": False}
    if start + limit < len(items):
        page |= {"IsTruncated": True, "Marker": keys[start + limit - 1]}
    return page
