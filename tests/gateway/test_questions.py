"""Which questions real requests of boto3 ask: actions, ARNs and condition keys, verbatim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError
from recorder import Recorder

from cloche.core.authorization import Question
from cloche.testing.platform import ACCOUNT, Platform, start

ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SAGEMAKER = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
TAGS = [{"Key": "Team", "Value": "vision"}]
TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
    f'"Principal": {{"Service": "sagemaker.amazonaws.com", "AWS": "{ACCOUNT}"}}}}]}}'
)
Asked = list[tuple[str, str]]


class Asking:
    """A platform whose authorizer records; clients have root's keys."""

    def __init__(self, platform: Platform, recorder: Recorder) -> None:
        self.platform, self.recorder = platform, recorder
        self.clients: dict[str, Any] = {}

    def __getattr__(self, service: str) -> Any:
        name = service.replace("_", "-")
        if name not in self.clients:
            self.clients[name] = self.platform.client(name, as_="root")
        return self.clients[name]

    def questions(self, call: Callable[[], Any]) -> list[Question]:
        """Return what one request asked, whether it was answered or refused afterwards."""
        self.recorder.questions()
        with contextlib.suppress(ClientError):
            call()
        return self.recorder.questions(lambda question: question.principal.kind == "root")

    def asked(self, call: Callable[[], Any]) -> Asked:
        return [(question.action, question.resource) for question in self.questions(call)]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    recorder = Recorder()
    with start(tmp_path_factory.mktemp("home"), authorizer=recorder) as platform:
        asking = Asking(platform, recorder)
        asking.iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST, Tags=TAGS)
        asking.s3.create_bucket(Bucket="bkt")
        asking.s3.put_object(Bucket="bkt", Key="data/a", Body=b"a", Tagging="kind=a")
        asking.s3.put_object(Bucket="bkt", Key="model.tar.gz", Body=b"m")
        yield asking


