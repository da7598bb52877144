"""What buckets' own policies say, for who answers questions of permission."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from sqlalchemy.engine import Connection

from cloche.core.authorization import PolicyKind, ResourcePolicy
from cloche.records import objects as rows
from cloche.services.s3 import public_access
from cloche.services.s3.policy_document import ARN, Policy, statements_of
from cloche.services.s3.storage import S3

C = TypeVar("C")
Compile = Callable[[str, Mapping[str, Any], PolicyKind], C]
KIND = "policy"  # of setting
KEPT = 10_000  # buckets
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html
MADE_BY = frozenset(("s3:CreateBucket",))


class BucketPolicies(Generic[C]):
    """Compiles each bucket's policy once, with what the authorizer gives, until it is changed."""

    def __init__(self, s3: S3, compile: Compile[C]) -> None:
        self.store, self.compile = s3.store, compile
        self.known: dict[str, ResourcePolicy[C]] = {}
        self.lock, self.changes = threading.Lock(), 0
        s3.on_setting(self.forget)

    def resource_policy(self, arn: str) -> ResourcePolicy[C] | None:
        """Return the policy of the bucket that a resource is, or lies in; None: no such bucket.

        From any thread.
        """
        if not arn.startswith(ARN):
            return None
        bucket = arn.removeprefix(ARN).partition("/")[0]
        found = self.known.get(bucket)
        if found is not None:
            return found
        changes = self.changes
        made = self.read(self.store.read(), bucket)
        with self.lock:
            if made is not None and changes == self.changes:  # else it may be an old one
                if len(self.known) >= KEPT:
                    self.known.clear()
                self.known[bucket] = made
        return made

    def forget(self, bucket: str) -> None:
        """Read a bucket's settings again when they are asked for next: they were changed."""
        with self.lock:
            self.changes += 1
            self.known.pop(bucket, None)

    def read(self, connection: Connection, bucket: str) -> ResourcePolicy[C] | None:
        """Return a bucket's policy, compiled."""
        row = rows.find_bucket(connection, bucket)
        if row is None:
            return None
        document = rows.bucket_setting(connection, bucket, KIND)
        if document is None:
            return ResourcePolicy(row.account, made_by=MADE_BY)
        policy: Policy = json.loads(document)
        block = public_access.configured(connection, bucket) or public_access.NONE
        said = for_others = self._compiled(bucket, policy)
        if block.restrict_public_buckets and public_access.is_public(policy):
            for_others = self._compiled(bucket, without_allows(policy))
        return ResourcePolicy(row.account, said, for_others, MADE_BY)

    def _compiled(self, bucket: str, policy: Policy) -> C:
        return self.compile(f"bucket-policy/{bucket}", policy, "resource-based policy")


def without_allows(policy: Policy) -> Policy:
    """Return a policy that allows nobody anything; each statement keeps its place."""
    nobody: Policy = {"Principal": {"AWS": []}}
    return {
        **policy,
        "Statement": [
            {**each, **nobody} if each["Effect"] == "Allow" else each
            for each in statements_of(policy)
        ],
    }
