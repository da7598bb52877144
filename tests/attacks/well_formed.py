"""For every operation that is served, a request that is right: what mutations start from.

Strings may hold `{n}`, a number of its own for each request, so that what is made twice is new;
the target of everything that may write is `scratch`, of all else a key of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from botocore.serialize import create_serializer
from signed_client import Wire
from training_client import IMAGE
from well_formed_identity import prepare_identity

from cloche.operation import service_model
from cloche.services.s3.requests import owner_of
from cloche.testing.platform import ACCOUNT, Platform

LEDGER, SCRATCH = "ledger", "scratch"
# Each has content that no request but one that means to write it may change.
LEDGER_KEYS = ("plain", "parts", "tags", "deep/er/key", "sp ace+&?")
SERVING = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py3"
GROUP, STREAM = "/group", "stream"
NOW = datetime.now(UTC)
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "s3": ("rest-xml",),
    "logs": ("json",),
    "cloudwatch": ("json", "query", "smithy-rpc-v2-cbor"),
    "cloudtrail": ("json",),
    "iam": ("query",),
    "sts": ("query",),
    "sagemaker": ("json",),
    "sagemaker-runtime": ("rest-json",),
}


def content_of(key: str) -> bytes:
    """Return what a key of the ledger holds."""
    return f"the content of {key}".encode() * 20


def objects(upload: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of S3's operations."""
    plain = {"Bucket": LEDGER, "Key": "plain"}
    parts = {"Bucket": LEDGER, "Key": "parts", "UploadId": upload}
    tags = {"Bucket": LEDGER, "Key": "tags"}
    written = {"Bucket": SCRATCH, "Key": "k{n}"}
    bucket = {"Bucket": LEDGER}
    part = {"PartNumber": 1, "ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}
    asked = {"IfNoneMatch": '"x"', "Range": "bytes=0-9", "ResponseContentType": "text/plain"}
    listing = {"Prefix": "d", "Delimiter": "/", "EncodingType": "url"}
    owner = owner_of(ACCOUNT)
    granted = {"Grantee": {"Type": "CanonicalUser", "ID": owner["ID"]}}
    acl = {"Owner": owner, "Grants": [granted | {"Permission": "FULL_CONTROL"}]}
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"'
        f'{ACCOUNT}"}},"Action":"s3:GetObject","Resource":"arn:aws:s3:::{SCRATCH}/*"}}]}}'
    )
    asked_of_buckets = (
        *("GetBucketAcl", "GetBucketCors", "GetBucketLifecycleConfiguration", "GetBucketLocation"),
        *("GetBucketPolicy", "GetBucketTagging", "GetBucketVersioning", "HeadBucket"),
        *("GetBucketEncryption", "GetPublicAccessBlock", "GetBucketOwnershipControls"),
        *("GetBucketNotificationConfiguration", "GetBucketLogging", "GetBucketRequestPayment"),
        *("GetBucketAccelerateConfiguration", "GetBucketPolicyStatus", "GetBucketWebsite"),
        *("GetBucketReplication", "GetObjectLockConfiguration", "DeleteBucketTagging"),
        *("DeleteBucketEncryption", "DeleteBucketOwnershipControls", "DeleteBucketPolicy"),
        "DeletePublicAccessBlock",
        *("ListBucketAnalyticsConfigurations", "ListBucketInventoryConfigurations"),
        *("ListBucketMetricsConfigurations", "ListBucketIntelligentTieringConfigurations"),
    )
    return dict.fromkeys(asked_of_buckets, bucket) | {
        "AbortMultipartUpload": parts | {"UploadId": "gone"},
        "CompleteMultipartUpload": parts | {"MultipartUpload": {"Parts": [part]}},
        "CopyObject": written | {"CopySource": f"{LEDGER}/plain", "MetadataDirective": "COPY"},
        "CreateBucket": {"Bucket": SCRATCH},
        "CreateMultipartUpload": written | {"Metadata": {"a": "b"}, "Tagging": "a=b"},
        "DeleteBucket": bucket,
        "DeleteObject": written,
        "DeleteObjectTagging": tags,
        "DeleteObjects": {
            "Bucket": SCRATCH,
            "Delete": {"Objects": [{"Key": "gone"}, {"Key": "gone2", "ETag": "x"}], "Quiet": True},
        },
        "GetObject": plain | asked,
        "GetObjectAttributes": plain | {"ObjectAttributes": ["ETag", "ObjectSize"], "MaxParts": 9},
        "HeadObject": plain | asked,
        "ListBuckets": {"MaxBuckets": 5, "Prefix": "l"},
        "ListMultipartUploads": bucket | listing | {"MaxUploads": 5, "KeyMarker": "a"},
        "ListObjects": bucket | listing | {"MaxKeys": 5, "Marker": "a"},
        "ListObjectsV2": bucket | listing | {"MaxKeys": 5, "StartAfter": "a", "FetchOwner": True},
        "ListObjectVersions": bucket | listing | {"MaxKeys": 5, "KeyMarker": "a"},
        "PutBucketTagging": {
            "Bucket": SCRATCH,
            "Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]},
        },
        "PutBucketEncryption": {
            "Bucket": SCRATCH,
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        },
        "PutBucketAcl": {"Bucket": SCRATCH, "AccessControlPolicy": acl},
        "PutBucketOwnershipControls": {
            "Bucket": SCRATCH,
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]},
        },
        "PutBucketPolicy": {"Bucket": SCRATCH, "Policy": policy},
        "PutObjectAcl": {"Bucket": SCRATCH, "Key": "stays", "AccessControlPolicy": acl},
        "PutPublicAccessBlock": {
            "Bucket": SCRATCH,
            "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": True},
        },
        "ListParts": parts | {"MaxParts": 5, "PartNumberMarker": 0},
        "PutObject": written | {"Body": b"new", "Metadata": {"a": "b"}, "Tagging": "a=b"},
        "PutObjectTagging": tags | {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}},
        "UploadPart": parts | {"PartNumber": 2, "Body": b"part"},
        "UploadPartCopy": parts
        | {"PartNumber": 3, "CopySource": f"{LEDGER}/plain", "CopySourceRange": "bytes=0-9"},
        "GetObjectAcl": plain,
        "GetObjectTagging": tags,
    }


