"""What is said of an object's encryption: as its request asks, else as its bucket has it.

Nothing is encrypted; what was asked for is kept and reported back, as AWS does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from cloche.core.errors import AwsError
from cloche.records import objects as rows
from cloche.services.s3.errors import invalid_argument, malformed_xml

ENCRYPTION = "encryption"  # the kind of setting
ALGORITHMS = ("AES256", "aws:kms", "aws:kms:dsse")
# What S3 does with every new object of a bucket that nobody configured, since 2023.
NEW_RULE: Mapping[str, object] = {
    "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
    "BucketKeyEnabled": False,
}


def rule_of(connection: Connection, bucket: str) -> Mapping[str, Any]:
    """Return the rule of a bucket's default encryption, as GetBucketEncryption gives it."""
    kept = rows.bucket_setting(connection, bucket, ENCRYPTION)
    found: Mapping[str, Any] = NEW_RULE if kept is None else json.loads(kept)
    return found


def sealed(
    connection: Connection, bucket: str, asked: Mapping[str, str | bool]
) -> dict[str, str | bool]:
    """Return what is kept of, and echoed for, a new object's encryption."""
    if asked:
        return dict(asked)
    rule = rule_of(connection, bucket)
    default = rule["ApplyServerSideEncryptionByDefault"]
    found: dict[str, str | bool] = {"ServerSideEncryption": default["SSEAlgorithm"]}
    if "KMSMasterKeyID" in default:
        found["SSEKMSKeyId"] = default["KMSMasterKeyID"]
    if rule.get("BucketKeyEnabled") and default["SSEAlgorithm"] == "aws:kms":
        found["BucketKeyEnabled"] = True
    return found


def checked_rule(configuration: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the one rule of a PutBucketEncryption as it is kept; AwsError."""
    rules = configuration.get("Rules") or ()
    if len(rules) != 1 or "ApplyServerSideEncryptionByDefault" not in rules[0]:
        raise malformed_xml()
    default = dict(rules[0]["ApplyServerSideEncryptionByDefault"])
    algorithm, key = default.get("SSEAlgorithm"), default.get("KMSMasterKeyID")
    if algorithm not in ALGORITHMS:
        raise malformed_xml()
    if key is not None and algorithm == "AES256":
        text = (
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or "
            "aws:kms:dsse"
        )
        raise invalid_argument(text, "ApplyServerSideEncryptionByDefault", algorithm)
    unknown = rules[0].keys() - {"ApplyServerSideEncryptionByDefault", "BucketKeyEnabled"}
    if unknown:
        raise AwsError(
            "NotImplemented",
            f"Cloche does not support {', '.join(sorted(unknown))} of PutBucketEncryption.",
            501,
        )
    return {
        "ApplyServerSideEncryptionByDefault": default,
        "BucketKeyEnabled": bool(rules[0].get("BucketKeyEnabled", False)),
    }
