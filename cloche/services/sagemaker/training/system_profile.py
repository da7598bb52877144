"""What a job's hosts used, as files in S3 that smdebug's SystemMetricsReader reads.

`<S3OutputPath>/<job>/profiler-output/system/incremental/<YYYYMMDDHH>/<minute>.<host>.json` (smdebug
1.0.34, profiler/utils.py), a line an event. Only the mean of a host's CPUs is measured: it stands
there as cpu0, which the charts of smdebug's notebook tools look for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.records.store import StorageFull
from cloche.services.sagemaker.records import TrainingJob
from cloche.services.sagemaker.training.channels import split_uri
from cloche.services.sagemaker.training.rule_run import samples
from cloche.services.sagemaker.training.rules import Sample

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker


async def put(job: TrainingJob, sagemaker: SageMaker) -> None:
    """Put the profile of a job that has ended to S3, if it has a profiler; twice does no harm.

    A bucket that is gone is no error: the job's model matters more.
    """
    config = job.request.get("ProfilerConfig") or {}
    if config.get("DisableProfiler") or not config.get("S3OutputPath"):
        return
    bucket, prefix = split_uri(f"{config['S3OutputPath'].rstrip('/')}/{job.resource.name}")
    for host in job.hosts:
        found = await asyncio.to_thread(samples, job, host, sagemaker)
        for name, data in files(host, found).items():
            key = f"{prefix}/profiler-output/system/incremental/{name}"
            try:
                await sagemaker.s3.put_bytes(bucket, key, data, "application/json")
            except StorageFull:
                raise
            except AwsError:
                return


def files(host: str, found: Sequence[Sample]) -> Mapping[str, bytes]:
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


def events(host: str, sample: Sample) -> Iterator[Mapping[str, object]]:
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
