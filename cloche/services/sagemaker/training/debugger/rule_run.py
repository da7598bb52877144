"""Rules at work: what was measured is gathered when a job has ended, judged, and put to S3, as is
the profile that it makes up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche import patterns
from cloche.core import executors
from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.records.metrics import MetricKey
from cloche.records.store import StorageFull
from cloche.services.sagemaker.names import Request, moment
from cloche.services.sagemaker.s3_objects import split_uri
from cloche.services.sagemaker.training.debugger import rule_gang, system_profile
from cloche.services.sagemaker.training.debugger.rule_gang import Judging
from cloche.services.sagemaker.training.debugger.rule_report import files
from cloche.services.sagemaker.training.debugger.rules import (
    KINDS,
    RULES,
    TENSOR_RULES,
    HostSample,
    Measured,
    Verdict,
    configured,
    folder,
    invoked,
    judge,
    off,
    supported,
    unsupported_rule,
)
from cloche.services.sagemaker.training.hosts import share
from cloche.services.sagemaker.training.log_metrics import BATCH
from cloche.services.sagemaker.training.record import Rule, TrainingJob
from cloche.services.sagemaker.training.status import ENDED
from cloche.services.sagemaker.training.watch import NAMESPACE, Found, find_metrics, searches

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

FINE_S = 3 * 3600  # CloudWatch keeps single seconds that long
MOST_VALUES = 100_000  # of a metric, that rules look at
UNJUDGED = Verdict("Error", "")
TYPES = {".html": "text/html", ".json": "application/json"}


async def run(
    job: TrainingJob,
    sagemaker: SageMaker,
    logs: Mapping[str, Path],
    sync: Callable[..., Awaitable[None]],
) -> Mapping[str, Rule] | Judging:
    """Judge a job's rules, put their reports and the profile to S3; return what rules say, by name.

    Twice does no harm: the same keys. Judging: it has to be asked again. sync: puts what is left of
    the tensors to S3.
    """
    rules = [
        (kind, rule)
        for kind, rule in configured(job.request)
        if supported(rule) and not off(job.request, kind)
    ]
    profiled = system_profile.wanted(job.request)
    if not rules and not profiled:
        return {}
    by_tensors = wanting_tensors(job)
    judged = await rule_gang.look(job, by_tensors, sagemaker, sync) if by_tensors else {}
    if isinstance(judged, Judging):
        return judged
    hosts = await executors.RECORDS.run(
        lambda: {host: samples(job, host, sagemaker) for host in job.hosts}
    )
    s3 = sagemaker.s3_as(job.request["RoleArn"])
    if profiled:
        await system_profile.put(job, hosts, s3)
    if not rules:
        return {}
    measured = Measured(hosts, await patterns.run(metrics, job, sagemaker, logs))
    said: dict[str, Rule] = {}
    for kind, rule in rules:
        verdict = judged.get(key(kind, rule), UNJUDGED)
        if verdict.status == "Error" and invoked(rule) in RULES:  # by metrics, then
            verdict = await patterns.run(judge, rule, measured)
        bucket, prefix = split_uri(folder(job, kind, rule))
        try:
            for name, data in files(job, rule, verdict, measured).items():
                media = TYPES[Path(name).suffix]
                await s3.put_bytes(bucket, f"{prefix}/{name}", data, media)
        except StorageFull:
            raise
        except AwsError as error:
            verdict = Verdict("Error", f"The report was not written: {error.message}")
        said[key(kind, rule)] = Rule(
            status=verdict.status,
            details=verdict.details,
            at_ms=to_ms(sagemaker.store.clock.now()),
        )
    return said


async def end(job: TrainingJob, sagemaker: SageMaker) -> None:
    """Let go of what judges the job's rules."""
    if wanting_tensors(job):
        await executors.ENDINGS.run(sagemaker.engine.forget, rule_gang.name_of(job))


