"""What endpoints report to CloudWatch: invocations and latencies, CPU and memory of replicas.

The router counts; here the counts are written, some at a time: an invocation costs no write.
Names, units and dimensions are AWS's ("Monitor Amazon SageMaker AI with Amazon CloudWatch").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.engine import Usage
from cloche.replicas.pool import Meter
from cloche.services.cloudwatch import Datum
from cloche.services.sagemaker.serving.record import Deployment, Endpoint, Replica
from cloche.services.sagemaker.serving.replica_gang import HOST
from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

INVOCATIONS = "AWS/SageMaker"
INSTANCES = "/aws/sagemaker/Endpoints"
COUNTS_PAUSE_S = 1.0  # between writes of counts
# Between readings of CPU and memory: as AWS's, once a minute; at first more often.
FIRST_USAGE_PAUSE_S, USAGE_PAUSE_S = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a replica had used at a time (event loop seconds)."""

    at: float
    cpu_s: float


class EndpointMetrics:
    """Writes an endpoint's metrics when they are due."""

    def __init__(self, sagemaker: SageMaker) -> None:
        self.sagemaker = sagemaker
        self.counted: dict[str, float] = {}  # endpoint ARN -> when counts were last written
        self.measured: dict[str, float] = {}
        self.readings: dict[str, Reading] = {}  # by replica id

    async def report(self, endpoint: Endpoint, *, last: bool = False) -> None:
        """Write what is due; `last`: all there is, and forget the endpoint."""
        arn, now = endpoint.resource.arn, asyncio.get_running_loop().time()
        at = self.sagemaker.store.clock.now()
        if last or now - self.counted.get(arn, float("-inf")) >= COUNTS_PAUSE_S:
            self.counted[arn] = now
            await self._put(endpoint, INVOCATIONS, self._counts(endpoint, at))
        serving = endpoint.state.serving
        age_s = (at - endpoint.resource.created).total_seconds()
        pause_s = min(USAGE_PAUSE_S, max(FIRST_USAGE_PAUSE_S, age_s / 3))
        due = now - self.measured.get(arn, float("-inf")) >= pause_s
        if serving is not None and due and not last:
            self.measured[arn] = now
            used = await executors.ENGINE.run(self._usage, serving.replicas)
            await self._put(endpoint, INSTANCES, self._use(endpoint, serving, used, now, at))
        if last:
            self.counted.pop(arn, None)
            self.measured.pop(arn, None)

    def pause_s(self, endpoint: Endpoint) -> float:
        """Return seconds until something is to be written; infinity when there is nothing."""
        arn, now = endpoint.resource.arn, asyncio.get_running_loop().time()
        if not self.sagemaker.router.counted(arn):
            return float("inf")
        return max(0.0, self.counted.get(arn, now) + COUNTS_PAUSE_S - now)

    async def _put(self, endpoint: Endpoint, namespace: str, data: Sequence[Datum]) -> None:
        if data:
            resource = endpoint.resource
            await self.sagemaker.cloudwatch.put(
                resource.account, resource.region, namespace, list(data)
            )

    def _counts(self, endpoint: Endpoint, at: datetime) -> list[Datum]:
        meters = self.sagemaker.router.readings(endpoint.resource.arn)
        data: list[Datum] = []
        for variant, meter in meters.items():
            data += counts(dimensions(endpoint, variant), meter, at)
        return data

    def _usage(self, replicas: Sequence[Replica]) -> Mapping[str, Usage]:
        found: dict[str, Usage] = {}
        for replica in replicas:
            used = self.sagemaker.engine.usage(replica.gang).get(HOST)
            if used is not None:
                found[replica.id] = used
        return found

    def _use(
        self,
        endpoint: Endpoint,
        serving: Deployment,
        used: Mapping[str, Usage],
        now: float,
        at: datetime,
    ) -> list[Datum]:
        """Return CPU (100 is one whole CPU) and memory (of the declared) of each replica."""
        data: list[Datum] = []
        for replica in serving.replicas:
            before, usage = self.readings.pop(replica.id, None), used.get(replica.id)
            if usage is None:
                continue
            self.readings[replica.id] = Reading(now, usage.cpu_s)
            kind = INSTANCE_TYPES[serving.variant(replica.variant).instance_type]
            where = dimensions(endpoint, replica.variant)
            memory = 100 * usage.memory_mib / kind.memory_mib
            data.append(Datum("MemoryUtilization", where, at, memory, "Percent"))
            if before is not None and now > before.at:
                cpu = 100 * max(0.0, usage.cpu_s - before.cpu_s) / (now - before.at)
                data.append(Datum("CPUUtilization", where, at, cpu, "Percent"))
        return data


def dimensions(endpoint: Endpoint, variant: str) -> dict[str, str]:
    """Return the dimensions of an endpoint's metrics."""
    return {"EndpointName": endpoint.resource.name, "VariantName": variant}


def counts(where: Mapping[str, str], meter: Meter, at: datetime) -> list[Datum]:
    """Return what was counted, a datum for each invocation as AWS has them."""
    data = [Datum("Invocations", where, at, 1.0, "Count")] * meter.requests
    answered_4xx = sum(n for status, n in meter.statuses.items() if 400 <= status < 500)
    answered_5xx = sum(n for status, n in meter.statuses.items() if status >= 500)
    for name, errors in (
        ("Invocation4XXErrors", answered_4xx),
        ("Invocation5XXErrors", answered_5xx + meter.overloaded + meter.unanswered),
    ):
        fine = meter.requests - errors
        data += [Datum(name, where, at, 1.0, "Count")] * errors
        data += [Datum(name, where, at, 0.0, "Count")] * fine
    for name, times_s in (("ModelLatency", meter.worked_s), ("OverheadLatency", meter.beside_s)):
        data += [Datum(name, where, at, s * 1e6, "Microseconds") for s in times_s]
    return data
