"""GetMetricStatistics, GetMetricData and ListMetrics."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from cloche.core import executors
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.records.metrics import Datapoint, MetricKey, combine
from cloche.services.cloudwatch.metrics import CloudWatch, metric, moment, percentile
from cloche.services.cloudwatch.write import invalid

MOST_DATAPOINTS, MOST_DATA = 1440, 100_800
PAGE = 500  # metrics of one ListMetrics answer
LISTED, RECENT = timedelta(weeks=2), timedelta(hours=3)
FINE_PERIODS_S = (1, 5, 10, 20, 30)
STATISTICS: Mapping[str, Callable[[Datapoint], float]] = {
    "SampleCount": lambda point: point.count,
    "Average": lambda point: point.total / point.count,
    "Sum": lambda point: point.total,
    "Minimum": lambda point: point.minimum,
    "Maximum": lambda point: point.maximum,
}
PERCENTILE = re.compile(r"p([0-9]{1,2}(\.[0-9]{0,10})?|100)")
NUMBER = re.compile(r"[0-9]{1,18}")
OTHER_STATISTIC = re.compile(r"(tm|tc|ts|wm|pr|iqm)", re.IGNORECASE)


@operation(permissions=[Permission("cloudwatch:GetMetricStatistics")], on=executors.RECORDS)
def get_metric_statistics(
    call: Call[CloudWatch],
    *,
    Namespace: str,
    MetricName: str,
    StartTime: datetime,
    EndTime: datetime,
    Period: int,
    Dimensions: list[dict[str, str]] | None = None,
    Statistics: list[str] | None = None,
    ExtendedStatistics: list[str] | None = None,
    Unit: str | None = None,
) -> dict[str, Any]:
    """Return a metric's datapoints by period, oldest first; those of each unit by themselves."""
    if not Statistics and not ExtendedStatistics:
        message = (
            "At least one of the parameters Statistics and ExtendedStatistics must be specified."
        )
        raise AwsError("InvalidParameterCombination", message)
    check_range(StartTime, EndTime)
    check_period(Period, "Period")
    percents = {name: percent_of(name, "ExtendedStatistics") for name in ExtendedStatistics or []}
    wanted = (EndTime - StartTime).total_seconds() / Period
    if wanted > MOST_DATAPOINTS:
        raise AwsError(
            "InvalidParameterCombination",
            f"You have requested up to {int(wanted):,} datapoints, which exceeds the limit of "
            f"{MOST_DATAPOINTS:,}. You may reduce the datapoints requested by increasing Period, "
            "or decreasing the time range.",
        )
    which = metric(Namespace, MetricName, pairs(Dimensions))
    found = points(call, which, StartTime, EndTime, Period, Unit)
    return {
        "Label": MetricName,
        "Datapoints": [shown(point, Statistics or [], percents) for point in found],
    }


def points(
    call: Call[CloudWatch],
    which: MetricKey,
    start: datetime,
    end: datetime,
    period_s: int,
    unit: str | None,
) -> list[Datapoint]:
    """Return a metric's datapoints, of one unit if it is given."""
    found = call.service.points(
        call.account,
        call.region,
        which,
        start=start,
        end=end,
        period_s=period_s,
        now=call.now,
    )
    return [point for point in found if unit in (None, point.unit)]


def shown(
    point: Datapoint, statistics: Sequence[str], percents: Mapping[str, float]
) -> dict[str, Any]:
    """Return a datapoint with the statistics asked for; percentiles only where known."""
    result: dict[str, Any] = {"Timestamp": moment(point.at_s), "Unit": point.unit}
    result |= {name: STATISTICS[name](point) for name in statistics}
    extended = {name: percentile(point, percent) for name, percent in percents.items()}
    known = {name: value for name, value in extended.items() if value is not None}
    return result | ({"ExtendedStatistics": known} if known else {})


@operation(permissions=[Permission("cloudwatch:GetMetricData")], on=executors.RECORDS)
def get_metric_data(
    call: Call[CloudWatch],
    *,
    MetricDataQueries: list[dict[str, Any]],
    StartTime: datetime,
    EndTime: datetime,
    NextToken: str | None = None,
    ScanBy: str = "TimestampDescending",
    MaxDatapoints: int = MOST_DATA,
) -> dict[str, Any]:
    """Return the values of several metrics. Expressions are refused.

    A page holds `MaxDatapoints` values over all queries; those of the first queries come first.
    """
    check_range(StartTime, EndTime)
    ids = [query["Id"] for query in MetricDataQueries]
    if len(set(ids)) < len(ids):
        message = "The values for parameter id in MetricDataQueries are not unique."
        raise AwsError("ValidationError", message)
    skip = page_start(NextToken)
    left, taken, more = min(MaxDatapoints, MOST_DATA), 0, False
    results: list[dict[str, Any]] = []
    for number, query in enumerate(MetricDataQueries, 1):
        series = values_of(call, query, f"MetricDataQueries.member.{number}", StartTime, EndTime)
        if not query.get("ReturnData", True):
            continue
        if ScanBy == "TimestampDescending":
            series.reverse()
        begin = min(len(series), max(0, skip))
        page = series[begin : begin + left]
        skip, left, taken = skip - len(series), left - len(page), taken + len(page)
        partial = begin + len(page) < len(series)
        more = more or partial
        results.append(
            {
                "Id": query["Id"],
                "Label": query.get("Label") or query["MetricStat"]["Metric"]["MetricName"],
                "Timestamps": [moment(at_s) for at_s, _ in page],
                "Values": [value for _, value in page],
                "StatusCode": "PartialData" if partial else "Complete",
            }
        )
    answer: dict[str, Any] = {"MetricDataResults": results, "Messages": []}
    if more:
        answer["NextToken"] = json.dumps(page_start(NextToken) + taken)
    return answer


