"""What tests on the wire have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError


def refused(code: str, text: str | None, status: int, call: Callable[[], Any]) -> Any:
    """Assert that a call fails with this code, text (None: HEAD has none) and status."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    assert answer["Error"]["Code"] == code
    if text is not None:
        assert answer["Error"]["Message"] == text
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    return answer


def body(answer: Any) -> bytes:
    content: bytes = answer["Body"].read()
    return content
