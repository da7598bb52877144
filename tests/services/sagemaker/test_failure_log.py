"""What the server's log says of what failed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from training_client import Trainer

from cloche.records.store import Resource
from cloche.services.sagemaker.failure_log import LONGEST, failed, one_line
from cloche.testing.platform import Platform


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def test_a_failed_job_is_in_the_servers_log(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cloche.sagemaker"):
        name = trainer.start("raise ValueError('no such thing')")
        reason = trainer.ended(name)["FailureReason"]
    assert f"training job {name} failed: {' '.join(reason.split())}" in caplog.messages


def test_what_user_code_wrote_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    now = datetime.now(UTC)
    one = Resource(
        account="1", region="r", kind="endpoint", name="e", arn="a", created=now, modified=now
    )
    failed(one, "no\n2026-11-27 ERROR cloche: \x1b[2Jforged\u202e")
    assert caplog.messages == ["endpoint e failed: no 2026-11-27 ERROR cloche: ?[2Jforged?"]
    assert len(one_line("x" * 10**6)) == LONGEST + 1