def training_job(**more: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/data/"}
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"
    return {
        "TrainingJobName": "My-Job",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "InputDataConfig": [{"ChannelName": "c", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": "s3://bkt/out", "KmsKeyId": "alias/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            "VolumeKmsKeyId": "1234",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        "EnableNetworkIsolation": True,
        **more,
    }


@pytest.fixture
def no_role(aws: Asking) -> Iterator[None]:
    """Refuse the last question, so that nothing is made."""
    aws.recorder.denied.add("iam:PassRole")
    yield
    aws.recorder.denied.clear()


def test_a_training_job(aws: Asking, no_role: None) -> None:
    job = training_job(Tags=TAGS)
    asked = aws.questions(lambda: aws.sagemaker.create_training_job(**job))
    name = f"{SAGEMAKER}:training-job/my-job"
    assert [(each.action, each.resource) for each in asked] == [
        ("sagemaker:CreateTrainingJob", name),
        ("sagemaker:AddTags", name),
        ("iam:PassRole", ROLE),
    ]
    create, tag, role = (each.context for each in asked)
    kms = f"arn:aws:kms:us-east-1:{ACCOUNT}"
    expected: dict[str, Any] = {
        "aws:requesttag/team": "vision",
        "aws:tagkeys": ("Team",),
        "sagemaker:instancetypes": ("ml.m5.large",),
        "sagemaker:vpcsubnets": ("subnet-1", "subnet-2"),
        "sagemaker:vpcsecuritygroupids": ("sg-1",),
        "sagemaker:networkisolation": "true",
        "sagemaker:maxruntimeinseconds": "60",
        "sagemaker:outputkmskeyarn": f"{kms}:alias/out",
        "sagemaker:volumekmskeyarn": f"{kms}:key/1234",
        "sagemaker:volumekmskey": f"{kms}:key/1234",
        "aws:principalarn": f"arn:aws:iam::{ACCOUNT}:root",
        "aws:principaltype": "Account",
        "aws:requestedregion": "us-east-1",
        "aws:securetransport": "false",
        "aws:sourceip": "127.0.0.1",
    }
    assert {key: create.get(key) for key in expected} == expected
    assert "aws:multifactorauthpresent" not in create and "aws:currenttime" in create
    assert tag["sagemaker:taggingaction"] == "CreateTrainingJob"
    assert role["iam:passedtoservice"] == "sagemaker.amazonaws.com"


def test_nothing_is_made_that_one_question_refused(aws: Asking, no_role: None) -> None:
    with pytest.raises(ClientError) as refused:
        aws.sagemaker.create_training_job(**training_job())
    assert refused.value.response["Error"] == {
        "Code": "AccessDeniedException",
        "Message": (
            f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: iam:PassRole on "
            f"resource: {ROLE} because no identity-based policy allows the iam:PassRole action"
        ),
    }
    assert aws.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_a_tuning_job_passes_the_roles_of_all_its_definitions(aws: Asking, no_role: None) -> None:
    aws.recorder.denied = {("iam:PassRole", f"{ROLE}2")}  # the last
    job = training_job()
    static = {each: job[each] for each in ("RoleArn", "InputDataConfig", "OutputDataConfig")}
    definition = {
        **static,
        "AlgorithmSpecification": job["AlgorithmSpecification"],
        "ResourceConfig": job["ResourceConfig"],
        "StoppingCondition": job["StoppingCondition"],
    }
    asked = aws.questions(
        lambda: aws.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="Tune",
            HyperParameterTuningJobConfig={
                "Strategy": "Random",
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            },
            TrainingJobDefinitions=[
                {**definition, "DefinitionName": "one"},
                {**definition, "DefinitionName": "two", "RoleArn": f"{ROLE}2"},
            ],
        )
    )
    assert [(each.action, each.resource) for each in asked] == [
        ("sagemaker:CreateHyperParameterTuningJob", f"{SAGEMAKER}:hyper-parameter-tuning-job/tune"),
        ("iam:PassRole", ROLE),
        ("iam:PassRole", f"{ROLE}2"),
    ]
    assert asked[0].context["sagemaker:instancetypes"] == ("ml.m5.large",)


def test_models_and_endpoints(aws: Asking, no_role: None) -> None:
    sagemaker = aws.sagemaker
    container = {"Image": "x", "ModelDataUrl": "s3://bkt/model.tar.gz"}
    model = {"ModelName": "M", "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    assert aws.asked(lambda: sagemaker.create_model(**model)) == [
        ("sagemaker:CreateModel", f"{SAGEMAKER}:model/m"),
        ("iam:PassRole", ROLE),
    ]
    variant = {"VariantName": "v", "ModelName": "M", "InstanceType": "ml.m5.large"}
    config = {
        "EndpointConfigName": "C",
        "ProductionVariants": [{**variant, "InitialInstanceCount": 1}],
    }
    (asked,) = aws.questions(lambda: sagemaker.create_endpoint_config(**config))
    assert asked.resource == f"{SAGEMAKER}:endpoint-config/c"
    assert asked.context["sagemaker:modelarn"] == (f"{SAGEMAKER}:model/m",)
    both = [f"{SAGEMAKER}:endpoint/e", f"{SAGEMAKER}:endpoint-config/c"]
    for name in ("create_endpoint", "update_endpoint"):
        call = getattr(sagemaker, name)
        action = "sagemaker:" + name.title().replace("_", "")
        asked_now = aws.asked(lambda: call(EndpointName="E", EndpointConfigName="C"))  # noqa: B023
        assert asked_now == [(action, each) for each in both]
    assert aws.asked(lambda: aws.sagemaker_runtime.invoke_endpoint(EndpointName="E", Body=b"")) == [
        ("sagemaker:InvokeEndpoint", f"{SAGEMAKER}:endpoint/e")
    ]
    assert aws.asked(sagemaker.list_endpoints) == [("sagemaker:ListEndpoints", "*")]


def test_tags_of_sagemaker(aws: Asking) -> None:
    arn = f"{SAGEMAKER}:endpoint-config/nothing"
    (added,) = aws.questions(lambda: aws.sagemaker.add_tags(ResourceArn=arn, Tags=TAGS))
    assert (added.action, added.resource) == ("sagemaker:AddTags", arn)
    assert added.context["aws:requesttag/team"] == "vision"
    (gone,) = aws.questions(lambda: aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "b"]))
    assert gone.context["aws:tagkeys"] == ("a", "b")
    assert aws.asked(lambda: aws.sagemaker.list_tags(ResourceArn=arn)) == [
        ("sagemaker:ListTags", arn)
    ]


def test_tags_of_a_resource_are_looked_up(aws: Asking) -> None:
    (asked,) = aws.questions(lambda: aws.iam.get_role(RoleName="r"))
    assert (asked.action, asked.resource) == ("iam:GetRole", ROLE)
    assert asked.context["iam:resourcetag/team"] == "vision"
    with pytest.raises(KeyError):
        asked.context["aws:resourcetag/other"]


BUCKET = "arn:aws:s3:::bkt"


