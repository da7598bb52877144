"""What IAM's operations share: policies checked, entities found, or refused as IAM words it."""

import re
from collections.abc import Callable
from typing import Any

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.records.store import Change, Resource
from cloche.services.iam import (
    policies,
    policy_grammar,
    policy_limits,
    service_linked,
    trust_policies,
)
from cloche.services.iam.customer_policies import CustomerPolicy
from cloche.services.iam.identity import Identity, Role

POLICY_ARN = re.compile(r"arn:aws:iam::([0-9]{12}|aws):policy/.+", re.DOTALL)
LARGE = 16_384  # characters of a policy whose check takes longer than a hop to a thread
NOT_ATTACHABLE = "Cannot attach a Service Role Policy to a Customer Role."
ATTEMPTS = 5  # of a write that others' writes come in between of


async def checked(check: Callable[[str], object], text: str) -> None:
    """Check a policy, a large one on threads: its grammar, its size."""
    if len(text) <= LARGE:
        check(text)
    else:
        await executors.MESSAGES.run(check, text)


def check_managed(text: str) -> None:
    """Raise MalformedPolicyDocument, LimitExceeded unless a text may be a managed policy."""
    policy_grammar.check(text, policy_grammar.MANAGED)
    policy_limits.check_managed(text)


def check_inline(text: str) -> None:
    """Raise MalformedPolicyDocument unless a text may be an inline policy."""
    policy_grammar.check(text, policy_grammar.IDENTITY)


def check_trust(text: str) -> None:
    """Raise MalformedPolicyDocument, LimitExceeded unless a text may be a trust policy."""
    trust_policies.check(text)
    policy_limits.check_trust(text)


def find_role(call: Call[Identity], name: str) -> Role:
    """Return the caller's role of that name, or raise NoSuchEntity."""
    role = call.service.role(call.account, name)
    if role is None:
        raise no_such(f"The role with name {name} cannot be found.")
    return role


def profile_status(role: Role) -> str:
    """Return the status of the instance profiles that a role is in."""
    return f"{role.record.account}/{role.record.name}"


def profiles_of(call: Call[Identity], role: Role) -> list[Resource]:
    """Return the records of the instance profiles that a role is in."""
    return call.store.each("instance-profile", [profile_status(role)])


def find_policy(call: Call[Identity], arn: str, message: str = "") -> CustomerPolicy:
    """Return the caller's customer managed policy with this ARN, or raise NoSuchEntity.

    AWS's own policies are not for customers to change.
    """
    check_policy_arn(arn)
    if arn in policies.MANAGED:
        raise AwsError("AccessDenied", "Policy is outside your own account.", 403)
    found = call.service.policies.customer.find(call.account, arn)
    if found is None:
        raise no_such(message or f"Policy {arn} was not found.")
    return found


def used_policy(call: Call[Identity], arn: str, boundary: bool = False) -> tuple[Change, ...]:
    """Return what is written with whatever begins to use a policy; NoSuchEntity: there is none."""
    check_policy_arn(arn, "InvalidInput" if boundary else "ValidationError")
    if arn.startswith(service_linked.PREFIX):
        raise AwsError("PolicyNotAttachable", NOT_ATTACHABLE, 400)
    if arn in policies.MANAGED:
        return ()
    customer = call.service.policies.customer
    found = customer.find(call.account, arn)
    if found is None:
        name = f"Scope ARN: {arn}" if boundary else f"Policy {arn}"
        raise no_such(f"{name} does not exist or is not attachable.")
    return (customer.use(found),)


def check_policy_arn(arn: str, code: str = "ValidationError") -> None:
    """Raise an error with this code when an ARN is none of a managed policy."""
    if not POLICY_ARN.fullmatch(arn):
        raise AwsError(code, f"ARN {arn} is not valid.")


def no_such(message: str) -> AwsError:
    """Return IAM's refusal of what is not there."""
    return AwsError("NoSuchEntity", message, 404)


def delete_conflict(message: str) -> AwsError:
    """Return IAM's refusal to delete what is in use."""
    return AwsError("DeleteConflict", message, 409)


def already_exists(message: str) -> AwsError:
    """Return IAM's refusal of a name that is taken."""
    return AwsError("EntityAlreadyExists", message, 409)


def modified_meanwhile() -> AwsError:
    """Return what IAM answers when two requests change one entity at once."""
    message = "The request was rejected because multiple requests to change this object were "
    return AwsError("ConcurrentModification", message + "submitted simultaneously.", 409)


def boundary_shown(arn: Any) -> dict[str, str]:
    """Return a permissions boundary as the API shows it."""
    return {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn}
