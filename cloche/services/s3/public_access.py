"""What is public of a bucket, and what its settings forbid to be.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from cloche.core.typed import Record, encode
from cloche.records import objects as rows
from cloche.services.s3.policy_document import Policy, Statement, listed, statements_of

KIND = "public-access-block"  # of setting
# What limits an Allow to somebody, when it has a fixed value ("The meaning of public").
FIXED_KEYS = frozenset(
    (
        *("aws:principalorgid", "aws:principalorgpaths", "aws:principalarn"),
        *("aws:principalaccount", "aws:principalservicename"),
        *("aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner"),
        *("aws:sourceaccount", "aws:userid", "s3:dataaccesspointaccount"),
    )
)
ACCESS_POINT, ADDRESS = "s3:dataaccesspointarn", "aws:sourceip"
# Operators that hold only where the key is there and has such a value.
FIXING = {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"}
WIDEST = {4: 8, 6: 32}  # prefixes: blocks that are broader are public
PRIVATE = tuple(
    ipaddress.IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)


class PublicAccessBlock(Record, frozen=True, kw_only=True, rename="pascal"):
    """The four settings; those of a new bucket are all on, as on AWS since April 2023."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


NEW = PublicAccessBlock(
    block_public_acls=True,
    ignore_public_acls=True,
    block_public_policy=True,
    restrict_public_buckets=True,
)
NONE = PublicAccessBlock()
DECODER = msgspec.json.Decoder(PublicAccessBlock | None)


def configured(connection: Connection, bucket: str) -> PublicAccessBlock | None:
    """Return a bucket's settings; None where they were deleted."""
    kept = rows.bucket_setting(connection, bucket, KIND)
    return NEW if kept is None else DECODER.decode(kept)


def dump(block: PublicAccessBlock | None) -> str:
    """Return what is kept of settings, or of their having been deleted."""
    return json.dumps(None if block is None else encode(block))


# ---------------------------------------------------------------------- the meaning of public


def is_public(policy: Policy) -> bool:
    """Tell whether S3 takes a policy for public: some Allow is not limited to fixed values."""
    return any(
        statement["Effect"] == "Allow" and not is_limited(statement)
        for statement in statements_of(policy)
    )


def is_limited(statement: Statement) -> bool:
    """Tell whether an Allow is for a fixed principal, or under a condition with a fixed value."""
    principal = statement["Principal"]
    if principal != "*" and "*" not in listed(principal.get("AWS", ())):
        return True
    return any(
        fixes(operator, key, listed(values))
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def fixes(operator: str, key: str, values: list[Any]) -> bool:
    """Tell whether a condition limits an Allow to fixed values."""
    operator, key = operator.removeprefix("ForAnyValue:"), key.lower()
    wanted = [str(value) for value in values]
    if key == ADDRESS:
        return operator == "IpAddress" and not any(is_broad(each) for each in wanted)
    if operator not in FIXING:
        return False
    if key == ACCESS_POINT:
        return all(is_fixed(each.partition(":accesspoint/")[0]) for each in wanted)
    return key in FIXED_KEYS and all(is_fixed(each) for each in wanted)


def is_fixed(value: str) -> bool:
    """Tell whether a value has neither wildcards nor variables."""
    return bool(value) and not any(each in value for each in ("*", "?", "${"))


def is_broad(text: str) -> bool:
    """Tell whether a block of addresses is so broad that S3 takes it for everybody."""
    block = ipaddress.ip_network(text, strict=False)
    if isinstance(block, ipaddress.IPv4Network) and any(block.subnet_of(own) for own in PRIVATE):
        return False
    return block.prefixlen < WIDEST[block.version]
