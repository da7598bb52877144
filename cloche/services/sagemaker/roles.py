"""The role that a job, model or endpoint acts as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.core.authorization import Context, Question
from cloche.core.errors import AwsError
from cloche.core.identity import Principal

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

SERVICE = "sagemaker.amazonaws.com"


def check_role(role_arn: str, sagemaker: SageMaker, account: str) -> None:
    """Raise AWS's error unless SageMaker may assume this role of the account."""
    role = sagemaker.identity.role_by_arn(role_arn)
    itself = Principal(kind="service", account=account, arn=SERVICE, user_id="")
    context = Context({"aws:sourceaccount": account})
    question = Question(itself, "sts:AssumeRole", role_arn, context)
    if role is None or role.record.account != account or not role.trusts(question):
        raise AwsError(
            "ValidationException",
            f"Could not assume role {role_arn}. Please ensure that the role exists and allows "
            f"principal '{SERVICE}' to assume the role.",
        )
