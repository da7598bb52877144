"""What a training job needs next. Pure: reads no clock, database or process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloche.engine import EXCEEDED, Seen
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.status import ENDED, SecondaryStatus

LOST = (
    "InternalServerError: We encountered an internal error. The machine or the supervisor of "
    "{hosts} was lost while the job ran, so its result is unknown. Please try again."
)
# What AWS says of a host that took more than it had.
MEMORY = (
    "Please use an instance type with more memory, or reduce the size of job data processed on an "
    "instance. ({detail})"
)
DISK = "ClientError: Artifact upload failed:Insufficient disk space. ({detail})"


@dataclass(frozen=True, slots=True)
class Begin:
    """Go from Starting to Downloading when it is the job's turn, else wait for capacity."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Present the input, then start the hosts, or wait for capacity."""


@dataclass(frozen=True, slots=True)
class Started:
    """The hosts run: write that down."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Read logs and usage, look again later."""


@dataclass(frozen=True, slots=True)
class StopHosts:
    """Ask the hosts that still run to end."""


@dataclass(frozen=True, slots=True)
class End:
    """The hosts have ended (or never ran): write down how the job will end.

    `failed_host`: its log and files tell the reason, after `note`; else `failure` does.
    ran: there is something to upload.
    """

    ending: SecondaryStatus
    failure: str | None = None
    failed_host: str | None = None
    ran: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """Put the artifacts to S3."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Let go of hosts and folders, then write the final status."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The job has ended."""


Plan = Begin | Launch | Started | Watch | StopHosts | End | Upload | Finish | Nothing
S = SecondaryStatus


def decide(job: TrainingJob, seen: Mapping[str, Seen] | None) -> Plan:
    """Return what to do next for a job, given what the engine knows of its hosts."""
    if job.status in ENDED:
        return Nothing()
    if job.progress.ending is not None:
        return Finish() if job.progress.uploaded else Upload()
    if job.secondary is S.STARTING:
        return Begin()
    if seen is None:
        return absent(job)
    if job.secondary in (S.DOWNLOADING, S.PENDING):
        return Started()
    if any(one.state == "running" for one in seen.values()):
        doomed = job.progress.failure is not None  # its input is damaged
        wanted = job.secondary is S.STOPPING or doomed or first_failed(seen) is not None
        return StopHosts() if wanted else Watch()
    return ended(job, seen)


def absent(job: TrainingJob) -> Plan:
    """Return what to do when the engine knows nothing of the job."""
    if job.secondary in (S.DOWNLOADING, S.PENDING):
        return Launch()
    if job.secondary is S.STOPPING:
        return End(stopped(job), ran=False)
    return End(S.FAILED, failure=LOST.format(hosts=", ".join(job.hosts)), ran=False)


def ended(job: TrainingJob, seen: Mapping[str, Seen]) -> End:
    """Return how a job ends whose hosts have all ended."""
    if job.progress.failure is not None:
        return End(S.FAILED, failure=job.progress.failure)
    if any(one.reason == "MaxRuntimeExceeded" for one in seen.values()):
        return End(S.MAX_RUNTIME_EXCEEDED)
    if job.secondary is S.STOPPING:
        return End(stopped(job))
    lost = [host for host, one in seen.items() if one.state == "lost"]
    if lost:
        return End(S.FAILED, failure=LOST.format(hosts=", ".join(lost)))
    failed = first_failed(seen)
    if failed is not None:
        return failure_of(failed, seen[failed])
    by_us = any(one.reason == "Stopped" for one in seen.values())
    return End(S.STOPPED if by_us else S.COMPLETED)


def failure_of(host: str, seen: Seen) -> End:
    """Return how a job ends whose host failed: what it took too much of is said first.

    Where the disk had no more space its artifacts are not packed on it.
    """
    if seen.reason == "DiskFull":
        return End(S.FAILED, failure=DISK.format(detail=seen.detail), ran=False)
    note = MEMORY.format(detail=seen.detail) if seen.reason == "OutOfMemory" else seen.detail
    return End(S.FAILED, failed_host=host, note=note)


def stopped(job: TrainingJob) -> SecondaryStatus:
    """Return how a job ends that was asked to stop."""
    return S.MAX_WAIT_TIME_EXCEEDED if job.progress.overdue else S.STOPPED


def first_failed(seen: Mapping[str, Seen]) -> str | None:
    """Return the host that failed first, of its own; None when none did."""
    failed = [
        (one.ended.timestamp() if one.ended else 0.0, host)
        for host, one in seen.items()
        if one.state == "lost"
        or (one.state == "exited" and one.exit_code and one.reason is None)
        or one.reason in EXCEEDED
    ]
    return min(failed)[1] if failed else None
