"""Roles that belong to AWS's services: made with the policy that AWS gives them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cloche.core.errors import AwsError
from cloche.core.ids import request_id
from cloche.operation import Call, operation
from cloche.permissions import Parameters, Permission, key
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.store import Resource
from cloche.services.iam import service_linked
from cloche.services.iam.entities import find_role, modified_meanwhile, no_such
from cloche.services.iam.identity import REGION, Identity
from cloche.services.iam.operations.roles import described
from cloche.services.iam.permissions import on_role
from cloche.services.iam.service_linked import PATH, SERVICES

TASK = "role-deletion"  # the kind of the records of finished deletions
KEPT = timedelta(days=1)


def linked_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN that a service's role gets."""
    service = parameters["AWSServiceName"]
    name = role_name(parameters)
    return [f"arn:aws:iam::{call.account}:role{PATH}{service}/{name}"]


def task_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN of the role that a deletion was of."""
    named = parameters["DeletionTaskId"].removeprefix("task/").rpartition("/")[0]
    return [f"arn:aws:iam::{call.account}:role/{named}"]


def role_name(parameters: Mapping[str, Any]) -> str:
    """Return the name of a service's role, with the suffix that is asked for."""
    linked = SERVICES.get(parameters["AWSServiceName"])
    name = linked.role if linked is not None else "*"
    suffix = parameters.get("CustomSuffix")
    return f"{name}_{suffix}" if suffix else name


@operation(
    permissions=[
        Permission(
            "iam:CreateServiceLinkedRole",
            linked_arns,
            keys=(key("iam:AWSServiceName", "AWSServiceName"),),
        )
    ]
)
async def create_service_linked_role(
    call: Call[Identity],
    *,
    AWSServiceName: str,
    Description: str | None = None,
    CustomSuffix: str | None = None,
) -> dict[str, Any]:
    """Make a service's role, with the policy that AWS gives it."""
    linked = SERVICES.get(AWSServiceName)
    if linked is None:
        message = f"Cloche has no service-linked role of {AWSServiceName}; it has those of "
        raise AwsError("InvalidInput", message + ", ".join(sorted(SERVICES)))
    if CustomSuffix is not None and not linked.suffix:
        message = f"Custom suffix is not allowed for {AWSServiceName}"
        raise AwsError("InvalidInput", message)
    name = role_name({"AWSServiceName": AWSServiceName, "CustomSuffix": CustomSuffix})
    try:
        role = await call.service.create_role(
            call.account,
            name,
            service_linked.trust(AWSServiceName),
            path=f"{PATH}{AWSServiceName}/",
            description=Description,
            attached=(linked.policy_arn,),
            now=call.now,
        )
    except AlreadyExists as error:
        message = (
            f"Service role name {name} has been taken in this account, please try a "
            "different suffix."
        )
        raise AwsError("InvalidInput", message) from error
    shown = described(role)
    shown.pop("MaxSessionDuration")
    return {"Role": shown}


@operation(permissions=[on_role("iam:DeleteServiceLinkedRole")])
async def delete_service_linked_role(call: Call[Identity], *, RoleName: str) -> dict[str, Any]:
    """Remove a service's role, and return what names the deletion, which is over then."""
    role = find_role(call, RoleName)
    if not service_linked.is_linked(role.document.path):
        raise no_such(f"The role with name {RoleName} cannot be found.")
    try:
        await call.service.delete_role(role)
    except Conflict as error:
        raise modified_meanwhile() from error
    for old in call.store.each(TASK):
        if old.account == call.account and call.now - old.created > KEPT:
            await call.store.delete(old)
    name = f"task{role.document.path}{role.name}/{request_id()}"
    await call.store.insert(
        Resource(
            account=call.account,
            region=REGION,
            kind=TASK,
            name=name,
            arn=f"{TASK}/{call.account}/{name}",
            created=call.now,
            modified=call.now,
        )
    )
    return {"DeletionTaskId": name}


@operation(permissions=[Permission("iam:GetServiceLinkedRoleDeletionStatus", task_arns)])
def get_service_linked_role_deletion_status(
    call: Call[Identity], *, DeletionTaskId: str
) -> dict[str, Any]:
    """Return how a deletion went: it was over when it was named."""
    if call.store.get(TASK, call.account, REGION, DeletionTaskId) is None:
        raise no_such(f"Deletion task {DeletionTaskId} cannot be found.")
    return {"Status": "SUCCEEDED"}
