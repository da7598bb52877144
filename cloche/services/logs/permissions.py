"""What CloudWatch Logs asks of IAM.

A group's resource ends in `:log-stream:`, with no stream, in every action but those on its tags:
policies name it as `…:log-group:NAME:*`.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
"""

from __future__ import annotations

from typing import Any

from cloche.operation import Call
from cloche.permissions import Parameters, arn

GROUP = "log-group:{logGroupName}:log-stream:"
STREAM = "log-group:{logGroupName}:log-stream:{logStreamName}"
ALL_GROUPS = "log-group::log-stream:"


def group_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN of a group that is given by name or, as an identifier, by name or ARN."""
    name = parameters.get("logGroupName") or parameters.get("logGroupIdentifier") or ""
    if name.startswith("arn:"):
        return [f"{name.removesuffix(':*')}:log-stream:"]
    return [arn("logs", call, GROUP.format(logGroupName=name))]


def stream_arns(call: Call[Any], parameters: Parameters) -> list[str]:
    """Return the ARN of a stream of such a group."""
    return [group + parameters["logStreamName"] for group in group_arns(call, parameters)]
