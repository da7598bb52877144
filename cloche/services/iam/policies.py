"""The AWS managed policies that may be attached: what AWS publishes of each.

`managed/NAME.json` is the default version, `managed/catalogue.json` the dates (both are written by
scripts/managed_policies.py). Older versions are not here.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

PREFIX = "arn:aws:iam::aws:policy/"
FOLDER = Path(__file__).parent / "managed"
SAGEMAKER_FULL_ACCESS = f"{PREFIX}AmazonSageMakerFullAccess"
S3_FULL_ACCESS = f"{PREFIX}AmazonS3FullAccess"
ADMINISTRATOR_ACCESS = f"{PREFIX}AdministratorAccess"


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    """What is known of an AWS managed policy beside its document."""

    arn: str
    created: datetime
    updated: datetime
    default_version: str

    @property
    def id(self) -> str:
        """An id in AWS's form, drawn from the name: AWS's own are published nowhere."""
        digest = hashlib.sha256(self.arn.encode()).digest()
        return "ANPA" + base64.b32encode(digest)[:17].decode()


def catalogue() -> Mapping[str, ManagedPolicy]:
    """Return the policies by their ARNs, in that order."""
    listed: dict[str, dict[str, str]] = json.loads((FOLDER / "catalogue.json").read_text())
    return {
        PREFIX + name: ManagedPolicy(
            PREFIX + name,
            datetime.fromisoformat(facts["CreateDate"]),
            datetime.fromisoformat(facts["UpdateDate"]),
            facts["DefaultVersionId"],
        )
        for name, facts in sorted(listed.items())
    }


MANAGED = catalogue()


def name_of(arn: str) -> str:
    """Return a policy's name: the last part of its ARN."""
    return arn.rsplit("/", 1)[-1]


def path_of(arn: str) -> str:
    """Return a policy's path, `/` or `/service-role/`."""
    folder = arn.partition(":policy/")[2].rpartition("/")[0]
    return f"/{folder}/" if folder else "/"


@cache
def text(arn: str) -> str:
    """Return a managed policy's document as text; KeyError when there is none of that ARN."""
    return (FOLDER / f"{name_of(MANAGED[arn].arn)}.json").read_text()


@cache
def document(arn: str) -> Mapping[str, Any]:
    """Return a managed policy's document; KeyError when there is none of that ARN."""
    found: dict[str, Any] = json.loads(text(arn))
    return found
