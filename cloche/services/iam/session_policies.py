"""What a session may be given: policies that narrow it, and how much it may carry in all."""

import zlib
from collections.abc import Mapping, Sequence

from cloche.core.errors import AwsError
from cloche.services.iam import policies, policy_grammar
from cloche.services.iam.attached import EntityPolicies

PLAIN = 2048  # characters of the policies together
# Bytes of what is packed. AWS says how full it is in percent, and not how it packs: this is zlib.
PACKED = 1024
MANAGED_POLICIES = 10


def check_session_policies(
    held: EntityPolicies, account: str, texts: Sequence[str], arns: Sequence[str]
) -> None:
    """Raise unless these may be session policies: their grammar is right, managed ones exist."""
    for text in texts:
        policy_grammar.check(text, policy_grammar.IDENTITY)
    if len(arns) > MANAGED_POLICIES:
        message = (
            "1 validation error detected: Value at 'policyArns' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MANAGED_POLICIES}"
        )
        raise AwsError("ValidationError", message)
    for arn in arns:
        if arn not in policies.MANAGED and held.managed(account, arn) is None:
            raise AwsError("ValidationError", f"{arn} is invalid")


def packed_size(texts: Sequence[str], arns: Sequence[str], tags: Mapping[str, str]) -> int | None:
    """Return how full a session is, in percent; None: nothing is packed. Refuses what is too much.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
    """
    if not texts and not arns and not tags:
        return None
    labels = "\0".join(f"{name}\0{value}" for name, value in tags.items())
    of_tags = percent(len(zlib.compress(labels.encode(), 9)) if tags else 0, PACKED)
    if of_tags > 100:
        message = f"Packed size of session tags consumes {of_tags}% of allotted space."
        raise AwsError("PackedPolicyTooLarge", message)
    said = "\0".join((*texts, *arns))
    size = percent(len(said), PLAIN)
    if size <= 100:
        packed = zlib.compress(f"{said}\0{labels}".encode(), 9)
        size = max(size, percent(len(packed), PACKED))
    if size > 100:
        message = f"Packed policy consumes {size}% of allotted space, please use smaller policy."
        raise AwsError("PackedPolicyTooLarge", message)
    return size


def percent(part: int, whole: int) -> int:
    """Return a part in percent, rounded up."""
    return -(-100 * part // whole)
