"""PutMetricData."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import Permission, key
from cloche.records.metrics import Datapoint, MetricKey, of_values
from cloche.services.cloudwatch.metrics import CloudWatch, metric

LARGEST = 2.0**360  # API reference of MetricDatum, Value
OLDEST, NEWEST = timedelta(weeks=2), timedelta(hours=2)
DATA, VALUES, DIMENSIONS = 1000, 150, 30


def invalid(message: str) -> AwsError:
    """Return InvalidParameterValue."""
    return AwsError("InvalidParameterValue", message)


@operation(
    permissions=[
        Permission("cloudwatch:PutMetricData", keys=(key("cloudwatch:namespace", "Namespace"),))
    ]
)
async def put_metric_data(
    call: Call[CloudWatch], *, Namespace: str, MetricData: list[dict[str, Any]] | None = None
) -> None:
    """Write values of metrics, all or (when one is wrong) none."""
    if Namespace.startswith("AWS/"):
        raise invalid(f"The value {Namespace} for parameter Namespace is invalid.")
    if not MetricData:
        raise AwsError("MissingParameter", "The parameter MetricData is required.")
    if len(MetricData) > DATA:
        raise invalid(f"The collection MetricData must not have a size greater than {DATA}.")
    data: list[tuple[MetricKey, int, Datapoint]] = []
    for number, datum in enumerate(MetricData, 1):
        where = f"MetricData.member.{number}"
        which = metric(Namespace, datum["MetricName"], dimensions(where, datum))
        resolution_s = datum.get("StorageResolution", 60)
        if resolution_s not in (1, 60):
            raise invalid(
                f"The value {resolution_s} for parameter {where}.StorageResolution is invalid."
            )
        at_s = int(time_of(where, datum, call.now).timestamp())
        unit = datum.get("Unit", "None")
        data.append((which, resolution_s, datapoint(where, datum, at_s, unit)))
    await call.service.add(call.account, call.region, data)


def dimensions(where: str, datum: Mapping[str, Any]) -> dict[str, str]:
    """Return a datum's dimensions."""
    given = datum.get("Dimensions", [])
    if len(given) > DIMENSIONS:
        raise invalid(
            f"The collection {where}.Dimensions must not have a size greater than {DIMENSIONS}."
        )
    found = {one["Name"]: one["Value"] for one in given}
    if len(found) < len(given):
        raise invalid(f"The parameter {where}.Dimensions names a dimension more than once.")
    return found


def time_of(where: str, datum: Mapping[str, Any], now: datetime) -> datetime:
    """Return when a datum was measured: now, unless it says."""
    at: datetime = datum.get("Timestamp", now)
    if not now - OLDEST <= at <= now + NEWEST:
        raise invalid(
            f"The parameter {where}.Timestamp must specify a time within the past two weeks."
        )
    return at


def datapoint(where: str, datum: Mapping[str, Any], at_s: int, unit: str) -> Datapoint:
    """Return a datum's one value, its values with counts, or its statistic set."""
    given = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if not given:
        message = (
            f"At least one of the parameters {where}.Value, {where}.Values or "
            f"{where}.StatisticValues must be specified."
        )
        raise AwsError("MissingParameter", message)
    if len(given) > 1:
        raise AwsError(
            "InvalidParameterCombination",
            f"The parameters {where}.{given[0]} and {where}.{given[1]} are mutually exclusive "
            "and you have specified both.",
        )
    if "Counts" in datum and given != ["Values"]:
        message = f"The parameter {where}.Counts can be specified only with {where}.Values."
        raise AwsError("InvalidParameterCombination", message)
    if given == ["StatisticValues"]:
        return statistic_set(f"{where}.StatisticValues", datum["StatisticValues"], at_s, unit)
    if given == ["Value"]:
        return of_values(at_s, unit, ((finite(f"{where}.Value", datum["Value"]), 1.0),))
    if not datum["Values"]:
        raise AwsError("MissingParameter", f"The parameter {where}.Values is required.")
    values = [finite(f"{where}.Values", value) for value in datum["Values"]]
    counts = [
        finite(f"{where}.Counts", count) for count in datum.get("Counts", [1.0] * len(values))
    ]
    if len(counts) != len(values):
        raise invalid(f"The parameters {where}.Values and {where}.Counts must be of the same size.")
    if len(values) > VALUES:
        raise invalid(f"The collection {where}.Values must not have a size greater than {VALUES}.")
    if any(count <= 0 for count in counts):
        raise invalid(f"The value {min(counts)} for parameter {where}.Counts is invalid.")
    return of_values(at_s, unit, tuple(zip(values, counts, strict=True)))


def statistic_set(where: str, given: Mapping[str, float], at_s: int, unit: str) -> Datapoint:
    """Return the datapoint of a statistic set: without values unless all are equal."""
    count, total, low, high = (
        finite(f"{where}.{name}", given[name])
        for name in ("SampleCount", "Sum", "Minimum", "Maximum")
    )
    if count <= 0:
        raise invalid(f"The value {count} for parameter {where}.SampleCount is invalid.")
    if low > high:
        raise invalid(
            f"The parameter {where}.Maximum must be greater than or equal to {where}.Minimum."
        )
    return Datapoint(
        at_s=at_s,
        unit=unit,
        count=count,
        total=total,
        minimum=low,
        maximum=high,
        samples=((low, count),) if low == high else None,
    )


def finite(where: str, value: float) -> float:
    """Return a number; InvalidParameterValue for NaN, infinities and what is too large."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        shown = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, value)
        raise invalid(
            f"The value {'NaN' if math.isnan(value) else shown} for parameter {where} is invalid."
        )
    return float(value)
