"""What CloudWatch knows of a training job's instance."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cloche.tour.facts import Use

NAMESPACE = "/aws/sagemaker/TrainingJobs"
PERIODS_S = (1, 5, 10, 30, 60)  # CloudWatch's own; the finest that gives at most POINTS
POINTS = 120


def cpu_use(cloudwatch: Any, job: dict[str, Any]) -> Use:
    """Return the CPU use of the job's first host: percent of one CPU, summed over all."""
    return metric(cloudwatch, job, "CPUUtilization")


def memory_use(cloudwatch: Any, job: dict[str, Any]) -> Use:
    """Return the memory use of the job's first host: percent of the instance's."""
    return metric(cloudwatch, job, "MemoryUtilization")


def metric(cloudwatch: Any, job: dict[str, Any], name: str) -> Use:
    """Return an instance metric (`Host` is JOB/algo-1) from the job's creation to its end.

    https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """
    created: datetime = job["CreationTime"]
    ended: datetime = job.get("TrainingEndTime") or datetime.now(UTC)
    length_s = (ended - created).total_seconds()
    period_s = next((p for p in PERIODS_S if length_s / p <= POINTS), 300)
    query = {
        "Id": "use",
        "MetricStat": {
            "Metric": {
                "Namespace": NAMESPACE,
                "MetricName": name,
                "Dimensions": [{"Name": "Host", "Value": f"{job['TrainingJobName']}/algo-1"}],
            },
            "Period": period_s,
            "Stat": "Average",
        },
    }
    result = cloudwatch.get_metric_data(
        MetricDataQueries=[query],
        StartTime=created - timedelta(seconds=period_s),
        EndTime=ended + timedelta(seconds=period_s),
        ScanBy="TimestampAscending",
    )["MetricDataResults"][0]
    return Use(
        tuple((at - created).total_seconds() for at in result["Timestamps"]),
        tuple(result["Values"]),
    )