def values_of(
    call: Call[CloudWatch], query: Mapping[str, Any], where: str, start: datetime, end: datetime
) -> list[tuple[int, float]]:
    """Return one query's times (seconds since 1970) and values, oldest first."""
    if "Expression" in query:
        raise unsupported(
            f"expressions in GetMetricData ({query['Expression']})", "Ask for the metrics."
        )
    if "MetricStat" not in query:
        message = f"The parameter {where}.MetricStat is required."
        raise AwsError("MissingParameter", message)
    if "${" in query.get("Label", ""):
        raise unsupported("dynamic labels in GetMetricData (${…})")
    if query.get("AccountId", call.account) != call.account:
        raise unsupported("metrics of another account in GetMetricData (AccountId)")
    stat = query["MetricStat"]
    check_period(stat["Period"], f"{where}.MetricStat.Period")
    name = stat["Stat"]
    percent = None if name in STATISTICS else percent_of(name, f"{where}.MetricStat.Stat")
    asked = stat["Metric"]
    if not asked.get("Namespace") or not asked.get("MetricName"):
        message = f"The parameter {where}.MetricStat.Metric is not complete."
        raise AwsError("MissingParameter", message)
    which = metric(asked["Namespace"], asked["MetricName"], pairs(asked.get("Dimensions")))
    found = points(call, which, start, end, stat["Period"], stat.get("Unit"))
    series: list[tuple[int, float]] = []
    for at_s, same in groupby(found, key=lambda point: point.at_s):
        point = combine(list(same))  # several units
        value = STATISTICS[name](point) if percent is None else percentile(point, percent)
        if value is not None:
            series.append((at_s, value))
    return series


def page_start(token: str | None) -> int:
    """Return how many values the pages before held."""
    if token is None:
        return 0
    if not NUMBER.fullmatch(token):
        raise AwsError("InvalidNextToken", "The next token specified is invalid.")
    return int(token)


@operation(permissions=[Permission("cloudwatch:ListMetrics")], on=executors.RECORDS)
def list_metrics(
    call: Call[CloudWatch],
    *,
    Namespace: str | None = None,
    MetricName: str | None = None,
    Dimensions: list[dict[str, str]] | None = None,
    NextToken: str | None = None,
    RecentlyActive: str | None = None,
) -> dict[str, Any]:
    """Return metrics with data in the past two weeks (or 3 hours: `PT3H`), 500 a page."""
    since = call.now - (RECENT if RecentlyActive == "PT3H" else LISTED)
    if NextToken is not None and not NUMBER.fullmatch(NextToken):
        raise invalid("Request parameter NextToken is invalid")
    after, found = int(NextToken or 0), list[tuple[int, MetricKey]]()
    while len(found) <= PAGE:
        batch = call.service.named(
            call.account,
            call.region,
            namespace=Namespace,
            name=MetricName,
            since=since,
            after=after,
            limit=PAGE + 1,
        )
        found += [(row, which) for row, which in batch if fits(which, Dimensions or [])]
        if len(batch) <= PAGE:
            break
        after = batch[-1][0]
    result: dict[str, Any] = {"Metrics": [named(which) for _, which in found[:PAGE]]}
    if len(found) > PAGE:
        result["NextToken"] = str(found[PAGE - 1][0])
    return result


def fits(which: MetricKey, filters: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether a metric has all the dimensions asked for (a name alone: any value)."""
    has = dict(which.dimensions)
    return all(
        one["Name"] in has and one.get("Value") in (None, has[one["Name"]]) for one in filters
    )


def named(which: MetricKey) -> dict[str, Any]:
    """Return a metric as the API shows it."""
    return {
        "Namespace": which.namespace,
        "MetricName": which.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in which.dimensions],
    }


def pairs(dimensions: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Return dimensions as a mapping."""
    return {one["Name"]: one["Value"] for one in dimensions or []}


def check_range(start: datetime, end: datetime) -> None:
    """Raise unless the range has any time in it."""
    if start == end:
        raise invalid("The parameter StartTime must not equal parameter EndTime.")
    if start > end:
        raise invalid("The parameter StartTime must be less than the parameter EndTime.")


def check_period(period_s: int, where: str) -> None:
    """Raise unless a period is whole minutes, or one of those that are shorter."""
    if period_s not in FINE_PERIODS_S and (period_s < 60 or period_s % 60):
        raise invalid(f"The value {period_s} for parameter {where} is invalid.")


def percent_of(statistic: str, where: str) -> float:
    """Return the percent of a percentile statistic (`p99.9`)."""
    if (found := PERCENTILE.fullmatch(statistic)) is not None:
        return float(found[1])
    if OTHER_STATISTIC.match(statistic):
        raise unsupported(f"the statistic {statistic}", "Percentiles are (p99).")
    raise invalid(f"The value {statistic} for parameter {where} is not supported.")