def test_reads_of_s3(aws: Asking) -> None:
    s3 = aws.s3
    (asked,) = aws.questions(lambda: s3.get_object(Bucket="bkt", Key="data/a"))
    assert (asked.action, asked.resource) == ("s3:GetObject", f"{BUCKET}/data/a")
    assert asked.context["s3:existingobjecttag/kind"] == "a"
    assert asked.context["s3:resourceaccount"] == ACCOUNT
    assert asked.context["s3:authtype"] == "REST-HEADER"
    (asked,) = aws.questions(lambda: s3.head_object(Bucket="bkt", Key="data/a", VersionId="null"))
    assert (asked.action, asked.context["s3:versionid"]) == ("s3:GetObjectVersion", "null")
    (asked,) = aws.questions(
        lambda: s3.list_objects_v2(Bucket="bkt", Prefix="data/", Delimiter="/")
    )
    assert (asked.action, asked.resource) == ("s3:ListBucket", BUCKET)
    assert asked.context["s3:prefix"] == "data/" and asked.context["s3:delimiter"] == "/"
    assert aws.asked(lambda: s3.head_bucket(Bucket="bkt")) == [("s3:ListBucket", BUCKET)]
    assert aws.asked(s3.list_buckets) == [("s3:ListAllMyBuckets", "*")]
    attributes = {"ObjectAttributes": ["ETag"]}
    assert aws.asked(
        lambda: s3.get_object_attributes(Bucket="bkt", Key="data/a", **attributes)
    ) == [
        ("s3:GetObject", f"{BUCKET}/data/a"),
        ("s3:GetObjectAttributes", f"{BUCKET}/data/a"),
    ]


def test_a_missing_key_is_told_to_who_may_list(aws: Asking) -> None:
    def get() -> tuple[str, int]:
        with pytest.raises(ClientError) as refused:
            aws.s3.get_object(Bucket="bkt", Key="missing")
        response = refused.value.response
        return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]

    assert get() == ("NoSuchKey", 404)
    aws.recorder.denied.add("s3:ListBucket")
    assert get() == ("AccessDenied", 403)
    aws.recorder.denied.clear()


def test_writes_of_s3(aws: Asking) -> None:
    s3 = aws.s3
    asked = aws.questions(
        lambda: s3.put_object(
            Bucket="bkt",
            Key="new",
            Body=b"x",
            ACL="bucket-owner-full-control",
            Tagging="Team=vision&b=",
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId="key",
            StorageClass="STANDARD_IA",
        )
    )
    assert [(each.action, each.resource) for each in asked] == [
        ("s3:PutObject", f"{BUCKET}/new"),
        ("s3:PutObjectAcl", f"{BUCKET}/new"),
        ("s3:PutObjectTagging", f"{BUCKET}/new"),
    ]
    expected: dict[str, Any] = {
        "s3:x-amz-acl": "bucket-owner-full-control",
        "s3:x-amz-server-side-encryption": "aws:kms",
        "s3:x-amz-server-side-encryption-aws-kms-key-id": "key",
        "s3:x-amz-storage-class": "STANDARD_IA",
        "s3:requestobjecttag/team": "vision",
        "s3:requestobjecttagkeys": ("Team", "b"),
        "s3:objectcreationoperation": "true",
    }
    assert {key: asked[0].context.get(key) for key in expected} == expected
    assert aws.asked(
        lambda: s3.put_object_tagging(Bucket="bkt", Key="new", Tagging={"TagSet": TAGS})
    ) == [("s3:PutObjectTagging", f"{BUCKET}/new")]
    assert aws.asked(lambda: s3.delete_object(Bucket="bkt", Key="new")) == [
        ("s3:DeleteObject", f"{BUCKET}/new")
    ]


def test_multipart(aws: Asking) -> None:
    s3, place = aws.s3, {"Bucket": "bkt", "Key": "parts"}
    upload = s3.create_multipart_upload(**place)["UploadId"]
    begin = aws.asked(lambda: s3.create_multipart_upload(**place, Tagging="a=b"))
    put, of = ("s3:PutObject", f"{BUCKET}/parts"), {**place, "UploadId": upload}
    assert begin == [put, ("s3:PutObjectTagging", f"{BUCKET}/parts")]
    (part,) = aws.questions(lambda: s3.upload_part(**of, PartNumber=1, Body=b"x"))
    assert (part.action, part.resource) == put
    assert part.context["s3:objectcreationoperation"] == "false"
    assert aws.asked(lambda: s3.upload_part_copy(**of, PartNumber=2, CopySource="bkt/data/a")) == [
        put,
        ("s3:GetObject", f"{BUCKET}/data/a"),
    ]
    assert aws.asked(lambda: s3.list_parts(**of)) == [
        ("s3:ListMultipartUploadParts", f"{BUCKET}/parts")
    ]
    assert aws.asked(lambda: s3.list_multipart_uploads(Bucket="bkt")) == [
        ("s3:ListBucketMultipartUploads", BUCKET)
    ]
    assert aws.asked(lambda: s3.complete_multipart_upload(**of)) == [put]
    assert aws.asked(lambda: s3.abort_multipart_upload(**of)) == [
        ("s3:AbortMultipartUpload", f"{BUCKET}/parts")
    ]


