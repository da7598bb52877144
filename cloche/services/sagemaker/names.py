"""What every resource of SageMaker shares: its ARN, its request as sent, its tags.

A resource's `desired` is `{"Request": …, "Tags": {…}}`: what the client sent, and the tags that
hang on it now. Its `document` is what its loop made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloche.core.arn import Arn
from cloche.core.clock import from_ms
from cloche.records.store import Document

Request = Mapping[str, Any]  # parameters as botocore's model gives them


def arn(account: str, region: str, kind: str, name: str) -> str:
    """Return the ARN of a SageMaker resource, its name in lower case as AWS has it."""
    return str(Arn("sagemaker", region, account, f"{kind}/{name.lower()}"))


def desired(request: Request, tags: Sequence[Mapping[str, str]] | None) -> Document:
    """Return a new resource's desired state; SageMaker's create requests have no datetimes."""
    return {"Request": dict(request), "Tags": {tag["Key"]: tag["Value"] for tag in tags or ()}}


def moment(ms: int | None) -> datetime | None:
    """Return a time that may not be known yet."""
    return None if ms is None else from_ms(ms)
