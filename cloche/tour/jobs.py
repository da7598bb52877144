"""Training jobs: followed by their log until they end, and what they left in the bucket."""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from cloche.tour.errors import TourError
from cloche.tour.facts import Epoch, Trained

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
LOOK_S = 1.0
INVOKING = "Invoking script with the following command"  # the toolkit's last line but the command
METRICS: list[dict[str, Any]] = [
    {"Name": "epoch", "Regex": r"Epoch ([0-9]+)/[0-9]+: Training Loss"},
    {"Name": "Training Loss", "Regex": r"Training Loss: ([0-9.]+)"},
    {"Name": "Training Accuracy", "Regex": r"Training Accuracy: ([0-9.]+)"},
    {"Name": "Validation Loss", "Regex": r"Validation Loss: ([0-9.]+)"},
    {"Name": "Validation Accuracy", "Regex": r"Validation Accuracy: ([0-9.]+)"},
    {"Name": "Testing Loss", "Regex": r"Testing Loss: ([0-9.]+)"},
    {"Name": "Testing Accuracy", "Regex": r"Testing Accuracy: ([0-9.]+)"},
]


@dataclass(slots=True)
class Tail:
    """The log of a training job, read as it grows."""

    logs: Any  # boto3's client
    job: str
    tokens: dict[str, str] = field(default_factory=dict)  # of each stream, where to go on

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (host, line) of all that is new."""
        for stream in self.streams():
            host = stream.removeprefix(f"{self.job}/").rsplit("-", 1)[0]
            while True:
                at = {"nextToken": self.tokens[stream]} if stream in self.tokens else {}
                page = self.logs.get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **at
                )
                for event in page["events"]:
                    yield host, event["message"]
                before = self.tokens.get(stream)
                self.tokens[stream] = page["nextForwardToken"]
                if page["nextForwardToken"] == before or not page["events"]:
                    break

    def streams(self) -> list[str]:
        """Return the names of the job's streams, one a host; none before it has said a word."""
        try:
            found = self.logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
            )
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [stream["logStreamName"] for stream in found["logStreams"]]


def follow(client: Any, logs: Any, job: str, console: Console) -> dict[str, Any]:
    """Print what a job's script says until it has ended; return the job's description.

    The many lines with which SageMaker's toolkit tells the environment first are left out.
    client, logs: boto3's, for SageMaker and CloudWatch Logs. Raises TourError unless it Completed.
    The SDK's own `wait` would do; it looks at the job's status only twice a minute.
    """
    tail, begun = Tail(logs, job), set[str]()
    while True:
        description: dict[str, Any] = client.describe_training_job(TrainingJobName=job)
        for host, line in tail.lines():
            if host in begun and line.strip():
                text = f"   {host}  {line}"
                console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
            elif line.startswith(INVOKING):
                begun.add(host)
        if description["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            break
        time.sleep(LOOK_S)
    if description["TrainingJobStatus"] != "Completed":
        reason = description.get("FailureReason", "no reason is given")
        raise TourError(f"{job} is {description['TrainingJobStatus']}: {reason}")
    return description


def trained(s3: Any, description: dict[str, Any]) -> Trained:
    """Return a model, from what its job's description tells and the script left in its output."""
    artifact = description["ModelArtifacts"]["S3ModelArtifacts"]
    output = artifact.removesuffix("model.tar.gz") + "output.tar.gz"
    history = json.loads(file_in(s3, output, "history.json"))
    phases = description["SecondaryStatusTransitions"]
    training = next(phase for phase in phases if phase["Status"] == "Training")
    return Trained(
        job=description["TrainingJobName"],
        instances=description["ResourceConfig"]["InstanceCount"],
        seconds=(training["EndTime"] - training["StartTime"]).total_seconds(),
        backbone=history["backbone"],
        epochs=[
            Epoch(
                number=epoch["epoch"],
                train_loss=epoch["train_loss"],
                train_accuracy=epoch["train_accuracy"],
                valid_loss=epoch["valid_loss"],
                valid_accuracy=epoch["valid_accuracy"],
            )
            for epoch in history["epochs"]
        ],
        test_loss=history["test"]["loss"],
        test_accuracy=history["test"]["accuracy"],
        artifact=artifact,
    )


def file_in(s3: Any, archive: str, name: str) -> bytes:
    """Return one file of a tar archive in S3, given as s3://BUCKET/KEY."""
    where = urlsplit(archive)
    body = s3.get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))["Body"]
    with tarfile.open(fileobj=io.BytesIO(body.read())) as tar:
        member = next((m for m in tar if Path(m.name).name == name), None)
        content = tar.extractfile(member) if member is not None else None
        if content is None:
            raise TourError(f"{archive} has no file {name}")
        return content.read()
