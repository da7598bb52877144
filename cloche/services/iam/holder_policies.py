"""What users and groups share: policies attached and written, and how they are changed."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.records.errors import Conflict
from cloche.services.iam import policies, policy_limits
from cloche.services.iam.entities import (
    ATTEMPTS,
    check_inline,
    check_policy_arn,
    checked,
    modified_meanwhile,
    no_such,
    used_policy,
)
from cloche.services.iam.identity import Identity
from cloche.services.iam.paging import paged
from cloche.services.iam.record_users import GroupDocument, UserDocument
from cloche.services.iam.users import Group, User

T = TypeVar("T")
FindHolder = Callable[[Call[Identity], str], User | Group]


def find_user(call: Call[Identity], name: str) -> User:
    """Return the caller's user of that name, or raise NoSuchEntity."""
    user = call.service.users.user(call.account, name)
    if user is None:
        raise no_such(f"The user with name {name} cannot be found.")
    return user


def find_group(call: Call[Identity], name: str) -> Group:
    """Return the caller's group of that name, or raise NoSuchEntity."""
    group = call.service.users.group(call.account, name)
    if group is None:
        raise no_such(f"The group with name {name} cannot be found.")
    return group


def user_or_caller(call: Call[Identity], name: str | None) -> User:
    """Return the user of that name, or the one that calls where none is named."""
    if name is not None:
        return find_user(call, name)
    if call.principal.kind != "user":
        raise must_name()
    return find_user(call, call.principal.arn.rpartition("/")[2])


def must_name() -> AwsError:
    """Return the refusal of a caller that is no user and names none."""
    message = "Must specify userName when calling with non-User credentials"
    return AwsError("ValidationError", message)


async def changed(
    call: Call[Identity], held: User | Group, document: UserDocument | GroupDocument
) -> None:
    """Write a user's or group's document; ConcurrentModification: somebody else just did."""
    try:
        await call.service.users.save(held, document)
    except Conflict as error:
        raise modified_meanwhile() from error


# ---------------------------------------------------------------------- managed policies


async def attach(call: Call[Identity], find: FindHolder, name: str, arn: str) -> None:
    """Attach a managed policy; attaching it again changes nothing."""
    for _ in range(ATTEMPTS):  # another may begin to use the same policy at the same time
        held = find(call, name)
        using = used_policy(call, arn)
        if arn in held.document.policies:
            return
        policy_limits.check_attached(held.kind, len(held.document.policies) + 1)
        document = held.document.replace(policies=(*held.document.policies, arn))
        try:
            await call.service.users.save(held, document, *using)
        except Conflict:
            continue
        return
    raise modified_meanwhile()


async def detach(call: Call[Identity], held: User | Group, arn: str) -> None:
    """Detach a managed policy."""
    check_policy_arn(arn)
    if arn not in held.document.policies:
        raise no_such(f"Policy {arn} was not found.")
    kept = tuple(each for each in held.document.policies if each != arn)
    await changed(call, held, held.document.replace(policies=kept))


def attached(held: User | Group, prefix: str, marker: str | None, most: int) -> dict[str, Any]:
    """Return a page of the managed policies that are attached, as the API shows it."""
    arns = sorted(arn for arn in held.document.policies if policies.path_of(arn).startswith(prefix))
    page = paged(arns, arns, marker, most)
    listed = [{"PolicyName": policies.name_of(arn), "PolicyArn": arn} for arn in page.pop("items")]
    return {"AttachedPolicies": listed, **page}


# ---------------------------------------------------------------------- inline policies


async def put_inline(call: Call[Identity], held: User | Group, name: str, text: str) -> None:
    """Write an inline policy, over one of the same name."""
    await checked(check_inline, text)
    inline = {**held.document.inline, name: text}
    policy_limits.check_inline(held.kind, held.name, inline.values())
    await changed(call, held, held.document.replace(inline=inline))


def inline(held: User | Group, name: str) -> dict[str, Any]:
    """Return an inline policy as the API shows it, percent-encoded (RFC 3986)."""
    text = held.document.inline.get(name)
    if text is None:
        raise no_such_inline(held, name)
    return {
        f"{held.kind.title()}Name": held.name,
        "PolicyName": name,
        "PolicyDocument": quote(text, safe="-_.~"),
    }


async def delete_inline(call: Call[Identity], held: User | Group, name: str) -> None:
    """Remove an inline policy."""
    kept = dict(held.document.inline)
    if kept.pop(name, None) is None:
        raise no_such_inline(held, name)
    await changed(call, held, held.document.replace(inline=kept))


def inline_names(held: User | Group, marker: str | None, most: int) -> dict[str, Any]:
    """Return a page of the inline policies' names, as the API shows it."""
    names = sorted(held.document.inline)
    page = paged(names, names, marker, most)
    return {"PolicyNames": page.pop("items"), **page}


def no_such_inline(held: User | Group, name: str) -> AwsError:
    """Return the refusal of an inline policy that is not there."""
    return no_such(f"The {held.kind} policy with name {name} cannot be found.")