def logs() -> dict[str, dict[str, Any]]:
    """Return the parameters of Logs' operations."""
    stream = {"logGroupName": GROUP, "logStreamName": STREAM}
    milliseconds = int(NOW.timestamp() * 1000)
    return {
        "CreateLogGroup": {"logGroupName": "/g{n}"},
        "CreateLogStream": {"logGroupName": GROUP, "logStreamName": "s{n}"},
        "DeleteLogGroup": {"logGroupName": "/gone"},
        "DeleteLogStream": {"logGroupName": GROUP, "logStreamName": "gone"},
        "DescribeLogGroups": {"logGroupNamePrefix": "/g", "limit": 5},
        "DescribeLogStreams": {"logGroupName": GROUP, "limit": 5, "descending": True},
        "FilterLogEvents": {
            "logGroupName": GROUP,
            "filterPattern": '"a" -b',
            "startTime": milliseconds - 60_000,
            "endTime": milliseconds,
            "limit": 5,
        },
        "GetLogEvents": stream | {"startTime": milliseconds - 60_000, "limit": 5},
        "PutLogEvents": stream | {"logEvents": [{"timestamp": milliseconds, "message": "m"}]},
    }


def metrics() -> dict[str, dict[str, Any]]:
    """Return the parameters of CloudWatch's operations."""
    metric = {
        "Namespace": "n",
        "MetricName": "m",
        "Dimensions": [{"Name": "d", "Value": "v"}],
    }
    times = {"StartTime": NOW - timedelta(hours=1), "EndTime": NOW}
    stat = {"Metric": metric, "Period": 60, "Stat": "p90"}
    query = {"Id": "q", "MetricStat": stat, "Label": "l", "ReturnData": True}
    datum = {
        "MetricName": "m",
        "Dimensions": [{"Name": "d", "Value": "v"}],
        "Timestamp": NOW,
        "Values": [1.0, 2.5],
        "Counts": [1.0, 2.0],
        "Unit": "Count",
    }
    single = {"MetricName": "m", "Value": 3.5, "StorageResolution": 1}
    both = {"SampleCount": 2.0, "Sum": 3.0, "Minimum": 1.0, "Maximum": 2.0}
    return {
        "GetMetricData": {"MetricDataQueries": [query], "MaxDatapoints": 9, **times},
        "GetMetricStatistics": metric
        | times
        | {"Period": 60, "Statistics": ["Average"], "ExtendedStatistics": ["p50"]},
        "ListMetrics": {"Namespace": "n", "MetricName": "m", "RecentlyActive": "PT3H"},
        "PutMetricData": {
            "Namespace": "n",
            "MetricData": [datum, single, {"MetricName": "m", "StatisticValues": both}],
        },
    }


