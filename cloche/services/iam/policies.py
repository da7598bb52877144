"""The AWS managed policies that may be attached to a role.

`managed/NAME.json` is what AWS publishes as the default version of a policy.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from cloche.core.errors import AwsError, unsupported

PREFIX = "arn:aws:iam::aws:policy/"
DOCUMENTS = Path(__file__).parent / "managed"
SAGEMAKER_FULL_ACCESS = f"{PREFIX}AmazonSageMakerFullAccess"
S3_FULL_ACCESS = f"{PREFIX}AmazonS3FullAccess"
ADMINISTRATOR_ACCESS = f"{PREFIX}AdministratorAccess"
# Names with their paths, as AWS publishes them (AWS Managed Policy Reference Guide).
MANAGED = frozenset(
    PREFIX + name
    for name in (
        "AdministratorAccess",
        "AmazonEC2ContainerRegistryReadOnly",
        "AmazonEC2FullAccess",
        "AmazonEC2ReadOnlyAccess",
        "AmazonS3FullAccess",
        "AmazonS3ReadOnlyAccess",
        "AmazonSageMakerFullAccess",
        "AmazonSageMakerReadOnly",
        "AWSLambda_FullAccess",
        "AWSLambda_ReadOnlyAccess",
        "CloudWatchFullAccess",
        "CloudWatchLogsFullAccess",
        "CloudWatchLogsReadOnlyAccess",
        "CloudWatchReadOnlyAccess",
        "IAMFullAccess",
        "IAMReadOnlyAccess",
        "PowerUserAccess",
        "ReadOnlyAccess",
        "SecurityAudit",
        "service-role/AWSLambdaBasicExecutionRole",
        "service-role/AWSLambdaRole",
        "job-function/ViewOnlyAccess",
    )
)


def attachable(arn: str) -> str:
    """Return the ARN of a managed policy; NoSuchEntity when there is none of that name."""
    if arn not in MANAGED:
        message = f"Policy {arn} does not exist or is not attachable."
        raise AwsError("NoSuchEntity", message, 404)
    return arn


def name_of(arn: str) -> str:
    """Return a policy's name: the last part of its ARN."""
    return arn.rsplit("/", 1)[-1]


def path_of(arn: str) -> str:
    """Return a policy's path, `/` or `/service-role/`."""
    folder = arn.removeprefix(PREFIX).rpartition("/")[0]
    return f"/{folder}/" if folder else "/"


@cache
def document(arn: str) -> dict[str, Any]:
    """Return a managed policy's document; unsupported names one that Cloche has not."""
    path = DOCUMENTS / f"{name_of(arn)}.json"
    if not path.exists():
        raise unsupported(f"what the policy {name_of(arn)} says: its document is not here")
    found: dict[str, Any] = json.loads(path.read_text())
    return found
