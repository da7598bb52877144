"""A job may do what its role's policies allow: input, model, log and metrics, for real."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer

from cloche.testing.platform import ACCOUNT, Platform

TRUST = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    },
}
S3, LOGS = "AmazonS3FullAccess", "CloudWatchLogsFullAccess"
SCRIPT = """
import os
print("loss: 0.5")
open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "w").write("42")
"""
LOSS = {"Name": "loss", "Regex": "loss: (.*)"}
METRICS = {"AlgorithmSpecification": {"MetricDefinitions": [LOSS]}}


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def role(platform: Platform, name: str, *policies: str, deny: dict[str, str] | None = None) -> str:
    """Make a role of AWS's policies, less what is denied: actions, and on what."""
    iam = platform.client("iam", as_="admin")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    for policy in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    if deny:
        statements = [
            {"Effect": "Deny", "Action": action, "Resource": resource}
            for action, resource in deny.items()
        ]
        text = json.dumps({"Version": "2012-10-17", "Statement": statements})
        store = platform.app.store
        record = store.find(arn)
        assert record is not None
        document = {**record.document, "Inline": {"less": text}}
        platform.call(store.update(record, document=document))
    return arn


def train(trainer: Trainer, arn: str) -> dict[str, Any]:
    return trainer.train(SCRIPT, RoleArn=arn, **METRICS)


def metrics(trainer: Trainer, job: dict[str, Any]) -> list[Any]:
    of_job = [{"Name": "TrainingJobName", "Value": job["TrainingJobName"]}]
    found: list[Any] = trainer.cloudwatch.list_metrics(
        Namespace="/aws/sagemaker/TrainingJobs", MetricName="loss", Dimensions=of_job
    )["Metrics"]
    return found


def test_a_role_that_may_not_write_logs_leaves_none(platform: Platform, trainer: Trainer) -> None:
    job = train(trainer, role(platform, "silent", S3))
    assert job["TrainingJobStatus"] == "Completed", job
    assert job["ModelArtifacts"]["S3ModelArtifacts"].startswith(f"s3://{BUCKET}/out/")
    assert trainer.log_if_any(job["TrainingJobName"]) == ""
    assert [each["MetricName"] for each in job["FinalMetricDataList"]] == ["loss"]
    assert metrics(trainer, job) == []  # nor may it put metrics
    more = role(platform, "talking", S3, LOGS, "CloudWatchFullAccess")  # control
    job = train(trainer, more)
    assert "loss: 0.5" in trainer.log(job["TrainingJobName"])
    assert len(metrics(trainer, job)) == 1


@pytest.mark.parametrize(
    ("name", "action", "tail", "reason"),
    [
        (
            *("blind", "s3:GetObject", "in/a.txt"),
            "ClientError: Data download failed:Unable to download object "
            f"s3://{BUCKET}/in/a.txt (AccessDenied: Access Denied)",
        ),
        (
            *("mute", "s3:PutObject", "*"),
            "ClientError: Artifact upload failed:AccessDenied: User: "
            f"arn:aws:sts::{ACCOUNT}:assumed-role/mute/SageMaker is not authorized to perform: "
            f's3:PutObject on resource: "arn:aws:s3:::{BUCKET}/out/NAME/output/model.tar.gz" '
            "with an explicit deny in an identity-based policy",
        ),
    ],
)
def test_what_a_role_may_not_do_fails_its_job(
    platform: Platform, trainer: Trainer, name: str, action: str, tail: str, reason: str
) -> None:
    arn = role(platform, name, S3, LOGS, deny={action: f"arn:aws:s3:::{BUCKET}/{tail}"})
    job = train(trainer, arn)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == reason.replace("NAME", job["TrainingJobName"])
    # Control: the same job of the same role, from now on without the Deny.
    store = platform.app.store
    record = store.find(arn)
    assert record is not None
    platform.call(store.update(record, document={**record.document, "Inline": {}}))
    assert train(trainer, arn)["TrainingJobStatus"] == "Completed"


def test_input_that_the_role_may_not_list_is_refused(platform: Platform, trainer: Trainer) -> None:
    arn = role(platform, "listless", LOGS)
    with pytest.raises(ClientError) as refused:
        trainer.start(SCRIPT, RoleArn=arn)
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert f'that the role "{arn}" has "s3:ListBucket" permissions' in error["Message"]
    platform.client("iam", as_="admin").attach_role_policy(
        RoleName="listless", PolicyArn=f"arn:aws:iam::aws:policy/{S3}"
    )
    trainer.sagemaker.stop_training_job(TrainingJobName=trainer.start(SCRIPT, RoleArn=arn))
