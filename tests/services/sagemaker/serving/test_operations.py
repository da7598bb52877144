"""Models, configurations and endpoints through boto3, on a whole platform; plain Python models."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving_client import ARN, IMAGE, PLAIN, Serving

from cloche.testing.platform import start


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with start(tmp_path_factory.mktemp("serving") / "home") as platform:
        made = Serving(platform)
        made.s3.create_bucket(Bucket="models")
        yield made


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    given = error.value.response["Error"]
    return given["Code"], given["Message"]


# ---------------------------------------------------------------------- one endpoint's life


def test_life_of_an_endpoint(serving: Serving) -> None:
    serving.model("life")
    config = serving.config("life")
    made = serving.sagemaker.create_endpoint(
        EndpointName="Life", EndpointConfigName=config, Tags=[{"Key": "team", "Value": "dogs"}]
    )
    assert made["EndpointArn"] == f"{ARN}:endpoint/life"
    assert serving.describe("Life")["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError) as error:
        serving.sagemaker.update_endpoint(EndpointName="Life", EndpointConfigName=config)
    text = f'Cannot update in-progress endpoint "{ARN}:endpoint/life".'
    assert refusal(error) == ("ValidationException", text)
    described = serving.settled("Life")
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == config
    [variant] = described["ProductionVariants"]
    assert variant["VariantName"] == "life"
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 1.0)
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    tags = serving.sagemaker.list_tags(ResourceArn=made["EndpointArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "dogs"}]

    answer = serving.runtime.invoke_endpoint(
        EndpointName="Life", Body=b"[1]", ContentType="application/json"
    )
    assert json.loads(answer["Body"].read()) == ["life", [1]]
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "life"

    # what it was made from may go
    serving.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    serving.sagemaker.delete_model(ModelName="life")
    assert serving.invoke("Life", 2) == ["life", 2]
    [gang] = serving.gangs("Life")
    folder = serving.platform.home.instances
    assert [p for p in folder.iterdir() if p.name.startswith("Life")]
    serving.delete("Life")
    assert not [p for p in folder.iterdir() if p.name.startswith("Life")]
    assert serving.platform.app.engine.see(gang) is None
    for call in (serving.sagemaker.describe_endpoint, serving.sagemaker.delete_endpoint):
        with pytest.raises(ClientError) as error:
            call(EndpointName="Life")
        text = f'Could not find endpoint "{ARN}:endpoint/life".'
        assert refusal(error) == ("ValidationException", text)
    with pytest.raises(ClientError) as error:
        serving.invoke("Life", 2)
    text = "Endpoint Life of account 123456789012 not found."
    assert refusal(error) == ("ValidationError", text)


def test_model_error_has_the_original_message_and_the_log(serving: Serving) -> None:
    serving.deploy("raises", serving.model("raises"))
    with pytest.raises(ClientError) as error:
        serving.invoke("raises", "fail")
    response: Any = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["Error"]["Code"] == "ModelError"
    original = response["OriginalMessage"]
    assert response["OriginalStatusCode"] == 500
    assert original.splitlines()[0] == "no such breed"
    assert original.splitlines()[-1] == "ValueError: no such breed"
    assert response["Error"]["Message"] == (
        f'Received server error (500) from primary with message "{original}". See '
        "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1"
        "#logEventViewer:group=/aws/sagemaker/Endpoints/raises in account 123456789012 for more "
        "information."
    )
    group, stream = response["LogStreamArn"].split(":log-group:")[1].split(":log-stream:")
    assert (group, stream.split("/")[0]) == ("/aws/sagemaker/Endpoints/raises", "raises")
    logs = serving.platform.client("logs")
    serving.until(
        lambda: [
            event["message"]
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True
            )["events"]
        ],
        lambda lines: "ValueError: no such breed" in lines,
    )
    serving.delete("raises")


def test_failing_model_fn_fails_the_endpoint_with_the_reason(serving: Serving) -> None:
    code = "def model_fn(model_dir):\n    raise OSError('no weights here')\n"
    described = serving.deploy("broken", serving.model("broken", code))
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"] == (
        "The primary container for production variant broken did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint. inference.py, line 2, in model_fn: "
        "OSError: no weights here"
    )
    with pytest.raises(ClientError) as error:
        serving.invoke("broken", 1)
    assert refusal(error)[0] == "ValidationError"
    serving.delete("broken")


def test_archive_that_is_none_fails_the_endpoint(serving: Serving) -> None:
    serving.s3.put_object(Bucket="models", Key="junk.tar.gz", Body=b"junk")
    serving.create_model("junk", ModelDataUrl="s3://models/junk.tar.gz")
    described = serving.deploy("junk", "junk")
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].startswith(
        'Failed to extract model data archive for container "container_1" from URL '
        '"s3://models/junk.tar.gz". Please ensure that the object located at the URL is a valid '
        "tar.gz archive."
    )
    serving.delete("junk")


def test_uncompressed_model_is_linked_and_cannot_be_changed(serving: Serving) -> None:
    code = PLAIN.replace(
        'return open(os.path.join(model_dir, "name")).read()',
        'p = os.path.join(model_dir, "name"); os.chmod(p, 0o777); open(p, "a").write("!"); '
        "return open(p).read()",
    )
    for key, text in (("name", "plain"), ("code/inference.py", code)):
        serving.s3.put_object(Bucket="models", Key=f"open/{key}", Body=text.encode())
    source = {"S3Uri": "s3://models/open/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    serving.create_model("open", ModelDataSource={"S3DataSource": source})
    serving.deploy("open", "open")
    assert serving.invoke("open", 1) == ["plain!", 1]
    assert serving.s3.get_object(Bucket="models", Key="open/name")["Body"].read() == b"plain"
    serving.delete("open")


# ---------------------------------------------------------------------- variants


def test_two_endpoints_and_two_variants_side_by_side(serving: Serving) -> None:
    serving.model("one")
    serving.model("two")
    serving.deploy("both", "one", "two")
    serving.deploy("single", "one")
    assert serving.invoke("single", 1) == ["one", 1]
    assert serving.invoke("both", 1, TargetVariant="two") == ["two", 1]
    assert {serving.invoke("both", 1)[0] for _ in range(60)} == {"one", "two"}
    with pytest.raises(ClientError) as error:
        serving.invoke("both", 1, TargetVariant="three")
    assert refusal(error) == ("ValidationError", "Variant three not found for Request.")

    serving.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="both",
        DesiredWeightsAndCapacities=[
            {"VariantName": "one", "DesiredWeight": 0.0},
            {"VariantName": "two", "DesiredInstanceCount": 2},
        ],
    )
    described = serving.settled("both")
    assert [v["CurrentInstanceCount"] for v in described["ProductionVariants"]] == [1, 2]
    assert {serving.invoke("both", 1)[0] for _ in range(20)} == {"two"}
    with pytest.raises(ClientError) as error:
        serving.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="both", DesiredWeightsAndCapacities=[{"VariantName": "three"}]
        )
    assert "three" in refusal(error)[1]
    many = [{"VariantName": "one", "DesiredInstanceCount": 17}]
    with pytest.raises(ClientError) as error:
        serving.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="both", DesiredWeightsAndCapacities=many
        )
    assert refusal(error) == (
        "ResourceLimitExceeded",
        "The account-level service limit 'ml.m5.large for endpoint usage' is 16 Instances, with "
        "current utilization of 4 Instances and a request delta of 16 Instances. Please use AWS "
        "Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
        "available, contact AWS support to request an increase for this quota.",
    )
    serving.delete("both")
    serving.delete("single")


# ---------------------------------------------------------------------- under load


class Load:
    """Clients that invoke an endpoint until told to stop; every error counts."""

    def __init__(self, serving: Serving, endpoint: str, clients: int = 4) -> None:
        self.stopped = threading.Event()
        self.answers: list[Any] = []
        self.of_client: list[list[Any]] = [[] for _ in range(clients)]
        self.errors: list[BaseException] = []

        def client(number: int) -> None:
            while not self.stopped.is_set():
                try:
                    answer = serving.invoke(endpoint, 1)[0]
                    self.answers.append(answer)
                    self.of_client[number].append(answer)
                except ClientError as error:
                    self.errors.append(error)

        self.pool = ThreadPoolExecutor(clients)
        self.running = [self.pool.submit(client, number) for number in range(clients)]

    def stop(self) -> None:
        self.stopped.set()
        self.pool.shutdown()
        for client in self.running:
            client.result()


def test_crashed_replica_is_replaced_without_a_failed_request(serving: Serving) -> None:
    serving.deploy("sturdy", serving.model("sturdy"), count=2)
    before = serving.gangs("sturdy")
    load = Load(serving, "sturdy")
    serving.until(lambda: len(load.answers), lambda n: n > 50)
    with pytest.raises(ClientError) as error:  # it crashes both it is tried on: no third
        serving.invoke("sturdy", "crash")
    assert refusal(error)[0] == "ModelError"
    assert "Worker died." in error.value.response["OriginalMessage"]  # type: ignore[typeddict-item]
    serving.until(
        lambda: serving.gangs("sturdy"), lambda now: len(now) == 2 and not set(now) & set(before)
    )
    many = len(load.answers)
    serving.until(lambda: len(load.answers), lambda n: n > many + 50)
    load.stop()
    assert load.errors == []
    assert serving.describe("sturdy")["EndpointStatus"] == "InService"
    serving.delete("sturdy")


def test_update_is_blue_green_without_a_failed_request(serving: Serving) -> None:
    serving.deploy("moving", serving.model("blue"))
    load = Load(serving, "moving")
    serving.until(lambda: len(load.answers), lambda n: n > 20)
    green = serving.config(serving.model("green"))
    serving.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName=green)
    described = serving.describe("moving")
    assert described["EndpointStatus"] in ("Updating", "InService")
    described = serving.settled("moving")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", green)
    serving.until(lambda: load.answers[-1], lambda model: model == "green")
    serving.until(lambda: len(serving.gangs("moving")), lambda n: n == 1)  # blue is gone

    code = "def model_fn(model_dir):\n    raise OSError('red has no weights')\n"
    red = serving.config(serving.model("red", code))
    serving.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName=red)
    described = serving.settled("moving")
    load.stop()
    assert load.errors == []
    for answers in load.of_client:
        assert answers == sorted(answers)  # blue, then green; never red
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", green)
    assert described["FailureReason"].endswith("OSError: red has no weights")
    serving.delete("moving")


# ---------------------------------------------------------------------- limits and refusals


def test_payload_limit(serving: Serving) -> None:
    code = """
    def model_fn(model_dir): return None
    def transform_fn(model, body, content_type, accept):
        return "x" * 6_291_457 if body == b"big" else str(len(body))
    """
    serving.deploy("sized", serving.model("sized", code))
    most = 6_291_456
    invoke = serving.runtime.invoke_endpoint
    answer = invoke(EndpointName="sized", Body=b"x" * most, ContentType="image/jpeg")
    assert answer["Body"].read() == str(most).encode()
    with pytest.raises(ClientError) as error:
        invoke(EndpointName="sized", Body=b"x" * (most + 1), ContentType="image/jpeg")
    text = (
        "1 validation error detected: Value at 'body' failed to satisfy constraint: "
        f"Member must have length less than or equal to {most}"
    )
    assert refusal(error) == ("ValidationError", text)
    with pytest.raises(ClientError) as error:
        invoke(EndpointName="sized", Body=b"big", ContentType="image/jpeg")
    response: Any = error.value.response
    text = f"The response of the container is larger than {most} bytes."
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (500, text)
    serving.delete("sized")


def test_model_that_takes_too_long(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    import time
    def model_fn(model_dir): return None
    def transform_fn(model, body, content_type, accept): time.sleep(float(body)); return "done"
    """
    serving.deploy("slow", serving.model("slow", code))
    router = serving.platform.app.sagemaker.router
    monkeypatch.setattr(router, "timeout_s", 0.2)
    with pytest.raises(ClientError) as error:
        serving.runtime.invoke_endpoint(EndpointName="slow", Body=b"1", ContentType="text/csv")
    monkeypatch.undo()
    response: Any = error.value.response
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 0)
    assert response["Error"]["Message"].startswith(
        'Received server error (0) from primary with message "Your invocation timed out while '
        "waiting for a response from container primary. Review the latency metrics for each "
        'container in Amazon CloudWatch, resolve the issue, and try again.". See https://'
    )
    answer = serving.runtime.invoke_endpoint(EndpointName="slow", Body=b"0", ContentType="text/csv")
    assert answer["Body"].read() == b"done"  # it waited for the first to end
    serving.delete("slow")


