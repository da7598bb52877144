"""Create-, Describe-, List-, Stop- and DeleteHyperParameterTuningJob, and a job's training jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.core.numbers import natural
from cloche.core.typed import encode
from cloche.operation import Call, operation
from cloche.permissions import PassRole, Permission, list_key
from cloche.records.store import AlreadyExists, Conflict, Resource, Store
from cloche.services.sagemaker.named_resources import listed
from cloche.services.sagemaker.names import Request, arn, desired, moment
from cloche.services.sagemaker.paging import DESCENDING
from cloche.services.sagemaker.permissions import creation, job_keys, on_resource
from cloche.services.sagemaker.tags import checked
from cloche.services.sagemaker.training.attempts import check_tags
from cloche.services.sagemaker.training.operations import present
from cloche.services.sagemaker.training.request import check_expressions
from cloche.services.sagemaker.tuning.autotune import autotuned
from cloche.services.sagemaker.tuning.decide import not_improving
from cloche.services.sagemaker.tuning.record import (
    TUNING_JOB,
    UNSETTLED_TUNING,
    SearchProgress,
    TuningJob,
    TuningJobStatus,
    tuning_job,
)
from cloche.services.sagemaker.tuning.request import (
    checked_config,
    checked_definition,
    invalid,
    missing,
    parents,
)
from cloche.services.sagemaker.tuning.situation import situation
from cloche.services.sagemaker.tuning.trials import (
    ObservedTrial,
    best,
    cost,
    look,
    objective_counters,
    status_counters,
    summary,
)

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

RESOURCE = "hyper-parameter-tuning-job/{HyperParameterTuningJobName}"
IDENTICAL = "IdenticalDataAndAlgorithm"
DEFINITIONS = ("TrainingJobDefinition.", "TrainingJobDefinitions.")
INSTANCES = (
    "ResourceConfig.InstanceType",
    "ResourceConfig.InstanceGroups.InstanceType",
    "HyperParameterTuningResourceConfig.InstanceType",
    "HyperParameterTuningResourceConfig.InstanceConfigs.InstanceType",
)
CREATE = (
    *creation(
        "sagemaker:CreateHyperParameterTuningJob",
        RESOURCE,
        list_key(
            "sagemaker:InstanceTypes",
            *(definition + place for definition in DEFINITIONS for place in INSTANCES),
        ),
        *job_keys(*DEFINITIONS),
    ),
    PassRole(*(f"{definition}RoleArn" for definition in DEFINITIONS)),
)


@operation(permissions=CREATE)
async def create_hyper_parameter_tuning_job(
    call: Call[SageMaker],
    *,
    HyperParameterTuningJobName: str,
    HyperParameterTuningJobConfig: Request,
    TrainingJobDefinition: Request | None = None,
    TrainingJobDefinitions: Sequence[Request] = (),
    WarmStartConfig: Request | None = None,
    Tags: Sequence[Mapping[str, str]] = (),
    Autotune: Request | None = None,
) -> dict[str, str]:
    """Record the desired state of a tuning job; its loop starts the training jobs."""
    sent = definitions_sent(TrainingJobDefinition, TrainingJobDefinitions)
    sagemaker, place = call.service, (call.account, call.region)
    given = autotuned(HyperParameterTuningJobConfig) if Autotune else HyperParameterTuningJobConfig
    config = checked_config(given, sent, bool(TrainingJobDefinitions), bool(Autotune))
    definitions = [checked_definition(each, config, sagemaker, *place) for each in sent]
    await check_expressions(*[each["AlgorithmSpecification"] for each in definitions])
    parents(WarmStartConfig, definitions, config, sagemaker, place)
    checked(Tags)
    check_tags(Tags)
    request: dict[str, Any] = {"HyperParameterTuningJobConfig": config}
    if TrainingJobDefinitions:
        request["TrainingJobDefinitions"] = definitions
    else:
        request["TrainingJobDefinition"] = definitions[0]
    request |= present(WarmStartConfig=WarmStartConfig, Autotune=Autotune)
    name = HyperParameterTuningJobName
    resource = Resource(
        account=call.account,
        region=call.region,
        kind=TUNING_JOB,
        name=name,
        arn=arn(call.account, call.region, TUNING_JOB, name),
        status=TuningJobStatus.IN_PROGRESS,
        created=call.now,
        modified=call.now,
        desired=desired(request, Tags),
        document=encode(SearchProgress()),
    )
    try:
        await call.store.insert(resource)
    except AlreadyExists as error:
        raise AwsError(
            "ResourceInUse",
            f"A hyperparameter tuning job with the name, {name}, already exists. "
            "Choose a different name.",
        ) from error
    return {"HyperParameterTuningJobArn": resource.arn}


def definitions_sent(one: Request | None, several: Sequence[Request]) -> Sequence[Request]:
    """Return the definitions; an AwsError unless exactly one of the two members was sent."""
    if bool(one) == bool(several):
        raise invalid(
            "Specify either TrainingJobDefinition or TrainingJobDefinitions, and not both."
        )
    if one:
        return [one]
    names = [each.get("DefinitionName", "") for each in several]
    if "" in names or len(set(names)) < len(names):
        raise invalid(
            f"Each of TrainingJobDefinitions needs a DefinitionName of its own; sent: {names}."
        )
    return several


@operation(
    permissions=[on_resource("sagemaker:DescribeHyperParameterTuningJob", RESOURCE)],
    on=executors.RECORDS,
)
def describe_hyper_parameter_tuning_job(
    call: Call[SageMaker], *, HyperParameterTuningJobName: str
) -> dict[str, Any]:
    """Return what was asked for, how far the search is and what it has found."""
    job = find(call, HyperParameterTuningJobName)
    seen = created(job, call.store)
    found = best(job, seen)
    r = job.resource
    answer: dict[str, Any] = {
        "HyperParameterTuningJobName": r.name,
        "HyperParameterTuningJobArn": r.arn,
        "HyperParameterTuningJobConfig": job.config,
        "HyperParameterTuningJobStatus": job.status.value,
        "CreationTime": r.created,
        "LastModifiedTime": r.modified,
        "TrainingJobStatusCounters": status_counters(seen),
        "ObjectiveStatusCounters": objective_counters(seen),
        "TuningJobCompletionDetails": present(
            NumberOfTrainingJobsObjectiveNotImproving=not_improving(situation(job, seen, call.now)),
            ConvergenceDetectedTime=moment(job.search.converged_ms),
        ),
        "ConsumedResources": {"RuntimeInSeconds": runtime_s(job, call.now)},
    }
    for name in ("TrainingJobDefinition", "TrainingJobDefinitions", "WarmStartConfig", "Autotune"):
        if name in job.request:
            answer[name] = job.request[name]
    return answer | present(
        HyperParameterTuningEndTime=moment(job.search.ended_ms),
        BestTrainingJob=None if found is None else summary(job, found),
        OverallBestTrainingJob=overall_best(call, job, found),
        FailureReason=job.search.reason,
    )


def runtime_s(job: TuningJob, now: datetime) -> int:
    """Return how long a tuning job has run, in seconds."""
    end = moment(job.search.ended_ms) or now
    return max(0, round((end - job.resource.created).total_seconds()))


def overall_best(
    call: Call[SageMaker], job: TuningJob, found: ObservedTrial | None
) -> Request | None:
    """Return the best of this job and of the parents of a warm start with identical data."""
    warm_start = job.request.get("WarmStartConfig")
    if warm_start is None or warm_start["WarmStartType"] != IDENTICAL:
        return None
    candidates = [] if found is None else [(cost(job, found), job, found)]
    for named in warm_start["ParentHyperParameterTuningJobs"]:
        name = named["HyperParameterTuningJobName"]
        resource = call.store.get(TUNING_JOB, call.account, call.region, name)
        if resource is None:
            continue  # deleted since
        parent = tuning_job(resource)
        theirs = best(parent, created(parent, call.store))
        if theirs is not None:
            candidates.append((cost(parent, theirs), parent, theirs))
    if not candidates:
        return None
    _, owner, trial = min(candidates, key=lambda each: each[0])
    return summary(owner, trial, of_job=True)


@operation(permissions=[Permission("sagemaker:ListHyperParameterTuningJobs")], on=executors.RECORDS)
def list_hyper_parameter_tuning_jobs(
    call: Call[SageMaker],
    *,
    NextToken: str | None = None,
    MaxResults: int = 10,
    SortBy: str = "Name",
    SortOrder: str = "Ascending",
    NameContains: str | None = None,
    CreationTimeAfter: datetime | None = None,
    CreationTimeBefore: datetime | None = None,
    LastModifiedTimeAfter: datetime | None = None,
    LastModifiedTimeBefore: datetime | None = None,
    StatusEquals: str | None = None,
) -> dict[str, Any]:
    """Return a page of summaries."""
    return listed(
        call,
        TUNING_JOB,
        lambda resource: in_list(call, resource),
        "HyperParameterTuningJobSummaries",
        name_contains=NameContains,
        created=(CreationTimeAfter, CreationTimeBefore),
        modified=(LastModifiedTimeAfter, LastModifiedTimeBefore),
        status=StatusEquals,
        sort_by=SortBy,
        order=SortOrder,
        limit=MaxResults,
        after=NextToken,
    )


def in_list(call: Call[SageMaker], resource: Resource) -> dict[str, Any]:
    """Return a tuning job as lists show it."""
    job = tuning_job(resource)
    seen = created(job, call.store)
    return present(
        HyperParameterTuningJobName=resource.name,
        HyperParameterTuningJobArn=resource.arn,
        HyperParameterTuningJobStatus=job.status.value,
        Strategy=job.config["Strategy"],
        CreationTime=resource.created,
        HyperParameterTuningEndTime=moment(job.search.ended_ms),
        LastModifiedTime=resource.modified,
        TrainingJobStatusCounters=status_counters(seen),
        ObjectiveStatusCounters=objective_counters(seen),
        ResourceLimits=job.config["ResourceLimits"],
    )


@operation(
    permissions=[on_resource("sagemaker:ListTrainingJobsForHyperParameterTuningJob", RESOURCE)],
    on=executors.RECORDS,
)
def list_training_jobs_for_hyper_parameter_tuning_job(
    call: Call[SageMaker],
    *,
    HyperParameterTuningJobName: str,
    NextToken: str | None = None,
    MaxResults: int = 10,
    StatusEquals: str | None = None,
    SortBy: str = "Name",
    SortOrder: str = "Ascending",
) -> dict[str, Any]:
    """Return a page of a tuning job's training jobs; the token is the place in the order.

    Sorted by FinalObjectiveMetricValue, only those that have a value are listed.
    """
    job = find(call, HyperParameterTuningJobName)
    seen = [
        each
        for each in created(job, call.store)
        if StatusEquals is None or each.outcome.status == StatusEquals
    ]
    if SortBy == "FinalObjectiveMetricValue":
        seen = [each for each in seen if each.outcome.objective is not None]
        seen.sort(key=lambda each: each.outcome.objective or 0.0)
    elif SortBy == "Status":
        seen.sort(key=lambda each: each.outcome.status)
    if SortOrder == DESCENDING:
        seen.reverse()
    try:
        start = natural(NextToken or "0", len(seen))
    except ValueError as error:
        raise invalid("Invalid NextToken.") from error
    end = start + MaxResults
    return present(
        TrainingJobSummaries=[summary(job, each) for each in seen[start:end]],
        NextToken=str(end) if end < len(seen) else None,
    )


@operation(permissions=[on_resource("sagemaker:StopHyperParameterTuningJob", RESOURCE)])
async def stop_hyper_parameter_tuning_job(
    call: Call[SageMaker], *, HyperParameterTuningJobName: str
) -> None:
    """Record that the search shall stop; its loop stops the training jobs that run."""
    while True:
        job = find(call, HyperParameterTuningJobName)
        if job.status is not TuningJobStatus.IN_PROGRESS:
            raise invalid(
                "The request was rejected because the hyperparameter tuning job is in status "
                f"{job.status}."
            )
        try:
            await call.store.update(job.resource, status=TuningJobStatus.STOPPING)
        except Conflict:
            continue
        return


@operation(permissions=[on_resource("sagemaker:DeleteHyperParameterTuningJob", RESOURCE)])
async def delete_hyper_parameter_tuning_job(
    call: Call[SageMaker], *, HyperParameterTuningJobName: str
) -> None:
    """Remove the record of a tuning job that has ended; its training jobs stay."""
    while True:
        job = find(call, HyperParameterTuningJobName)
        if job.status in UNSETTLED_TUNING:
            raise AwsError(
                "ResourceInUse",
                "The request was rejected because the hyperparameter tuning job is in status "
                f"{job.status}.",
            )
        try:
            await call.store.delete(job.resource)
        except Conflict:
            continue
        return


def created(job: TuningJob, store: Store) -> list[ObservedTrial]:
    """Return the trials whose training jobs exist: one that is only written down is not told."""
    return [each for each in look(job, store) if not each.missing]


def find(call: Call[SageMaker], name: str) -> TuningJob:
    """Return the caller's tuning job of this name."""
    resource = call.store.get(TUNING_JOB, call.account, call.region, name)
    if resource is None:
        raise missing(name)
    return tuning_job(resource)