def trail() -> dict[str, dict[str, Any]]:
    """Return the parameters of CloudTrail's operation."""
    return {
        "LookupEvents": {
            "LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "CreateRole"}],
            "StartTime": NOW - timedelta(hours=1),
            "EndTime": NOW,
            "MaxResults": 5,
        }
    }


def training(role: str) -> dict[str, Any]:
    """Return the parameters of CreateTrainingJob."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{LEDGER}/"}
    source["S3DataDistributionType"] = "FullyReplicated"
    rule = {
        "RuleConfigurationName": "r",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/x:latest",
        "RuleParameters": {"rule_to_invoke": "LossNotDecreasing", "num_steps": "10"},
    }
    return {
        "TrainingJobName": "job-{n}",
        "RoleArn": role,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
        },
        "HyperParameters": {
            "sagemaker_program": '"hpo.py"',
            "sagemaker_submit_directory": f'"s3://{LEDGER}/sourcedir.tar.gz"',
            "epochs": "3",
        },
        "InputDataConfig": [{"ChannelName": "training", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{SCRATCH}/out"},
        "CheckpointConfig": {"S3Uri": f"s3://{SCRATCH}/checkpoints"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        "Environment": {"A": "b"},
        "DebugRuleConfigurations": [rule],
        "Tags": [{"Key": "a", "Value": "b"}],
    }


def tuning(role: str) -> dict[str, Any]:
    """Return the parameters of CreateHyperParameterTuningJob."""
    job = training(role)
    shared = ("RoleArn", "AlgorithmSpecification", "InputDataConfig", "OutputDataConfig")
    ranges = {
        "IntegerParameterRanges": [{"Name": "i", "MinValue": "1", "MaxValue": "5"}],
        "ContinuousParameterRanges": [
            {"Name": "c", "MinValue": "0.1", "MaxValue": "1.5", "ScalingType": "Logarithmic"}
        ],
        "CategoricalParameterRanges": [{"Name": "k", "Values": ["a", "b"]}],
    }
    return {
        "HyperParameterTuningJobName": "tune-{n}",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Hyperband",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": ranges,
            "RandomSeed": 7,
        },
        "TrainingJobDefinition": {name: job[name] for name in shared}
        | {
            "StaticHyperParameters": job["HyperParameters"],
            "ResourceConfig": job["ResourceConfig"],
            "StoppingCondition": job["StoppingCondition"],
        },
        "Tags": [{"Key": "a", "Value": "b"}],
    }


def sagemaker(role: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of SageMaker's operations."""
    container = {"Image": SERVING, "ModelDataUrl": f"s3://{LEDGER}/model.tar.gz"}
    variant = {
        "VariantName": "v",
        "ModelName": "m",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }
    listing = {
        "NameContains": "a",
        "MaxResults": 5,
        "CreationTimeAfter": NOW - timedelta(hours=1),
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
    }
    named = listing | {"SortBy": "Name"}
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/m"
    weights = [{"VariantName": "v", "DesiredWeight": 2.0, "DesiredInstanceCount": 2}]
    return {
        "AddTags": {"ResourceArn": arn, "Tags": [{"Key": "a", "Value": "b"}]},
        "CreateEndpoint": {"EndpointName": "e-{n}", "EndpointConfigName": "c"},
        "CreateEndpointConfig": {"EndpointConfigName": "c-{n}", "ProductionVariants": [variant]},
        "CreateHyperParameterTuningJob": tuning(role),
        "CreateModel": {
            "ModelName": "m-{n}",
            "PrimaryContainer": container | {"Environment": {"A": "b"}},
            "ExecutionRoleArn": role,
            "Tags": [{"Key": "a", "Value": "b"}],
        },
        "CreateTrainingJob": training(role),
        "DeleteEndpoint": {"EndpointName": "gone"},
        "DeleteEndpointConfig": {"EndpointConfigName": "gone"},
        "DeleteHyperParameterTuningJob": {"HyperParameterTuningJobName": "gone"},
        "DeleteModel": {"ModelName": "gone"},
        "DeleteTags": {"ResourceArn": arn, "TagKeys": ["a"]},
        "DeleteTrainingJob": {"TrainingJobName": "gone"},
        "DescribeEndpoint": {"EndpointName": "e"},
        "DescribeEndpointConfig": {"EndpointConfigName": "c"},
        "DescribeHyperParameterTuningJob": {"HyperParameterTuningJobName": "tune"},
        "DescribeModel": {"ModelName": "m"},
        "DescribeTrainingJob": {"TrainingJobName": "job"},
        "ListEndpointConfigs": named,
        "ListEndpoints": named | {"StatusEquals": "Creating"},
        "ListHyperParameterTuningJobs": named | {"StatusEquals": "InProgress"},
        "ListModels": named,
        "ListTags": {"ResourceArn": arn, "MaxResults": 50},
        "ListTrainingJobs": named | {"StatusEquals": "InProgress"},
        "ListTrainingJobsForHyperParameterTuningJob": {
            "HyperParameterTuningJobName": "tune",
            "MaxResults": 5,
            "SortBy": "Name",
        },
        "StopHyperParameterTuningJob": {"HyperParameterTuningJobName": "gone"},
        "StopTrainingJob": {"TrainingJobName": "gone"},
        "UpdateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
        "UpdateEndpointWeightsAndCapacities": {
            "EndpointName": "e",
            "DesiredWeightsAndCapacities": weights,
        },
        "UpdateTrainingJob": {
            "TrainingJobName": "job",
            "ResourceConfig": {"KeepAlivePeriodInSeconds": 60},
        },
    }


