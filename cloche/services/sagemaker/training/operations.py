"""CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob, DeleteTrainingJob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import PassRole, Permission, list_key
from cloche.records.store import AlreadyExists, Conflict
from cloche.services.sagemaker.named_resources import listed
from cloche.services.sagemaker.names import Request, arn, moment
from cloche.services.sagemaker.permissions import (
    KEEP_ALIVE,
    REMOTE_DEBUG,
    creation,
    job_keys,
    on_resource,
)
from cloche.services.sagemaker.tags import checked
from cloche.services.sagemaker.training import submission
from cloche.services.sagemaker.training.attempts import billable_s, check_tags
from cloche.services.sagemaker.training.debugger.rule_run import described
from cloche.services.sagemaker.training.record import TRAINING_JOB, TrainingJob, training_job
from cloche.services.sagemaker.training.request import check_expressions, validated
from cloche.services.sagemaker.training.status import TrainingJobStatus
from cloche.services.sagemaker.training.submission import new_training_job
from cloche.services.sagemaker.training.warm_pools import decide as warm_pools

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

# Members of CreateTrainingJob that DescribeTrainingJob gives back as they were sent.
ECHOED = (
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "VpcConfig",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "TensorBoardOutputConfig",
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "ExperimentConfig",
    "Environment",
    "RemoteDebugConfig",
    "InfraCheckConfig",
)
RESOURCE = "training-job/{TrainingJobName}"
CREATE = (
    *creation(
        "sagemaker:CreateTrainingJob",
        RESOURCE,
        list_key(
            "sagemaker:InstanceTypes",
            "ResourceConfig.InstanceType",
            "ResourceConfig.InstanceGroups.InstanceType",
        ),
        REMOTE_DEBUG,
        KEEP_ALIVE,
        *job_keys(""),
    ),
    PassRole("RoleArn"),
)


@operation(permissions=CREATE)
async def create_training_job(
    call: Call[SageMaker],
    *,
    TrainingJobName: str,
    RoleArn: str,
    OutputDataConfig: Request,
    AlgorithmSpecification: Request | None = None,
    ResourceConfig: Request | None = None,
    HyperParameters: Mapping[str, str] | None = None,
    InputDataConfig: Sequence[Request] = (),
    StoppingCondition: Request | None = None,
    Tags: Sequence[Mapping[str, str]] = (),
    Environment: Mapping[str, str] | None = None,
    VpcConfig: Request | None = None,
    EnableNetworkIsolation: bool = False,
    EnableInterContainerTrafficEncryption: bool = False,
    EnableManagedSpotTraining: bool = False,
    CheckpointConfig: Request | None = None,
    RetryStrategy: Request | None = None,
    DebugHookConfig: Request | None = None,
    DebugRuleConfigurations: Sequence[Request] = (),
    ProfilerConfig: Request | None = None,
    ProfilerRuleConfigurations: Sequence[Request] = (),
    TensorBoardOutputConfig: Request | None = None,
    ExperimentConfig: Request | None = None,
    RemoteDebugConfig: Request | None = None,
    InfraCheckConfig: Request | None = None,
    SessionChainingConfig: Request | None = None,
) -> dict[str, str]:
    """Record the desired state of a training job; its loop runs it."""
    given: dict[str, Any] = {
        "HyperParameters": dict(HyperParameters or {}),
        "AlgorithmSpecification": AlgorithmSpecification,
        "RoleArn": RoleArn,
        "InputDataConfig": list(InputDataConfig),
        "OutputDataConfig": OutputDataConfig,
        "ResourceConfig": ResourceConfig,
        "StoppingCondition": StoppingCondition,
        "Environment": Environment,
        "VpcConfig": VpcConfig,
        "EnableNetworkIsolation": EnableNetworkIsolation,
        "EnableInterContainerTrafficEncryption": EnableInterContainerTrafficEncryption,
        "EnableManagedSpotTraining": EnableManagedSpotTraining,
        "CheckpointConfig": CheckpointConfig,
        "RetryStrategy": RetryStrategy,
        "DebugHookConfig": DebugHookConfig,
        "DebugRuleConfigurations": DebugRuleConfigurations,
        "ProfilerConfig": ProfilerConfig,
        "ProfilerRuleConfigurations": ProfilerRuleConfigurations,
        "TensorBoardOutputConfig": TensorBoardOutputConfig,
        "ExperimentConfig": ExperimentConfig,
        "RemoteDebugConfig": RemoteDebugConfig,
        "InfraCheckConfig": InfraCheckConfig,
        "SessionChainingConfig": SessionChainingConfig,
    }
    request = validated(given, call.service, call.account, call.region)
    await check_expressions(request["AlgorithmSpecification"])
    checked(Tags)
    check_tags(Tags)
    await insert(call, TrainingJobName, request, Tags)
    return {"TrainingJobArn": arn(call.account, call.region, TRAINING_JOB, TrainingJobName)}


async def insert(
    call: Call[SageMaker], name: str, request: Request, tags: Sequence[Mapping[str, str]]
) -> None:
    """Add the record of a new job, which the loop then finds."""
    resource = new_training_job((call.account, call.region), name, request, tags, call.now)
    try:
        await call.store.insert(resource)
    except AlreadyExists as error:
        raise AwsError(
            "ResourceInUse",
            "Training job names must be unique within an AWS account and region, and a training "
            f"job with this name already exists ({resource.arn})",
        ) from error


@operation(permissions=[on_resource("sagemaker:DescribeTrainingJob", RESOURCE)])
def describe_training_job(call: Call[SageMaker], *, TrainingJobName: str) -> dict[str, Any]:
    """Return what was asked for and how far it is."""
    job = find(call, TrainingJobName)
    progress, request = job.progress, job.request
    answer: dict[str, Any] = {
        "TrainingJobName": job.resource.name,
        "TrainingJobArn": job.resource.arn,
        "ModelArtifacts": {"S3ModelArtifacts": job.model_uri},
        "TrainingJobStatus": job.status.value,
        "SecondaryStatus": job.secondary.value,
        "CreationTime": job.resource.created,
        "LastModifiedTime": job.resource.modified,
        "SecondaryStatusTransitions": [
            present(
                Status=t.status.value,
                StartTime=moment(t.start_ms),
                EndTime=moment(t.end_ms),
                StatusMessage=t.message,
            )
            for t in progress.transitions
        ],
        "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP"}
        | dict(request["OutputDataConfig"]),
        "ProfilingStatus": "Enabled" if profiled(request) else "Disabled",
    }
    answer |= {name: request[name] for name in ECHOED if name in request} | described(job)
    answer |= present(
        TuningJobArn=job.resource.desired.get("TuningJobArn"),
        TrainingStartTime=moment(progress.started_ms),
        TrainingEndTime=moment(progress.ended_ms),
        WarmPoolStatus=warm_pools.described(job),
        FailureReason=progress.failure,
        FinalMetricDataList=[
            {"MetricName": name, "Value": metric.value, "Timestamp": moment(metric.at_ms)}
            for name, metric in progress.metrics.items()
        ]
        or None,
    )
    if progress.started_ms is not None and progress.ended_ms is not None:
        seconds = max(1, round((progress.ended_ms - progress.started_ms) / 1000))
        answer |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": billable_s(job)}
    return answer


def profiled(request: Request) -> bool:
    """Return whether the profiler is on, as the client asked."""
    config = request.get("ProfilerConfig")
    return config is not None and not config.get("DisableProfiler", False)


@operation(permissions=[Permission("sagemaker:ListTrainingJobs")], on=executors.RECORDS)
def list_training_jobs(
    call: Call[SageMaker],
    *,
    NextToken: str | None = None,
    MaxResults: int = 10,
    CreationTimeAfter: datetime | None = None,
    CreationTimeBefore: datetime | None = None,
    LastModifiedTimeAfter: datetime | None = None,
    LastModifiedTimeBefore: datetime | None = None,
    NameContains: str | None = None,
    StatusEquals: str | None = None,
    SortBy: str = "CreationTime",
    SortOrder: str = "Ascending",
    WarmPoolStatusEquals: str | None = None,
) -> dict[str, Any]:
    """Return a page of summaries."""
    pool = None if WarmPoolStatusEquals is None else (("pool", "status"), WarmPoolStatusEquals)
    return listed(
        call,
        TRAINING_JOB,
        lambda resource: summary(training_job(resource)),
        "TrainingJobSummaries",
        name_contains=NameContains,
        created=(CreationTimeAfter, CreationTimeBefore),
        modified=(LastModifiedTimeAfter, LastModifiedTimeBefore),
        status=StatusEquals,
        document_has=pool,
        sort_by=SortBy,
        order=SortOrder,
        limit=MaxResults,
        after=NextToken,
    )


@operation(permissions=[on_resource("sagemaker:StopTrainingJob", RESOURCE)])
async def stop_training_job(call: Call[SageMaker], *, TrainingJobName: str) -> None:
    """Record that the job shall stop; its loop ends the processes and keeps the artifacts."""
    job = find(call, TrainingJobName)
    if job.status is not TrainingJobStatus.IN_PROGRESS:
        raise AwsError(
            "ValidationException",
            f"The request was rejected because the training job is in status {job.status}.",
        )
    await submission.stop_training_job(call.store, job.resource, call.now)


@operation(permissions=[on_resource("sagemaker:DeleteTrainingJob", RESOURCE)])
async def delete_training_job(call: Call[SageMaker], *, TrainingJobName: str) -> None:
    """Remove the record of a job that has ended; what it put to S3 stays."""
    while True:
        job = find(call, TrainingJobName)
        if job.status in (TrainingJobStatus.IN_PROGRESS, TrainingJobStatus.STOPPING):
            raise AwsError(
                "ResourceInUse",
                f"The request was rejected because the training job is in status {job.status}.",
            )
        if warm_pools.available(job):
            raise AwsError(
                "ResourceInUse",
                "The request was rejected because the training job retains a warm pool in status "
                "Available. Wait for its end, or end it by UpdateTrainingJob with "
                f"ResourceConfig.{warm_pools.KEEP_ALIVE} 0.",
            )
        try:
            await call.store.delete(job.resource)
        except Conflict:
            continue
        return


def find(call: Call[SageMaker], name: str) -> TrainingJob:
    """Return the caller's job of this name."""
    resource = call.store.get(TRAINING_JOB, call.account, call.region, name)
    if resource is None:
        raise AwsError("ValidationException", "Requested resource not found.")
    return training_job(resource)


def summary(job: TrainingJob) -> dict[str, Any]:
    """Return a job as lists show it."""
    return present(
        TrainingJobName=job.resource.name,
        TrainingJobArn=job.resource.arn,
        CreationTime=job.resource.created,
        TrainingEndTime=moment(job.progress.ended_ms),
        LastModifiedTime=job.resource.modified,
        TrainingJobStatus=job.status.value,
        SecondaryStatus=job.secondary.value,
        WarmPoolStatus=warm_pools.described(job),
    )


def present(**members: Any) -> dict[str, Any]:
    """Return the members that have a value."""
    return {name: value for name, value in members.items() if value is not None}
