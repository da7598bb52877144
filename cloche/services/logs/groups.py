"""Operations on groups and streams."""

import re
from typing import Any

from cloche.core import executors
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.resource import Resource
from cloche.services.logs.logs import Logs, StreamExtent, stream_name
from cloche.services.logs.lookup import find_group, find_stream, invalid
from cloche.services.logs.permissions import ALL_GROUPS, GROUP, STREAM, group_arns

PAGE = 50
TOKEN = re.compile(r"([0-9]{1,18})/(.*)", re.DOTALL)


@operation(permissions=[Permission("logs:CreateLogGroup", GROUP)])
async def create_log_group(
    call: Call[Logs], *, logGroupName: str, logGroupClass: str = "STANDARD"
) -> None:
    """Make a group."""
    if logGroupClass != "STANDARD":
        raise unsupported(f"the log group class {logGroupClass}", "STANDARD is.")
    try:
        await call.service.create_group(call.account, call.region, logGroupName)
    except AlreadyExists as error:
        message = "The specified log group already exists"
        raise AwsError("ResourceAlreadyExistsException", message) from error


@operation(permissions=[Permission("logs:DeleteLogGroup", GROUP)])
async def delete_log_group(call: Call[Logs], *, logGroupName: str) -> None:
    """Remove a group with all its streams."""
    group = find_group(call, logGroupName, None)
    try:
        await call.service.delete_group(group)
    except Conflict as error:
        raise aborted() from error


@operation(permissions=[Permission("logs:CreateLogStream", STREAM)])
async def create_log_stream(call: Call[Logs], *, logGroupName: str, logStreamName: str) -> None:
    """Make a stream."""
    group = find_group(call, logGroupName, None)
    try:
        await call.service.create_stream(call.account, call.region, group.name, logStreamName)
    except AlreadyExists as error:
        message = "The specified log stream already exists"
        raise AwsError("ResourceAlreadyExistsException", message) from error


@operation(permissions=[Permission("logs:DeleteLogStream", STREAM)])
async def delete_log_stream(call: Call[Logs], *, logGroupName: str, logStreamName: str) -> None:
    """Remove a stream with its events."""
    stream = find_stream(call, find_group(call, logGroupName, None), logStreamName)
    try:
        await call.service.delete_stream(stream)
    except Conflict as error:
        raise aborted() from error


def aborted() -> AwsError:
    """Return what AWS answers when two requests change one group or stream at once."""
    return AwsError(
        "OperationAbortedException",
        "A conflicting operation is currently in progress against this resource. Please try again.",
    )


@operation(permissions=[Permission("logs:DescribeLogGroups", ALL_GROUPS)], on=executors.LOGS)
def describe_log_groups(
    call: Call[Logs],
    *,
    logGroupNamePrefix: str | None = None,
    logGroupNamePattern: str | None = None,
    nextToken: str | None = None,
    limit: int = PAGE,
) -> dict[str, Any]:
    """Return the groups by name. `storedBytes` counts what their files hold now."""
    if logGroupNamePrefix is not None and logGroupNamePattern is not None:
        raise invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive")
    found = call.service.groups(
        call.account,
        call.region,
        logGroupNamePrefix or "",
        logGroupNamePattern or "",
        nextToken,
        limit + 1,
    )
    shown = found[:limit]
    groups = [described_group(each, call.service.stored_bytes(each)) for each in shown]
    result: dict[str, Any] = {"logGroups": groups}
    if len(found) > limit:
        result["nextToken"] = shown[-1].name
    return result


def described_group(group: Resource, stored: int) -> dict[str, Any]:
    """Return a group as the API shows it."""
    return {
        "logGroupName": group.name,
        "creationTime": to_ms(group.created),
        "metricFilterCount": 0,
        "arn": f"{group.arn}:*",
        "logGroupArn": group.arn,
        "storedBytes": stored,
        "logGroupClass": "STANDARD",
    }


@operation(permissions=[Permission("logs:DescribeLogStreams", group_arns)], on=executors.LOGS)
def describe_log_streams(
    call: Call[Logs],
    *,
    logGroupName: str | None = None,
    logGroupIdentifier: str | None = None,
    logStreamNamePrefix: str = "",
    orderBy: str = "LogStreamName",
    descending: bool = False,
    nextToken: str | None = None,
    limit: int = PAGE,
) -> dict[str, Any]:
    """Return a page of a group's streams; `nextToken` only when more remain.

    (SDK 2.x asks again for ever while there is a token.)
    """
    group = find_group(call, logGroupName, logGroupIdentifier)
    by_time = orderBy == "LastEventTime"
    if by_time and logStreamNamePrefix:
        raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    after = None if nextToken is None else place_of(nextToken)
    if by_time:
        page, more = newest(call.service, group, after, descending, limit)
    else:
        name = None if after is None else after[1]
        found = call.service.page(group, logStreamNamePrefix, name, descending, limit + 1)
        page = [((0, stream_name(each)), each) for each in found.resources[:limit]]
        more = len(found.resources) > limit
    streams = [stream for _, stream in page]
    result: dict[str, Any] = {
        "logStreams": [described_stream(each, call.service.extent(each)) for each in streams]
    }
    if more:
        result["nextToken"] = "{}/{}".format(*page[-1][0])
    return result


def newest(
    logs: Logs, group: Resource, after: tuple[int, str] | None, descending: bool, limit: int
) -> tuple[list[tuple[tuple[int, str], Resource]], bool]:
    """Return a page of streams by the time of their last events, and whether more remain.

    All are looked at, each read only when it has changed. Blocks: call it from a thread.
    """
    entries = [
        ((logs.extent(stream).last_ms or 0, stream_name(stream)), stream)
        for stream in logs.streams(group)
    ]
    if after is not None:
        entries = [e for e in entries if (e[0] < after if descending else e[0] > after)]
    entries.sort(key=lambda entry: entry[0], reverse=descending)
    return entries[:limit], len(entries) > limit


def place_of(token: str) -> tuple[int, str]:
    """Return where a page of streams ended: its last stream's time and name."""
    found = TOKEN.fullmatch(token)
    if found is None:
        raise invalid("The specified nextToken is invalid.")
    return int(found[1]), found[2]


def described_stream(stream: Resource, extent: StreamExtent) -> dict[str, Any]:
    """Return a stream as the API shows it; an empty one has no times of events."""
    shown: dict[str, Any] = {
        "logStreamName": stream_name(stream),
        "creationTime": to_ms(stream.created),
        "arn": stream.arn,
        "storedBytes": extent.stored_bytes,
    }
    if extent.first_ms is not None:
        shown |= {
            "firstEventTimestamp": extent.first_ms,
            "lastEventTimestamp": extent.last_ms,
            "lastIngestionTime": extent.ingested_ms,
        }
    return shown
