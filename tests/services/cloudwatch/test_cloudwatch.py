"""CloudWatch metrics through boto3, and as other services write them."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.services.cloudwatch import Datum
from cloche.testing.platform import ACCOUNT, Platform

# A whole minute some minutes ago: metrics of the future or of long ago are refused.
START = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
DIMENSION = [{"Name": "TrainingJobName", "Value": "job"}]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@cache
def client(platform: Platform, service: str) -> Any:
    """Return a client; making one takes longer than most requests."""
    return platform.client(service)


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def statistics(platform: Platform, namespace: str, **asked: Any) -> dict[str, Any]:
    defaults = {
        "MetricName": "loss",
        "StartTime": START,
        "EndTime": at(300),
        "Period": 60,
        "Statistics": ["Average"],
    }
    answer: dict[str, Any] = client(platform, "cloudwatch").get_metric_statistics(
        Namespace=namespace, **{**defaults, **asked}
    )
    return answer


def put(platform: Platform, namespace: str, **datum: Any) -> None:
    client(platform, "cloudwatch").put_metric_data(
        Namespace=namespace, MetricData=[{"MetricName": "loss", "Timestamp": START, **datum}]
    )


def query(namespace: str, name: str = "loss", **stat: Any) -> dict[str, Any]:
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": []}
    return {
        "Id": "q",
        "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Average", **stat},
    }


def test_what_services_put_is_read_as_the_sdk_does(platform: Platform) -> None:
    data = [
        Datum("loss", {"TrainingJobName": "job"}, at(second), 1 / (1 + second))
        for second in range(120)
    ]
    cloudwatch = platform.app.cloudwatch
    platform.call(cloudwatch.put(ACCOUNT, "us-east-1", "/aws/sagemaker/TrainingJobs", data))
    answer = statistics(platform, "/aws/sagemaker/TrainingJobs", Dimensions=DIMENSION)
    assert answer["Label"] == "loss"
    first, second = answer["Datapoints"]
    assert (first["Timestamp"], second["Timestamp"]) == (START, at(60))
    assert first["Average"] == pytest.approx(sum(d.value for d in data[:60]) / 60)
    assert first["Unit"] == "None" and "Sum" not in first
    other = statistics(platform, "/aws/sagemaker/TrainingJobs")  # without dimensions: another
    assert other["Datapoints"] == []


def test_short_periods_show_single_seconds(platform: Platform) -> None:
    data = [Datum("cpu", {}, at(second), float(second), "Percent") for second in range(20)]
    platform.call(platform.app.cloudwatch.put(ACCOUNT, "us-east-1", "fine", data))
    for period, values in ((1, [float(n) for n in range(20)]), (5, [2.0, 7.0, 12.0, 17.0])):
        answer = statistics(platform, "fine", MetricName="cpu", Period=period)
        assert [point["Average"] for point in answer["Datapoints"]] == values
    assert refused(
        client(platform, "cloudwatch").get_metric_statistics,
        Namespace="fine",
        MetricName="cpu",
        StartTime=START,
        EndTime=at(60),
        Period=7,
        Statistics=["Sum"],
    ) == ("InvalidParameterValue", "The value 7 for parameter Period is invalid.")


def test_all_statistics(platform: Platform) -> None:
    put(platform, "stats", Values=[1.0, 2.0, 10.0], Counts=[2.0, 1.0, 1.0], Unit="Seconds")
    put(platform, "stats", Value=6.0, Unit="Seconds")
    (point,) = statistics(
        platform,
        "stats",
        Statistics=["SampleCount", "Average", "Sum", "Minimum", "Maximum"],
        ExtendedStatistics=["p50", "p99.9"],
    )["Datapoints"]
    extended = point.pop("ExtendedStatistics")
    assert point == {
        "Timestamp": START,
        "Unit": "Seconds",
        "SampleCount": 5.0,
        "Average": 4.0,
        "Sum": 20.0,
        "Minimum": 1.0,
        "Maximum": 10.0,
    }
    assert extended["p50"] == 2.0 and 9.9 < extended["p99.9"] < 10
    assert statistics(platform, "stats", Unit="Count")["Datapoints"] == []


def test_statistic_sets_have_no_percentiles(platform: Platform) -> None:
    values = {"SampleCount": 4.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 4.0}
    put(platform, "sets", StatisticValues=values)
    (point,) = statistics(platform, "sets", ExtendedStatistics=["p99"])["Datapoints"]
    assert point["Average"] == 2.5 and "ExtendedStatistics" not in point


def test_put_is_refused_in_the_words_of_aws(platform: Platform) -> None:
    cloudwatch = client(platform, "cloudwatch")
    where = "MetricData.member.1"
    now = datetime.now(UTC)
    for datum, expected in (
        (
            {"Value": math.nan},
            ("InvalidParameterValue", f"The value NaN for parameter {where}.Value is invalid."),
        ),
        (
            {"Value": math.inf},
            (
                "InvalidParameterValue",
                f"The value Infinity for parameter {where}.Value is invalid.",
            ),
        ),
        (
            {"Value": 1.0, "Timestamp": now - timedelta(days=15)},
            (
                "InvalidParameterValue",
                f"The parameter {where}.Timestamp must specify a time within the past two weeks.",
            ),
        ),
        (
            {"Value": 1.0, "Values": [1.0]},
            (
                "InvalidParameterCombination",
                f"The parameters {where}.Value and {where}.Values are mutually exclusive and you "
                "have specified both.",
            ),
        ),
        (
            {"Values": [1.0, 2.0], "Counts": [1.0]},
            (
                "InvalidParameterValue",
                f"The parameters {where}.Values and {where}.Counts must be of the same size.",
            ),
        ),
    ):
        data = [{"MetricName": "loss", **datum}]
        found = refused(cloudwatch.put_metric_data, Namespace="bad", MetricData=data)
        assert found == expected
    data = [{"MetricName": "loss", "Value": 1.0}]
    assert refused(cloudwatch.put_metric_data, Namespace="AWS/EC2", MetricData=data) == (
        "InvalidParameterValue",
        "The value AWS/EC2 for parameter Namespace is invalid.",
    )
    with pytest.raises(cloudwatch.exceptions.InvalidParameterValueException):
        cloudwatch.put_metric_data(Namespace="AWS/EC2", MetricData=data)
    assert statistics(platform, "bad")["Datapoints"] == []


def test_too_many_datapoints(platform: Platform) -> None:
    cloudwatch = client(platform, "cloudwatch")
    asked = {"Namespace": "n", "MetricName": "m", "Statistics": ["Sum"]}
    day = {"StartTime": START - timedelta(days=2), "EndTime": START}
    assert refused(cloudwatch.get_metric_statistics, **asked, **day, Period=60) == (
        "InvalidParameterCombination",
        "You have requested up to 2,880 datapoints, which exceeds the limit of 1,440. You may "
        "reduce the datapoints requested by increasing Period, or decreasing the time range.",
    )
    backwards = {"StartTime": START, "EndTime": START - timedelta(hours=1)}
    assert refused(cloudwatch.get_metric_statistics, **asked, **backwards, Period=60) == (
        "InvalidParameterValue",
        "The parameter StartTime must be less than the parameter EndTime.",
    )
    message = refused(
        cloudwatch.get_metric_statistics,
        Namespace="n",
        MetricName="m",
        StartTime=START,
        EndTime=at(60),
        Period=60,
        ExtendedStatistics=["tm90"],
    )[1]
    assert "does not support the statistic tm90" in message


# ---------------------------------------------------------------------- GetMetricData


def test_metric_data(platform: Platform) -> None:
    for second, value in ((0, 1.0), (60, 2.0), (120, 4.0)):
        put(platform, "data", Value=value, Timestamp=at(second))
    cloudwatch = client(platform, "cloudwatch")
    ends = {"StartTime": START, "EndTime": at(300)}
    newest = cloudwatch.get_metric_data(MetricDataQueries=[query("data")], **ends)
    (result,) = newest["MetricDataResults"]
    assert (result["Id"], result["Label"], result["StatusCode"]) == ("q", "loss", "Complete")
    assert result["Values"] == [4.0, 2.0, 1.0]
    assert result["Timestamps"] == [at(120), at(60), START]
    queries = [
        {**query("data", Stat="Sum", Period=300), "Id": "sum", "Label": "all of it"},
        {**query("data", Stat="p100", Period=300), "Id": "most"},
        {**query("nothing"), "Id": "none"},
        {**query("data"), "Id": "hidden", "ReturnData": False},
    ]
    answer = cloudwatch.get_metric_data(MetricDataQueries=queries, **ends)["MetricDataResults"]
    assert [(r["Id"], r["Label"], r["Values"]) for r in answer] == [
        ("sum", "all of it", [7.0]),
        ("most", "loss", [4.0]),
        ("none", "loss", []),
    ]


def test_metric_data_pages(platform: Platform) -> None:
    for second in range(0, 300, 60):
        put(platform, "paged", Value=float(second), Timestamp=at(second))
    queries = [query("paged"), {**query("paged", Stat="Sum"), "Id": "again"}]
    pages = (
        client(platform, "cloudwatch")
        .get_paginator("get_metric_data")
        .paginate(
            MetricDataQueries=queries,
            StartTime=START,
            EndTime=at(300),
            ScanBy="TimestampAscending",
            PaginationConfig={"PageSize": 4},
        )
    )
    found: dict[str, list[float]] = {"q": [], "again": []}
    sizes = []
    for page in pages:
        sizes.append(sum(len(result["Values"]) for result in page["MetricDataResults"]))
        for result in page["MetricDataResults"]:
            found[result["Id"]] += result["Values"]
    assert sizes == [4, 4, 2]
    assert found == {"q": [0.0, 60.0, 120.0, 180.0, 240.0], "again": found["q"]}


def test_metric_data_refuses_by_name(platform: Platform) -> None:
    cloudwatch = client(platform, "cloudwatch")
    ends = {"StartTime": START, "EndTime": at(300)}
    expression = [{"Id": "e", "Expression": "SUM(METRICS())"}]
    _, message = refused(cloudwatch.get_metric_data, MetricDataQueries=expression, **ends)
    assert "expressions in GetMetricData (SUM(METRICS()))" in message
    twice = [query("n"), query("n")]
    assert refused(cloudwatch.get_metric_data, MetricDataQueries=twice, **ends) == (
        "ValidationError",
        "The values for parameter id in MetricDataQueries are not unique.",
    )


# ---------------------------------------------------------------------- ListMetrics


def test_list_metrics(platform: Platform) -> None:
    cloudwatch = client(platform, "cloudwatch")
    now = datetime.now(UTC)
    platform.call(
        platform.app.cloudwatch.put(
            ACCOUNT,
            "us-east-1",
            "listed",
            [
                Datum("a", {"Host": "one", "Job": "x"}, now, 1.0),
                Datum("a", {"Host": "two"}, now - timedelta(hours=5), 1.0),
                Datum("b", {}, now - timedelta(days=15), 1.0),  # not listed any more
            ],
        )
    )

    def listed(**asked: Any) -> list[dict[str, str]]:
        found = cloudwatch.list_metrics(Namespace="listed", **asked)["Metrics"]
        return [{one["Name"]: one["Value"] for one in m["Dimensions"]} for m in found]

    one, two = {"Host": "one", "Job": "x"}, {"Host": "two"}
    assert listed() == [one, two]
    assert listed(MetricName="b") == []
    assert listed(Dimensions=[{"Name": "Host"}]) == [one, two]
    assert listed(Dimensions=[{"Name": "Host", "Value": "two"}]) == [two]
    assert listed(Dimensions=[{"Name": "Job"}]) == [one]
    assert listed(RecentlyActive="PT3H") == [one]


@pytest.mark.parametrize("token", ["9" * 30, "²", "-1", "x"])
def test_tokens_that_are_none(platform: Platform, token: str) -> None:
    cloudwatch = client(platform, "cloudwatch")
    assert refused(cloudwatch.list_metrics, NextToken=token) == (
        "InvalidParameterValue",
        "Request parameter NextToken is invalid",
    )
    asked = {"MetricDataQueries": [query("n")], "StartTime": START, "EndTime": at(60)}
    assert refused(cloudwatch.get_metric_data, **asked, NextToken=token)[0] == "InvalidNextToken"


def test_list_metrics_pages(platform: Platform) -> None:
    now = datetime.now(UTC)
    data = [Datum("m", {"N": f"{n:04d}"}, now, 1.0) for n in range(1203)]
    platform.call(platform.app.cloudwatch.put(ACCOUNT, "us-east-1", "paged-names", data))
    paginator = client(platform, "cloudwatch").get_paginator("list_metrics")
    pages = [len(p["Metrics"]) for p in paginator.paginate(Namespace="paged-names")]
    assert pages == [500, 500, 203]


def test_accounts_regions_are_apart(platform: Platform) -> None:
    put(platform, "here", Value=1.0)
    elsewhere = platform.client("cloudwatch", region="eu-west-1")
    assert elsewhere.list_metrics(Namespace="here")["Metrics"] == []
