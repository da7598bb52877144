"""What a job's hosts used, as files in S3 that smdebug's SystemMetricsReader reads.

`<S3OutputPath>/<job>/profiler-output/system/incremental/<YYYYMMDDHH>/<minute>.<host>.json` (smdebug
1.0.34, profiler/utils.py), a line an event. Only the mean of a host's CPUs is measured: it stands
there as cpu0, which the charts of smdebug's notebook tools look for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.records.store import StorageFull
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.s3_objects import split_uri
from cloche.services.sagemaker.training.debugger.rules import HostSample, off
from cloche.services.sagemaker.training.record import TrainingJob

if TYPE_CHECKING:
    from cloche.services.s3 import ActingS3


def wanted(request: Request) -> bool:
    """Return whether a job has a profiler that is on."""
    config = request.get("ProfilerConfig") or {}
    return bool(config.get("S3OutputPath")) and not off(request, "ProfilerRuleConfigurations")


async def put(job: TrainingJob, hosts: Mapping[str, Sequence[HostSample]], s3: ActingS3) -> None:
    """Put the profile of a job that has ended to S3; twice does no harm.

    A bucket that is gone is no error: the job's model matters more.
    """
    path = job.request["ProfilerConfig"]["S3OutputPath"].rstrip("/")
    bucket, prefix = split_uri(f"{path}/{job.resource.name}")
    for host, found in hosts.items():
        for name, data in files(host, found).items():
            key = f"{prefix}/profiler-output/system/incremental/{name}"
            try:
                await s3.put_bytes(bucket, key, data, "application/json")
            except StorageFull:
                raise
            except AwsError:
                return


def files(host: str, found: Sequence[HostSample]) -> Mapping[str, bytes]:
    """Return the files of one host by name: one for each minute."""
    minutes: dict[int, list[str]] = {}
    for sample in found:
        lines = minutes.setdefault(sample.at_s // 60 * 60, [])
        lines += [json.dumps(event) for event in events(host, sample)]
    return {
        f"{datetime.fromtimestamp(minute, UTC):%Y%m%d%H}/{minute}.{host}.json": (
            "".join(f"{line}\n" for line in lines).encode()
        )
        for minute, lines in minutes.items()
    }


def events(host: str, sample: HostSample) -> Iterator[Mapping[str, object]]:
    """Yield what one sample says."""
    for kind, name, dimension, value in (
        ("cpu", "cpu0", "CPUUtilization", sample.cpu),
        ("memory", "MemoryUsedPercent", "Memory", sample.memory),
    ):
        if value is not None:
            yield {
                "Type": kind,
                "Name": name,
                "Dimension": dimension,
                "Value": round(value, 2),
                "NodeId": host,
                "Timestamp": float(sample.at_s),
            }
