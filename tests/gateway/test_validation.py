"""Parameters against the model, in AWS's words; and Java's patterns in Python."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from botocore.loaders import Loader

from cloche.core.errors import AwsError
from cloche.gateway import patterns, validate
from cloche.gateway.refusals import validation_code
from cloche.gateway.shapes import api

NAME = "^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
JOB: dict[str, Any] = {
    "TrainingJobName": "job-1",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::111122223333:role/service-role/Training",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {
        "InstanceType": "ml.m5.2xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 30,
    },
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
}


def refusal(service: str, operation: str, parameters: dict[str, Any]) -> str | None:
    action = api(service).action(operation)
    assert action is not None and action.input is not None
    try:
        validate.check(action.input, parameters, "ValidationException")
    except AwsError as error:
        assert (error.code, error.status) == ("ValidationException", 400)
        return error.message
    return None


def test_right_parameters_pass() -> None:
    assert refusal("sagemaker", "CreateTrainingJob", JOB) is None


def pattern_of(shape: str) -> str:
    model = Loader().load_service_model("sagemaker", "service-2")
    found: str = model["shapes"][shape]["pattern"]
    return found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"TrainingJobName": "my_job"},
            "Value 'my_job' at 'trainingJobName' failed to satisfy constraint: Member must "
            f"satisfy regular expression pattern: {pattern_of('TrainingJobName')}",
        ),
        (
            {"ResourceConfig": {**JOB["ResourceConfig"], "InstanceType": "ml.huge"}},
            "Value 'ml.huge' at 'resourceConfig.instanceType' failed to satisfy constraint: "
            "Member must satisfy enum value set: [ml.",
        ),
        (
            {"ResourceConfig": {**JOB["ResourceConfig"], "InstanceCount": -1}},
            "Value '-1' at 'resourceConfig.instanceCount' failed to satisfy constraint: Member "
            "must have value greater than or equal to 0",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
            "Value '0' at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        (
            {"RoleArn": None},
            "Value null at 'roleArn' failed to satisfy constraint: Member must not be null",
        ),
        (
            {"Tags": [{"Key": "a", "Value": "b"}, {"Value": "c"}]},
            "Value null at 'tags.2.member.key' failed to satisfy constraint: Member must not be "
            "null",
        ),
        (
            {"Tags": [{"Key": "a*", "Value": "b"}]},
            "Value 'a*' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy "
            "regular expression pattern: ([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)",
        ),
        (
            {"HyperParameters": {"a": "x" * 2501, "b": "y"}},
            "Map value must satisfy constraint: [Member must have length less than or equal to "
            "2500, Member must have length greater than or equal to 0, Member must satisfy "
            "regular expression pattern: .*]",
        ),
        (
            {"HyperParameters": {"k" * 257: "1"}},
            "Map keys must satisfy constraint: [Member must have length less than or equal to "
            "256, Member must have length greater than or equal to 0, Member must satisfy "
            "regular expression pattern: .*]",
        ),
        (
            {"HyperParameters": {str(number): "1" for number in range(101)}},
            "Member must have length less than or equal to 100",
        ),
    ],
)
def test_sentences(change: dict[str, Any], sentence: str) -> None:
    text = refusal("sagemaker", "CreateTrainingJob", JOB | change)
    assert text is not None
    assert text.startswith("1 validation error detected: ")
    assert sentence in text


def test_several_errors_in_one_message() -> None:
    text = refusal("sagemaker", "CreateTrainingJob", JOB | {"TrainingJobName": "a_" * 40})
    name = "a_" * 40
    assert text == (
        f"2 validation errors detected: Value '{name}' at 'trainingJobName' failed to satisfy "
        "constraint: Member must have length less than or equal to 63; "
        f"Value '{name}' at 'trainingJobName' failed to satisfy constraint: Member must satisfy "
        f"regular expression pattern: {pattern_of('TrainingJobName')}"
    )


def test_no_item_of_a_list_or_map_is_null_whatever_else_is_asked() -> None:
    datum = {"MetricName": "m", "Values": [1.0], "Counts": [1.0, None]}
    text = refusal("cloudwatch", "PutMetricData", {"Namespace": "n", "MetricData": [datum]})
    assert text == (
        "1 validation error detected: Value '[1.0, null]' at 'metricData.1.member.counts' failed "
        "to satisfy constraint: Member must satisfy constraint: [Member must not be null]"
    )


def test_list_of_scalars() -> None:
    text = refusal(
        "iam",
        "SimulatePrincipalPolicy",
        {
            "PolicySourceArn": "arn:aws:iam::111122223333:role/x",
            "ActionNames": ["s3:GetObject", "x"],
        },
    )
    assert text == (
        "1 validation error detected: Value '[s3:GetObject, x]' at 'actionNames' failed to "
        "satisfy constraint: Member must satisfy constraint: [Member must have length less than "
        "or equal to 128, Member must have length greater than or equal to 3, Member must not "
        "be null]"
    )


def test_secrets_are_not_repeated() -> None:
    text = refusal("iam", "CreateLoginProfile", {"UserName": "me", "Password": ""})
    assert text is not None
    assert "Value at 'password' failed to satisfy constraint: Member must have length" in text


@pytest.mark.parametrize(
    ("service", "protocol", "code"),
    [
        ("sagemaker", "json", "ValidationException"),
        ("sagemaker-runtime", "rest-json", "ValidationError"),
        ("iam", "query", "ValidationError"),
        ("sts", "query", "ValidationError"),
        ("logs", "json", "InvalidParameterException"),
        ("cloudwatch", "json", "ValidationError"),
        ("lambda", "rest-json", "ValidationException"),
        ("s3", "rest-xml", "NotImplemented"),
    ],
)
def test_code_by_service(service: str, protocol: str, code: str) -> None:
    assert validation_code(api(service), protocol) == code


SERVICES = (
    "sagemaker sagemaker-runtime s3 sts iam logs cloudwatch lambda application-autoscaling ec2"
)


def test_every_pattern_of_our_services_compiles() -> None:
    found = set()
    for service in SERVICES.split():
        shapes = Loader().load_service_model(service, "service-2")["shapes"]
        found |= {shape["pattern"] for shape in shapes.values() if "pattern" in shape}
    assert len(found) > 300
    assert [one for one in sorted(found) if patterns.compiled(one) is None] == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)", ["", "Ünï 東京 ٣", "a-b@c"], ["a*b", "a\nb", "😀"]),
        (r"[\p{L}\p{M}\p{S}\p{N}\p{P}]+", ["é😀$!", "e\u0301\ufe0f"], ["a b"]),
        (r"\p{ASCII}*", ["\x00~"], ["é"]),
        (r"\A\S[\p{Print}]*\z", ["a b"], [" a", "a\n", "aé"]),
        (r"arn:[\p{Alnum}\-]+:x", ["arn:aws-cn:x"], ["arn:é:x"]),
        (r"[\w-_]*", ["a-b_c"], ["a.b"]),
        (r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}", ["abc"], ["a*"]),
        (
            r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*",
            ["a 😀\n"],
            ["\x00", "\ufffe"],
        ),
        (r"\w+", ["abc"], ["é"]),
        (NAME, ["a-b"], ["a_b", "-a", "a\n"]),
    ],
)
def test_java_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = patterns.compiled(pattern)
    assert compiled is not None
    assert [text for text in yes if not compiled.fullmatch(text)] == []
    assert [text for text in no if compiled.fullmatch(text)] == []


def test_pattern_without_equal_is_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert patterns.compiled(r"\p{IsGreekish}") is None
    assert "IsGreekish" in caplog.text


def test_long_values_do_not_hang() -> None:
    began = time.monotonic()
    for text in ("a" * 200_000, "-" * 200_000, "a-" * 100_000 + "_"):
        refusal("sagemaker", "CreateTrainingJob", JOB | {"TrainingJobName": text})
        refusal("sagemaker", "DescribeEndpoint", {"EndpointName": text})
    assert time.monotonic() - began < 5
    assert re.fullmatch(NAME, "a")


def test_ten_errors_are_listed() -> None:
    text = refusal("sagemaker", "CreateTrainingJob", JOB | {"Tags": [{}] * 400_000})
    assert text is not None and text.startswith("10 validation errors detected: ")
    assert text.count("failed to satisfy constraint") == 10


def test_long_value_is_cut_off() -> None:
    for value in ("_" * 5_000_000, "€" * 5_000_000):
        text = refusal("sagemaker", "DescribeEndpoint", {"EndpointName": value})
        assert text is not None and f"Value '{value[:2048]}…' at 'endpointName'" in text
        assert len(text) < 10_000
    many = {"PolicySourceArn": "arn:aws:iam::1:role/x", "ActionNames": ["x"] * 1_000_000}
    text = refusal("iam", "SimulatePrincipalPolicy", many)
    assert text is not None and len(text) < 5_000


def test_long_list_of_right_values_is_shown_as_it_is() -> None:
    names = ["x" * 60] * 30
    many = {"PolicySourceArn": "arn:aws:iam::1:role/xxxxxxxxxxx", "ActionNames": [*names, "y"]}
    text = refusal("iam", "SimulatePrincipalPolicy", many)
    assert text is not None and f"Value '[{', '.join([*names, 'y'])}]'" in text
