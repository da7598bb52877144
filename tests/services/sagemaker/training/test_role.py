"""What a job reads and writes is done by its role, and by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_world import ACCOUNT, ROLE, World

from cloche.services.sagemaker.training.status import SecondaryStatus as S

CHANNEL = {
    "ChannelName": "training",
    "DataSource": {
        "S3DataSource": {
            "S3DataType": "S3Prefix",
            "S3Uri": "s3://bucket/data/",
            "S3DataDistributionType": "FullyReplicated",
        }
    },
}
JOB: dict[str, Any] = {
    "InputDataConfig": [CHANNEL],
    "CheckpointConfig": {"S3Uri": "s3://bucket/saved", "LocalPath": "/opt/ml/checkpoints"},
}
BUCKET = "arn:aws:s3:::bucket"
LOGS = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:log-stream"


@pytest.fixture
async def world(tmp_path: Path) -> Iterator[World]:  # type: ignore[misc]
    made = World(tmp_path / "home")
    await made.bucket(data__a="a", data__b="b", saved__old="old")
    yield made
    made.close()


async def test_what_a_job_asks_from_its_input_to_its_model(world: World) -> None:
    await world.create(**JOB)
    await world.until(S.TRAINING)
    asked = world.authorizer.questions()
    stream = f"job/algo-1-{world.job().progress.stream_s}"
    assert list(dict.fromkeys((each.action, each.resource) for each in asked)) == [
        ("s3:ListBucket", BUCKET),
        ("s3:GetObject", f"{BUCKET}/data/a"),
        ("s3:GetObject", f"{BUCKET}/data/b"),
        ("s3:GetObject", f"{BUCKET}/code/sourcedir.tar.gz"),
        ("s3:GetObject", f"{BUCKET}/saved/old"),
        ("logs:CreateLogGroup", f"{LOGS}:"),
        ("logs:CreateLogStream", f"{LOGS}:{stream}"),
        ("logs:PutLogEvents", f"{LOGS}:{stream}"),
    ]
    prefixes = {each.context.get("s3:prefix") for each in asked if each.action == "s3:ListBucket"}
    assert prefixes == {"data/", "saved/"}
    assert {each.principal.role_arn for each in asked} == {ROLE}
    ml = next(iter(world.config.home.instances.glob("*/algo-1/ml")))
    (ml / "model").mkdir(exist_ok=True)
    (ml / "model/weights").write_text("42")
    (ml / "checkpoints/new").write_text("new")
    world.engine.end()
    await world.until(S.COMPLETED)
    assert list(dict.fromkeys(world.authorizer.take())) == [
        ("s3:PutObject", f"{BUCKET}/saved/new"),
        ("s3:PutObject", f"{BUCKET}/out/job/output/model.tar.gz"),
    ]


READ = "ClientError: Data download failed:Unable to download object"
LISTED = (
    "ClientError: Data download failed:User: {who} is not authorized to perform: s3:ListBucket on "
    f'resource: "{BUCKET}" because no identity-based policy allows the s3:ListBucket action'
)


@pytest.mark.parametrize(
    ("denied", "reason"),
    [
        (
            ("s3:GetObject", f"{BUCKET}/data/b"),
            f"{READ} s3://bucket/data/b (AccessDenied: Access Denied)",
        ),
        (
            ("s3:GetObject", f"{BUCKET}/code/sourcedir.tar.gz"),
            f"{READ} s3://bucket/code/sourcedir.tar.gz (AccessDenied: Access Denied)",
        ),
        (
            ("s3:GetObject", f"{BUCKET}/saved/old"),
            f"{READ} s3://bucket/saved/old (AccessDenied: Access Denied)",
        ),
        ("s3:ListBucket", LISTED),
    ],
)
async def test_a_role_that_may_not_read_fails_the_job(
    world: World, denied: object, reason: str
) -> None:
    await world.create(**JOB)
    world.authorizer.denied.add(denied)
    job = await world.until(S.FAILED)
    who = world.s3_of_role.actor.principal.arn
    assert job.progress.failure == reason.format(who=who)
    assert world.engine.launched == []


async def test_a_role_that_may_not_write_fails_the_job(world: World) -> None:
    await world.create(**JOB)
    await world.until(S.TRAINING)
    ml = next(iter(world.config.home.instances.glob("*/algo-1/ml")))
    (ml / "model").mkdir(exist_ok=True)
    (ml / "model/weights").write_text("42")
    world.authorizer.denied.add("s3:PutObject")
    world.engine.end()
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        f"ClientError: Artifact upload failed:AccessDenied: User: "
        f"{world.s3_of_role.actor.principal.arn} is not authorized to perform: s3:PutObject on "
        f'resource: "{BUCKET}/out/job/output/model.tar.gz" because no identity-based policy '
        "allows the s3:PutObject action"
    )