def prepare(platform: Platform) -> dict[str, dict[str, dict[str, Any]]]:
    """Make what the requests name; return their parameters by service and operation.

    The loops are stopped first: what is created stays a record.
    """
    platform.call(platform.app._end_reconciler())
    s3, iam = platform.client("s3"), platform.client("iam", as_="root")
    for bucket in (LEDGER, SCRATCH):
        s3.create_bucket(Bucket=bucket)
    for key in LEDGER_KEYS:
        s3.put_object(Bucket=LEDGER, Key=key, Body=content_of(key))
    s3.put_bucket_ownership_controls(
        Bucket=SCRATCH,
        OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]},
    )
    s3.put_object(Bucket=SCRATCH, Key="stays", Body=b"a bucket that is not empty")
    for key in ("sourcedir.tar.gz", "model.tar.gz"):
        s3.put_object(Bucket=LEDGER, Key=key, Body=content_of(key))
    upload = s3.create_multipart_upload(Bucket=LEDGER, Key="parts")["UploadId"]
    role = iam.list_roles()["Roles"][0]["Arn"]
    asked = prepare_identity(iam, role)
    made = sagemaker(role)
    client = platform.client("sagemaker")
    client.create_model(**made["CreateModel"] | {"ModelName": "m"})
    client.create_endpoint_config(**made["CreateEndpointConfig"] | {"EndpointConfigName": "c"})
    client.create_endpoint(**made["CreateEndpoint"] | {"EndpointName": "e"})
    client.create_training_job(**made["CreateTrainingJob"] | {"TrainingJobName": "job"})
    name = {"HyperParameterTuningJobName": "tune"}
    client.create_hyper_parameter_tuning_job(**made["CreateHyperParameterTuningJob"] | name)
    log = platform.client("logs")
    log.create_log_group(logGroupName=GROUP)
    log.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    log.put_log_events(**logs()["PutLogEvents"])
    metered = metrics()
    platform.client("cloudwatch").put_metric_data(**metered["PutMetricData"])
    iam_names = set(service_model("iam").operation_names)
    return {
        "s3": objects(upload),
        "logs": logs(),
        "cloudwatch": metered,
        "cloudtrail": trail(),
        "iam": {name: one for name, one in asked.items() if name in iam_names},
        "sts": {name: one for name, one in asked.items() if name not in iam_names},
        "sagemaker": made,
        "sagemaker-runtime": {
            "InvokeEndpoint": {"EndpointName": "e", "Body": b"1,2", "ContentType": "text/csv"}
        },
    }


def numbered(value: Any, number: int) -> Any:
    """Return parameters with the number in place of `{n}`."""
    if isinstance(value, str):
        return value.replace("{n}", str(number))
    if isinstance(value, dict):
        return {name: numbered(item, number) for name, item in value.items()}
    return [numbered(item, number) for item in value] if isinstance(value, list) else value


def wire_of(service: str, protocol: str, operation: str, parameters: dict[str, Any]) -> Wire:
    """Return the request that botocore makes of parameters."""
    model = service_model(service)
    made = create_serializer(protocol, False).serialize_to_request(
        parameters, model.operation_model(operation)
    )
    path, _, constants = made["url_path"].partition("?")
    asked = made["query_string"]
    query = "&".join(
        part for part in (constants, urlencode(asked, doseq=True) if asked else "") if part
    )
    body = made["body"]
    if isinstance(body, dict):
        body = urlencode(body)
    return Wire(
        service=service,
        signing_name=model.signing_name,
        protocol=protocol,
        operation=operation,
        method=made["method"],
        path=path,
        query=query,
        headers=dict(made["headers"]),
        body=body.encode() if isinstance(body, str) else body,
    )
