"""Events as CloudTrail's event history shows them: management events, in CloudTrail's record.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloche.core.arn import parse_arn
from cloche.core.clock import from_ms
from cloche.events import Event

VERSION = "1.11"
# What is done with what a resource holds: data events, which the event history has not.
# https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-data-events-with-cloudtrail.html
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html
DATA: Mapping[str, frozenset[str]] = {
    "s3": frozenset(
        {
            "AbortMultipartUpload",
            "CompleteMultipartUpload",
            "CopyObject",
            "CreateMultipartUpload",
            "DeleteObject",
            "DeleteObjectTagging",
            "DeleteObjects",
            "GetObject",
            "GetObjectAcl",
            "GetObjectAttributes",
            "GetObjectTagging",
            "HeadBucket",
            "HeadObject",
            "ListMultipartUploads",
            "ListObjectVersions",
            "ListObjects",
            "ListObjectsV2",
            "ListParts",
            "PutObject",
            "PutObjectTagging",
            "UploadPart",
            "UploadPartCopy",
        }
    ),
    "cloudwatch": frozenset(
        {"GetMetricData", "GetMetricStatistics", "ListMetrics", "PutMetricData"}
    ),
    "logs": frozenset({"FilterLogEvents", "GetLogEvents", "PutLogEvents"}),
    "sagemaker": frozenset({"BatchGetMetrics", "BatchPutMetrics"}),
}
WHOLLY_DATA = ("sagemaker-runtime", "lambda-runtime")
SOURCES = {"cloudwatch": "monitoring", "sagemaker-runtime": "sagemaker"}
READING = ("Describe", "Get", "List", "Lookup", "Search", "Head", "Simulate", "Filter")
TYPES = {"root": "Root", "user": "IAMUser", "assumed-role": "AssumedRole"}
# CloudFormation's names of resource types, by service and what an ARN's resource begins with.
RESOURCES: Mapping[tuple[str, str], str] = {
    ("iam", "role"): "AWS::IAM::Role",
    ("iam", "user"): "AWS::IAM::User",
    ("iam", "group"): "AWS::IAM::Group",
    ("iam", "policy"): "AWS::IAM::Policy",
    ("iam", "instance-profile"): "AWS::IAM::InstanceProfile",
    ("s3", ""): "AWS::S3::Bucket",
    ("logs", "log-group"): "AWS::Logs::LogGroup",
    ("cloudwatch", "alarm"): "AWS::CloudWatch::Alarm",
    ("lambda", "function"): "AWS::Lambda::Function",
    ("sagemaker", "endpoint"): "AWS::SageMaker::Endpoint",
    ("sagemaker", "endpoint-config"): "AWS::SageMaker::EndpointConfig",
    ("sagemaker", "model"): "AWS::SageMaker::Model",
    ("sagemaker", "notebook-instance"): "AWS::SageMaker::NotebookInstance",
    ("sagemaker", "training-job"): "AWS::SageMaker::TrainingJob",
    ("sagemaker", "hyper-parameter-tuning-job"): "AWS::SageMaker::HyperParameterTuningJob",
}


def is_management(event: Event) -> bool:
    """Tell whether an event is in the event history: no data event, and an API's call."""
    if event.source is None or event.service in WHOLLY_DATA:
        return False
    return event.operation not in DATA.get(event.service, ())


def is_read_only(event: Event) -> bool:
    """Tell whether the operation only reads."""
    return event.operation.startswith(READING)


def source_of(event: Event) -> str:
    """Return the service's name as CloudTrail has it: `monitoring.amazonaws.com`."""
    return f"{SOURCES.get(event.service, event.service)}.amazonaws.com"


def user_name(event: Event) -> str:
    """Return the user, the session's name, or `root`."""
    return "root" if event.kind == "root" else event.principal.rpartition("/")[2]


def resources(event: Event) -> list[dict[str, str]]:
    """Return the resources that permission was asked for, each once."""
    found: dict[str, dict[str, str]] = {}
    for each in event.asked:
        try:
            arn = parse_arn(each.resource)
        except ValueError:
            continue
        kind = "" if arn.service == "s3" else arn.resource.replace(":", "/").partition("/")[0]
        shown = {"ResourceName": each.resource}
        if (arn.service, kind) in RESOURCES:
            shown["ResourceType"] = RESOURCES[arn.service, kind]
        found[each.resource] = shown
    return list(found.values())


def shown(event: Event) -> dict[str, Any]:
    """Return an event as LookupEvents answers it."""
    answer: dict[str, Any] = {
        "EventId": event.id,
        "EventName": event.operation,
        "ReadOnly": str(is_read_only(event)).lower(),
        "EventTime": from_ms(event.time_ms),
        "EventSource": source_of(event),
        "Username": user_name(event),
        "Resources": resources(event),
        "CloudTrailEvent": json.dumps(record(event)),
    }
    if event.key is not None:
        answer["AccessKeyId"] = event.key
    return answer


def record(event: Event) -> dict[str, Any]:
    """Return CloudTrail's record of an event. Parameters of requests are not kept."""
    made: dict[str, Any] = {
        "eventVersion": VERSION,
        "userIdentity": identity(event),
        "eventTime": f"{from_ms(event.time_ms):%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": source_of(event),
        "eventName": event.operation,
        "awsRegion": event.region,
        "sourceIPAddress": event.source,
        "userAgent": event.agent,
        "requestParameters": None,
        "responseElements": None,
        "requestID": event.id,
        "eventID": event.id,
        "readOnly": is_read_only(event),
        "resources": [{"ARN": each["ResourceName"]} for each in resources(event)],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": event.account,
        "eventCategory": "Management",
    }
    if event.code is not None:
        made |= {"errorCode": event.code, "errorMessage": event.message}
    return made


def identity(event: Event) -> dict[str, Any]:
    """Return CloudTrail's userIdentity element.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
    """
    made: dict[str, Any] = {
        "type": TYPES.get(event.kind, "AWSService"),
        "principalId": event.user_id,
        "arn": event.principal,
        "accountId": event.account,
    }
    if event.key is not None:
        made["accessKeyId"] = event.key
    if event.kind == "user":
        made["userName"] = user_name(event)
    if event.role is not None:
        issuer = {
            "type": "Role",
            "principalId": event.user_id.partition(":")[0],
            "arn": event.role,
            "accountId": event.account,
            "userName": event.role.rpartition("/")[2],
        }
        made["sessionContext"] = {"sessionIssuer": issuer}
    return made
