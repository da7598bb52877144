"""What a job's status says of an error of the platform: that it waits, tries again, or fails."""

from __future__ import annotations

from cloche.core.authorization import Refused
from cloche.core.errors import AwsError
from cloche.engine import DiskFull, EngineError
from cloche.records.errors import StorageFull, storage_full
from cloche.services.sagemaker.failure_log import failed
from cloche.services.sagemaker.s3_objects import DownloadError, printed
from cloche.services.sagemaker.software.images import NotBuilt
from cloche.services.sagemaker.training.record import Progress, TrainingJob
from cloche.services.sagemaker.training.status import TrainingJobStatus

FULL = "Waiting for disk space: the disk that holds Cloche's home folder is full"
AGAIN = "Retrying after an internal error: "


def full(error: Exception) -> bool:
    """Return whether it is space on the disk that is missing."""
    return isinstance(error, StorageFull | DiskFull) or storage_full(error)


def message(error: Exception) -> str:
    """Return what a status says while a step is tried again."""
    return FULL if full(error) else f"{AGAIN}{told(error)}"


def passing(text: str) -> bool:
    """Return whether a status says such a thing."""
    return text.startswith((FULL, AGAIN))


def reason(error: Exception) -> str | None:
    """Return why a job that can't be prepared fails; None: it is no fault of the job."""
    if isinstance(error, NotBuilt):
        return f"ClientError: {error}"
    if isinstance(error, Refused) and error.question.action == "s3:GetObject":
        uri = printed(f"s3://{error.question.resource.removeprefix('arn:aws:s3:::')}")
        error = DownloadError(f"Unable to download object {uri} (AccessDenied: Access Denied)")
    if isinstance(error, DownloadError | AwsError):
        return f"ClientError: Data download failed:{error}"
    if isinstance(error, EngineError):
        return f"InternalServerError: The hosts did not start: {error}"
    return None


def tell(job: TrainingJob, status: TrainingJobStatus | None, progress: Progress) -> None:
    """Say in the server's log that a job has failed, when its record says it."""
    if status is TrainingJobStatus.FAILED:
        failed(job.resource, progress.failure)


def told(error: Exception) -> str:
    """Return an error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:512]