def wanting_tensors(job: TrainingJob) -> Mapping[str, Request]:
    """Return the rules that are judged by tensors, by name."""
    return {
        key(kind, rule): rule
        for kind, rule in configured(job.request)
        if invoked(rule) in TENSOR_RULES
    }


def metrics(
    job: TrainingJob, sagemaker: SageMaker, logs: Mapping[str, Path]
) -> Mapping[str, Sequence[float]]:
    """Return the values of a job's metrics, in order: the first `MOST_VALUES` of each.

    Blocks: it is run by `cloche.patterns.run`. What took too long while the job ran is left out.
    """
    algorithm = job.request["AlgorithmSpecification"]
    wanted = searches(algorithm, job.progress.unsearched)
    if wanted is None:
        return {}
    names = [each["Name"] for each in algorithm["MetricDefinitions"]]
    found: dict[str, list[Found]] = {}
    try:
        for log in logs.values():
            end = 0
            while True:
                records, end = sagemaker.logs.read_lines(log, end, whole=True)
                if not records:
                    break
                for start in range(0, len(records), BATCH):
                    for one in find_metrics(records[start : start + BATCH], names, wanted):
                        values = found.setdefault(one.name, [])
                        if len(values) < MOST_VALUES:
                            values.append(one)
    finally:
        wanted.close()
    return {
        name: [one.value for one in sorted(values, key=lambda each: each.at_ms)]
        for name, values in found.items()
    }


def samples(job: TrainingJob, host: str, sagemaker: SageMaker) -> Sequence[HostSample]:
    """Return what CloudWatch has of a host, in percent of what the host may use."""
    r, now = job.resource, sagemaker.store.clock.now()
    start = from_ms(job.progress.started_ms or to_ms(now))
    period_s = 1 if (now - start).total_seconds() < FINE_S else 60
    cpus = share(job, host, sagemaker.engine)

    def means(name: str) -> dict[int, float]:
        dimensions = (("Host", f"{r.name}/{host}"),)
        points = sagemaker.cloudwatch.points(
            r.account,
            r.region,
            MetricKey(NAMESPACE, name, dimensions),
            start=start,
            end=now,
            period_s=period_s,
            now=now,
        )
        return {point.at_s: point.total / point.count for point in points}

    cpu, memory = means("CPUUtilization"), means("MemoryUtilization")
    return [
        HostSample(at_s, None if at_s not in cpu else cpu[at_s] / cpus, memory.get(at_s))
        for at_s in sorted(cpu.keys() | memory.keys())
    ]


def described(job: TrainingJob) -> dict[str, list[dict[str, Any]]]:
    """Return `DebugRuleEvaluationStatuses` and `ProfilerRuleEvaluationStatuses`, if any."""
    answers: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        rules = [rule for of, rule in configured(job.request) if of == kind]
        if rules:
            name = kind.replace("Configurations", "EvaluationStatuses")
            answers[name] = [one_described(job, kind, rule) for rule in rules]
    return answers


def key(kind: str, rule: Request) -> str:
    """Return the name by which a job's record keeps what a rule said."""
    return f"{kind}/{rule['RuleConfigurationName']}"


def one_described(job: TrainingJob, kind: str, rule: Request) -> dict[str, Any]:
    """Return the status of one rule: as it was judged, or why it is not yet."""
    said = job.progress.rules.get(key(kind, rule))
    if said is not None:
        status, details, at = said.status, said.details, moment(said.at_ms)
    elif off(job.request, kind):
        status, details, at = "Stopped", "The profiler is disabled.", job.resource.modified
    elif not supported(rule):
        verdict, at = unsupported_rule(rule), job.resource.created
        status, details = verdict.status, verdict.details
    elif job.status in ENDED:
        status, details = "Stopped", "The training job ended before it ran."
        at = job.resource.modified
    else:
        status, details, at = "InProgress", "", job.resource.created
    answer = {
        "RuleConfigurationName": rule["RuleConfigurationName"],
        "RuleEvaluationStatus": status,
        "LastModifiedTime": at,
    }
    return answer | ({"StatusDetails": details} if details else {})
