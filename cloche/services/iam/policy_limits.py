"""How large policies may be, and how many may be attached: AWS's quotas. White space is free.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
"""

from collections.abc import Iterable
from typing import Literal

from cloche.core.errors import AwsError

MANAGED, TRUST = 6144, 2048
INLINE = {"role": 10240, "user": 2048, "group": 5120}  # all inline policies of one together
ATTACHED = 10  # managed policies of a role, user or group
VERSIONS = 5
PER = {"role": "PoliciesPerRole", "user": "PoliciesPerUser", "group": "PoliciesPerGroup"}
Holder = Literal["role", "user", "group"]


def size(text: str) -> int:
    """Return how long a policy is without white space."""
    return sum(map(len, text.split()))


def check_managed(text: str) -> None:
    """Raise LimitExceeded when a managed policy is too long."""
    if size(text) > MANAGED:
        raise exceeded("PolicySize", MANAGED)


def check_trust(text: str) -> None:
    """Raise LimitExceeded when a trust policy is too long."""
    if size(text) > TRUST:
        raise exceeded("ACLSizePerRole", TRUST)


def check_inline(holder: Holder, name: str, texts: Iterable[str]) -> None:
    """Raise LimitExceeded when all inline policies of a role, user or group are too long."""
    most = INLINE[holder]
    if sum(map(size, texts)) > most:
        message = f"Maximum policy size of {most} bytes exceeded for {holder} {name}"
        raise AwsError("LimitExceeded", message, 409)


def check_attached(holder: Holder, count: int) -> None:
    """Raise LimitExceeded when a role, user or group would have too many managed policies."""
    if count > ATTACHED:
        raise exceeded(PER[holder], ATTACHED)


def exceeded(quota: str, most: int) -> AwsError:
    """Return the refusal of what a quota forbids."""
    return AwsError("LimitExceeded", f"Cannot exceed quota for {quota}: {most}", 409)
