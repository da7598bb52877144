"""Services that are signed for under the name of one that is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.testing.platform import Platform

CALLS: list[tuple[str, str, Callable[[Any], Any]]] = [
    (
        "sagemaker-featurestore-runtime",
        "GetRecord",
        lambda client: client.get_record(FeatureGroupName="f", RecordIdentifierValueAsString="1"),
    ),
    (
        "sagemaker-featurestore-runtime",
        "PutRecord",
        lambda client: client.put_record(
            FeatureGroupName="f", Record=[{"FeatureName": "a", "ValueAsString": "1"}]
        ),
    ),
    (
        "sagemaker-metrics",
        "BatchPutMetrics",
        lambda client: client.batch_put_metrics(
            TrialComponentName="t", MetricData=[{"MetricName": "m", "Timestamp": 0, "Value": 1}]
        ),
    ),
    (
        "sagemaker-a2i-runtime",
        "DescribeHumanLoop",
        lambda client: client.describe_human_loop(HumanLoopName="h"),
    ),
]


@pytest.mark.parametrize(("service", "operation", "call"), CALLS)
def test_a_service_that_is_not_here_is_named(
    platform: Platform, service: str, operation: str, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        call(platform.client(service))
    error = caught.value.response["Error"]
    assert error["Message"] == f"Cloche does not support the operation {operation} of {service}."