def test_refusals(serving: Serving) -> None:
    serving.model("refuse")
    cases: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: serving.model("refuse"),
            f'Cannot create already existing model "{ARN}:model/refuse".',
        ),
        (
            lambda: serving.sagemaker.describe_model(ModelName="nobody"),
            f'Could not find model "{ARN}:model/nobody".',
        ),
        (
            lambda: serving.config("nobody"),
            f'Could not find model "{ARN}:model/nobody".',
        ),
        (
            lambda: serving.sagemaker.create_endpoint(
                EndpointName="x", EndpointConfigName="nothing"
            ),
            f'Could not find endpoint configuration "{ARN}:endpoint-config/nothing".',
        ),
        (
            lambda: serving.create_model("none", ModelDataUrl="s3://models/none.tar.gz"),
            "Could not find model data at s3://models/none.tar.gz.",
        ),
        (
            lambda: serving.create_model("multi", Mode="MultiModel"),
            "Cloche does not support Mode MultiModel (multi-model endpoints).",
        ),
        (
            lambda: serving.config("refuse", InstanceType="ml.inf2.xlarge"),
            "Cloche does not support InstanceType ml.inf2.xlarge.",
        ),
        (
            lambda: serving.config(
                "refuse", ServerlessConfig={"MaxConcurrency": 1, "MemorySizeInMB": 1024}
            ),
            "Cloche does not support ServerlessConfig (serverless inference). "
            "Specify an InstanceType.",
        ),
    ]
    for call, text in cases:
        with pytest.raises(ClientError) as error:
            call()
        assert refusal(error) == ("ValidationException", text)