def test_copies(aws: Asking) -> None:
    def copy(source: str, **more: Any) -> Asked:
        return aws.asked(
            lambda: aws.s3.copy_object(Bucket="bkt", Key="copy", CopySource=source, **more)
        )

    put, get = ("s3:PutObject", f"{BUCKET}/copy"), ("s3:GetObject", f"{BUCKET}/data/a")
    assert copy("bkt/model.tar.gz") == [put, ("s3:GetObject", f"{BUCKET}/model.tar.gz")]
    assert copy("bkt/data/a") == [
        put,
        get,
        ("s3:GetObjectTagging", f"{BUCKET}/data/a"),
        ("s3:PutObjectTagging", f"{BUCKET}/copy"),
    ]
    assert copy("bkt/data/a", TaggingDirective="REPLACE") == [put, get]
    aws.recorder.denied.add(get)
    with pytest.raises(ClientError, match="is not authorized to perform: s3:GetObject"):
        aws.s3.copy_object(Bucket="bkt", Key="copied", CopySource="bkt/data/a")
    aws.recorder.denied.clear()
    assert "copied" not in [
        each["Key"] for each in aws.s3.list_objects_v2(Bucket="bkt")["Contents"]
    ]


def test_each_object_of_a_delete_is_asked_about(aws: Asking) -> None:
    for key in ("x/1", "x/2", "x/3"):
        aws.s3.put_object(Bucket="bkt", Key=key, Body=b"")
    aws.recorder.denied.add(("s3:DeleteObject", f"{BUCKET}/x/2"))
    aws.recorder.questions()
    objects = [{"Key": key} for key in ("x/1", "x/2", "x/3")]
    answer = aws.s3.delete_objects(Bucket="bkt", Delete={"Objects": objects})
    asked = aws.recorder.take()
    aws.recorder.denied.clear()
    assert asked == [("s3:DeleteObject", f"{BUCKET}/{each['Key']}") for each in objects]
    assert [each["Key"] for each in answer["Deleted"]] == ["x/1", "x/3"]
    (error,) = answer["Errors"]
    assert (error["Key"], error["Code"]) == ("x/2", "AccessDenied")
    assert error["Message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: s3:DeleteObject on "
        f'resource: "{BUCKET}/x/2" because no identity-based policy allows the s3:DeleteObject '
        "action"
    )
    left = aws.s3.list_objects_v2(Bucket="bkt", Prefix="x/")["Contents"]
    assert [each["Key"] for each in left] == ["x/2"]


def test_a_bucket(aws: Asking) -> None:
    made = aws.asked(
        lambda: aws.s3.create_bucket(
            Bucket="new-bucket", ACL="private", ObjectOwnership="BucketOwnerEnforced"
        )
    )
    bucket = "arn:aws:s3:::new-bucket"
    actions = ("CreateBucket", "PutBucketAcl", "PutBucketOwnershipControls")
    assert made == [(f"s3:{action}", bucket) for action in actions]
    assert aws.asked(lambda: aws.s3.get_public_access_block(Bucket="new-bucket")) == [
        ("s3:GetBucketPublicAccessBlock", bucket)
    ]


def test_a_presigned_url_is_asked_as_its_signer(aws: Asking) -> None:
    link = aws.s3.generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": "data/a"})
    (asked,) = aws.questions(lambda: urlopen(link).read())
    assert asked.principal.kind == "root"
    assert asked.context["s3:authtype"] == "REST-QUERY-STRING"
    assert asked.context["s3:signatureversion"] in ("AWS", "AWS4-HMAC-SHA256")


