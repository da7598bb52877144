"""The policy of a POST form: what its signer allows, compared with what the form says.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cloche.core.errors import AwsError
from cloche.core.numbers import DIGITS, natural
from cloche.gateway.limits import SHOWN_CHARACTERS

MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", re.ASCII)
LARGEST = 1 << 62
FREE_PREFIX = "x-ignore-"
# What no policy can name: the policy itself, its signature, the file.
FREE = {
    "v4": frozenset(("policy", "file", "x-amz-signature")),
    "v2": frozenset(("policy", "file", "signature", "awsaccesskeyid")),
}
LISTS = frozenset(("content-type",))  # a list, of which each item must begin so


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A field's value must be (or begin with) a text."""

    operator: str  # eq, starts-with
    field: str  # in lower case
    value: str
    shown: str  # as refusals show it

    def holds(self, value: str) -> bool:
        """Return whether a field's value is as it must be."""
        if self.operator == "eq":
            return value == self.value
        items = value.split(",") if self.field in LISTS else [value]
        return all(item.strip().startswith(self.value) for item in items)


@dataclass(frozen=True, slots=True)
class LengthRange:
    """How many bytes the file may have."""

    least: int = 0
    most: int = LARGEST


@dataclass(frozen=True, slots=True)
class Policy:
    """What the signer allows, and until when."""

    expires: datetime
    conditions: tuple[FieldCondition, ...]
    bounds: LengthRange


def load(text: str) -> Policy:
    """Return the policy that a form carries in base64; AwsError InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode(text, validate=True).decode())
    except (ValueError, RecursionError) as error:
        raise invalid("Invalid JSON.") from error
    if not isinstance(document, dict):
        raise invalid("Invalid JSON.")
    if "expiration" not in document:
        raise invalid("Policy missing expiration.")
    if not isinstance(document.get("conditions"), list):
        raise invalid("Policy missing conditions.")
    conditions, bounds = list[FieldCondition](), LengthRange()
    for one in document["conditions"]:
        if isinstance(one, list) and one and str(one[0]).lower() == "content-length-range":
            bounds = narrowed(bounds, one)
        else:
            conditions.append(condition_of(one))
    return Policy(moment(document["expiration"]), tuple(conditions), bounds)


def moment(text: Any) -> datetime:
    """Return when a policy expires."""
    match = MOMENT.fullmatch(text) if isinstance(text, str) else None
    try:
        if match is not None:
            return datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise invalid(f"Invalid 'expiration' value: '{str(text)[:SHOWN_CHARACTERS]}'")


def condition_of(given: Any) -> FieldCondition:
    """Return a condition as a policy has it: `{field: value}` or `[operator, "$field", value]`."""
    if isinstance(given, dict):
        if len(given) != 1:
            raise invalid(
                "Invalid Simple-Condition: Simple-Conditions must have exactly one property "
                "specified."
            )
        ((name, value),) = given.items()
        if not isinstance(value, str):
            raise invalid("Invalid Simple-Condition: value must be a string.")
        operator, field = "eq", f"${name}"
    elif isinstance(given, list) and len(given) == 3 and all(isinstance(x, str) for x in given):
        operator, field, value = given[0].lower(), given[1], given[2]
        if operator not in ("eq", "starts-with") or not field.startswith("$"):
            raise invalid("Invalid Condition.")
    else:
        raise invalid("Invalid Condition.")
    shown = json.dumps([operator, field, value], ensure_ascii=False)
    return FieldCondition(operator, field[1:].lower(), value, shown)


def narrowed(bounds: LengthRange, given: list[Any]) -> LengthRange:
    """Return the bounds with another content-length-range."""
    texts = [str(one) for one in given[1:] if isinstance(one, int | str)]
    if len(given) != 3 or len(texts) != 2 or not all(map(DIGITS.fullmatch, texts)):
        raise invalid("Invalid content-length-range: both ends must be numbers.")
    least, most = (natural(text, LARGEST) for text in texts)
    return replace(bounds, least=max(bounds.least, least), most=min(bounds.most, most))


def check(policy: Policy, fields: Mapping[str, str], version: str, now: datetime) -> None:
    """Raise unless the policy allows the form: its values, and that it has these fields.

    `fields` by names in lower case, with the bucket that the form was sent to.
    """
    if now >= policy.expires:
        raise refused("Policy expired.")
    for condition in policy.conditions:
        if not condition.holds(fields.get(condition.field, "")):
            raise refused(f"Policy Condition failed: {condition.shown}")
    covered = {condition.field for condition in policy.conditions} | FREE[version]
    extra = [name for name in fields if name not in covered and not name.startswith(FREE_PREFIX)]
    if extra:
        raise refused(f"Extra input fields: {', '.join(sorted(extra))}")


def refused(why: str) -> AwsError:
    """Return the refusal of a form that its policy does not allow."""
    return AwsError("AccessDenied", f"Invalid according to Policy: {why}", 403)


def invalid(why: str) -> AwsError:
    """Return the refusal of a policy that is none."""
    return AwsError("InvalidPolicyDocument", f"Invalid Policy: {why}", 400)
