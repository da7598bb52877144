"""One row that something damaged: it alone can't be had, the rest goes on, after a start too."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import IMAGE

from cloche.testing.platform import Platform, start

WITHIN_S = 30.0
NOT_JSON, NOT_ITS_TYPE = "{", '{"stream_s": "7"}'


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def damage(database: Path, name: str, column: str, text: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        changed = connection.execute(
            f"UPDATE resource SET {column} = ? WHERE name = ?", (text, name)
        )
    assert changed.rowcount == 1
    connection.close()


def create(platform: Platform, name: str) -> None:
    platform.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn=platform.role_arn,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://nobody-made-it/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )


def listed(sagemaker: Any, **wanted: Any) -> list[str]:
    answer = sagemaker.list_training_jobs(SortBy="Name", SortOrder="Ascending", **wanted)
    return [each["TrainingJobName"] for each in answer["TrainingJobSummaries"]]


def refused(call: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ClientError) as error:
        call()
    told: dict[str, Any] = error.value.response
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 500
    return dict(told["Error"])


@pytest.mark.parametrize("text", [NOT_JSON, NOT_ITS_TYPE])
def test_a_damaged_job_harms_no_other(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path / "home") as platform:
        create(platform, "damaged")
        until(lambda: ended(platform, "damaged"))
        # As if it had not ended: its loop has to look at it.
        connection = sqlite3.connect(platform.home.database)
        with connection:
            connection.execute("UPDATE resource SET status = 'InProgress' WHERE name = 'damaged'")
        connection.close()
    damage(tmp_path / "home/cloche.db", "damaged", "document", text)
    with start(tmp_path / "home") as platform:
        sagemaker = platform.client("sagemaker")
        create(platform, "whole")
        until(lambda: ended(platform, "whole"))
        assert listed(sagemaker) == ["whole"]
        assert listed(sagemaker, WarmPoolStatusEquals="Available") == []
        for call in (sagemaker.describe_training_job, sagemaker.stop_training_job):
            told = refused(lambda call=call: call(TrainingJobName="damaged"))  # type: ignore[misc]
            assert told["Code"] == "InternalFailure"
            assert "BadRecord" not in told["Message"]
            assert "Traceback" not in told["Message"]
        failing = platform.app.reconciler.failures()
        assert list(failing) == ["training-job"]
        assert "training-job/damaged" in failing["training-job"]
        assert any("damaged: step failed, again in" in each for each in caplog.messages)
        kept = platform.app.store.find(
            sagemaker.describe_training_job(TrainingJobName="whole")["TrainingJobArn"]
        )
        assert kept is not None
        damaged = platform.app.store.find(kept.arn.replace("whole", "damaged"))
        assert damaged is not None
        # Somebody mends it, and it goes on.
        platform.call(platform.app.store.update(damaged, status="Failed", document=kept.document))
        until(lambda: platform.app.reconciler.failures() == {})
        assert listed(sagemaker) == ["damaged", "whole"]


def ended(platform: Platform, name: str) -> bool:
    told = platform.client("sagemaker").describe_training_job(TrainingJobName=name)
    return bool(told["TrainingJobStatus"] == "Failed")


def test_roles_and_log_streams_that_are_damaged_stop_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path / "home") as platform:
        iam, logs = platform.client("iam", as_="root"), platform.client("logs", as_="root")
        for name in ("damaged", "whole"):
            iam.create_role(RoleName=f"{name}-role", AssumeRolePolicyDocument=TRUST)
        logs.create_log_group(logGroupName="g")
        for name in ("damaged-stream", "whole-stream"):
            logs.create_log_stream(logGroupName="g", logStreamName=name)
        now = [{"timestamp": int(time.time() * 1000), "message": "m"}]
        logs.put_log_events(logGroupName="g", logStreamName="whole-stream", logEvents=now)
    damage(tmp_path / "home/cloche.db", "damaged-role", "document", NOT_JSON)
    damage(tmp_path / "home/cloche.db", "g:damaged-stream", "document", NOT_JSON)
    caplog.set_level(logging.ERROR)
    with start(tmp_path / "home") as platform:
        iam, logs = platform.client("iam", as_="root"), platform.client("logs", as_="root")
        names = [each["RoleName"] for each in iam.list_roles()["Roles"]]
        assert "whole-role" in names and "damaged-role" not in names
        refused(lambda: iam.get_role(RoleName="damaged-role"))
        streams = logs.describe_log_streams(logGroupName="g")["logStreams"]
        assert [each["logStreamName"] for each in streams] == ["damaged-stream", "whole-stream"]
        events = logs.filter_log_events(logGroupName="g")["events"]
        assert [each["message"] for each in events] == ["m"]
        refused(lambda: logs.get_log_events(logGroupName="g", logStreamName="damaged-stream"))
        assert any("a record can't be read" in each for each in caplog.messages)


def test_what_can_t_be_read_is_written_as_it_was(tmp_path: Path) -> None:
    with start(tmp_path / "home") as platform:
        create(platform, "job")
        until(lambda: ended(platform, "job"))
    damage(tmp_path / "home/cloche.db", "job", "desired", "[1")
    with start(tmp_path / "home") as platform:
        store = platform.app.store
        (row,) = store.each("training-job")
        platform.call(store.update(row, status="Stopped"))
        assert store.each("training-job") == [
            replace(
                row,
                status="Stopped",
                version=row.version + 1,
                modified=store.each("training-job")[0].modified,
            )
        ]
        connection = sqlite3.connect(platform.home.database)
        assert connection.execute("SELECT desired FROM resource WHERE name = 'job'").fetchone() == (
            "[1",
        )
        connection.close()


TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
    '"Principal": {"Service": "sagemaker.amazonaws.com"}}]}'
)