def test_other_ways_to_invoke_are_refused_by_name(serving: Serving) -> None:
    target = {"EndpointName": "nobody", "Body": b"x"}
    cases: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
        (serving.runtime.invoke_endpoint, {"TargetModel": "a.tar.gz"}, "TargetModel"),
        (serving.runtime.invoke_endpoint, {"SessionId": "NEW_SESSION"}, "SessionId"),
        (serving.runtime.invoke_endpoint, {"InferenceComponentName": "c"}, "InferenceComponent"),
        (
            serving.runtime.invoke_endpoint_with_response_stream,
            {},
            "InvokeEndpointWithResponseStream",
        ),
    ]
    for call, more, name in cases:
        with pytest.raises(ClientError) as error:
            call(**target, **more)
        assert name in refusal(error)[1]
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500
    with pytest.raises(ClientError) as error:
        serving.runtime.invoke_endpoint_async(EndpointName="nobody", InputLocation="s3://a/b")
    assert "InvokeEndpointAsync" in refusal(error)[1]


def test_lists_filter_sort_and_paginate(serving: Serving) -> None:
    for name in ("list-b", "list-a", "list-c"):
        serving.model(name)
    pages = serving.sagemaker.get_paginator("list_models").paginate(
        NameContains="list-", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    found = [[model["ModelName"] for model in page["Models"]] for page in pages]
    assert found == [["list-a", "list-b"], ["list-c"]]
    newest = serving.sagemaker.list_models(NameContains="list-", MaxResults=1)["Models"]
    assert newest[0]["ModelName"] == "list-c"
    container = serving.sagemaker.describe_model(ModelName="list-a")["PrimaryContainer"]
    assert (container["Mode"], container["Image"]) == ("SingleModel", IMAGE)
    config = serving.config("list-a")
    listed = serving.sagemaker.list_endpoint_configs(NameContains=config)["EndpointConfigs"]
    assert [c["EndpointConfigName"] for c in listed] == [config]
    described = serving.sagemaker.describe_endpoint_config(EndpointConfigName=config)
    assert described["ProductionVariants"][0]["InitialVariantWeight"] == 1.0


# ---------------------------------------------------------------------- the server restarts


def test_replicas_serve_on_when_the_server_restarts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with start(home) as platform:
        serving = Serving(platform)
        serving.s3.create_bucket(Bucket="models")
        code = PLAIN.replace("return [model, data]", "return os.environ['HOSTNAME'], PID").replace(
            "import json, os", "import json, os, secrets\nPID = secrets.token_hex()"
        )
        code = code.replace("os.environ['HOSTNAME']", "model")
        serving.deploy("lasting", serving.model("lasting", code))
        first, port = serving.invoke("lasting", 1), platform.app.config.port
        platform.stop(end_gangs=False)
    with start(home, port=port) as platform:
        serving = Serving(platform)
        assert serving.invoke("lasting", 1) == first  # the same process answers, at once
        assert serving.settled("lasting")["EndpointStatus"] == "InService"
        metrics = platform.client("cloudwatch")
        serving.until(
            lambda: {
                m["MetricName"]
                for m in metrics.list_metrics(
                    Dimensions=[{"Name": "EndpointName", "Value": "lasting"}]
                )["Metrics"]
            },
            lambda names: {"Invocations", "ModelLatency", "MemoryUtilization"} <= names,
        )
        serving.delete("lasting")