def test_roles(aws: Asking) -> None:
    (asked,) = aws.questions(
        lambda: aws.sts.assume_role(RoleArn=ROLE, RoleSessionName="me", ExternalId="secret")
    )
    assert (asked.action, asked.resource) == ("sts:AssumeRole", ROLE)
    assert asked.context["sts:externalid"] == "secret"
    assert asked.context["sts:rolesessionname"] == "me"
    assert aws.asked(aws.sts.get_caller_identity) == []
    policy = {"RoleName": "r", "PolicyArn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"}
    (asked,) = aws.questions(lambda: aws.iam.attach_role_policy(**policy))
    assert (asked.action, asked.resource) == ("iam:AttachRolePolicy", ROLE)
    assert asked.context["iam:policyarn"] == policy["PolicyArn"]
    new = {"RoleName": "n", "Path": "/team/", "AssumeRolePolicyDocument": TRUST, "Tags": TAGS}
    assert aws.asked(lambda: aws.iam.create_role(**new)) == [
        ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/team/n"),
        ("iam:TagRole", f"arn:aws:iam::{ACCOUNT}:role/team/n"),
    ]
    assert aws.asked(lambda: aws.iam.get_role(RoleName="n")) == [
        ("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/team/n")
    ]
    assert aws.asked(aws.iam.list_roles) == [("iam:ListRoles", f"arn:aws:iam::{ACCOUNT}:role/")]


def test_logs_and_metrics(aws: Asking) -> None:
    logs, arn = aws.logs, f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group"
    assert aws.asked(lambda: logs.create_log_group(logGroupName="/g")) == [
        ("logs:CreateLogGroup", f"{arn}:/g:log-stream:")
    ]
    assert aws.asked(lambda: logs.get_log_events(logGroupName="/g", logStreamName="s/1")) == [
        ("logs:GetLogEvents", f"{arn}:/g:log-stream:s/1")
    ]
    by_arn = {"logGroupIdentifier": f"{arn}:/g"}
    assert aws.asked(lambda: logs.filter_log_events(**by_arn)) == [
        ("logs:FilterLogEvents", f"{arn}:/g:log-stream:")
    ]
    assert aws.asked(logs.describe_log_groups) == [
        ("logs:DescribeLogGroups", f"{arn}::log-stream:")
    ]
    (asked,) = aws.questions(lambda: aws.cloudwatch.put_metric_data(Namespace="N", MetricData=[]))
    assert (asked.action, asked.resource) == ("cloudwatch:PutMetricData", "*")
    assert asked.context["cloudwatch:namespace"] == "N"


POLICY = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", '
    '"Resource": "*"}]}'
)


def test_managed_policies_and_boundaries(aws: Asking) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:policy/team/p"
    new = {"PolicyName": "p", "PolicyDocument": POLICY, "Path": "/team/"}
    made = aws.questions(lambda: aws.iam.create_policy(**new, Tags=TAGS))
    assert [(each.action, each.resource) for each in made] == [
        ("iam:CreatePolicy", arn),
        ("iam:TagPolicy", arn),
    ]
    assert {each.context["aws:requesttag/team"] for each in made} == {"vision"}
    (asked,) = aws.questions(lambda: aws.iam.get_policy_version(PolicyArn=arn, VersionId="v1"))
    assert (asked.action, asked.resource) == ("iam:GetPolicyVersion", arn)
    assert asked.context["aws:resourcetag/team"] == "vision"
    (asked,) = aws.questions(lambda: aws.iam.untag_policy(PolicyArn=arn, TagKeys=["a", "b"]))
    assert (asked.action, asked.context["aws:tagkeys"]) == ("iam:UntagPolicy", ("a", "b"))
    assert aws.asked(aws.iam.list_policies) == [("iam:ListPolicies", "*")]

    role = {"RoleName": "bounded", "AssumeRolePolicyDocument": TRUST, "PermissionsBoundary": arn}
    (asked,) = aws.questions(lambda: aws.iam.create_role(**role))
    assert asked.context["iam:permissionsboundary"] == arn
    # What is asked for when it is put, what the role has afterwards.
    other = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
    put = {"RoleName": "bounded", "PermissionsBoundary": other}
    (asked,) = aws.questions(lambda: aws.iam.put_role_permissions_boundary(**put))
    assert asked.context["iam:permissionsboundary"] == other
    inline = {"RoleName": "bounded", "PolicyName": "p", "PolicyDocument": POLICY}
    (asked,) = aws.questions(lambda: aws.iam.put_role_policy(**inline))
    assert asked.action == "iam:PutRolePolicy"
    assert asked.context["iam:permissionsboundary"] == other
    (asked,) = aws.questions(lambda: aws.iam.update_role(RoleName="r"))
    assert "iam:permissionsboundary" not in asked.context
