"""CloudWatch Logs through boto3 and the AWS CLI."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.testing.platform import ACCOUNT, Platform

START = 1_700_000_000_000
GROUPS = "/aws/sagemaker/TrainingJobs"


@cache
def client(platform: Platform, service: str) -> Any:
    """Return a client; making one takes longer than most requests."""
    return platform.client(service, as_="admin")


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def stream(platform: Platform, group: str, name: str, times: range, text: str = "line") -> Path:
    """Make a stream as the engine's supervisor writes it: another process appends to the file."""
    opened = platform.app.logs.open_stream(ACCOUNT, "us-east-1", group, name)
    path: Path = platform.call(opened)
    with path.open("a") as file:
        file.writelines(f"{START + n} {text} {n}\n" for n in times)
    return path


def texts(answer: dict[str, Any]) -> list[str]:
    return [event["message"] for event in answer["events"]]


# ---------------------------------------------------------------------- what is not there


def test_unknown_group_and_stream(platform: Platform) -> None:
    logs = client(platform, "logs")
    group = ("ResourceNotFoundException", "The specified log group does not exist.")
    assert refused(logs.describe_log_streams, logGroupName="none") == group
    assert refused(logs.filter_log_events, logGroupName="none") == group
    assert refused(logs.get_log_events, logGroupName="none", logStreamName="s") == group
    assert refused(logs.delete_log_group, logGroupName="none") == group
    logs.create_log_group(logGroupName="empty")
    missing = ("ResourceNotFoundException", "The specified log stream does not exist.")
    assert refused(logs.get_log_events, logGroupName="empty", logStreamName="s") == missing
    assert refused(logs.delete_log_stream, logGroupName="empty", logStreamName="s") == missing
    names = {"logGroupName": "empty", "logStreamNames": ["s"]}
    assert refused(logs.filter_log_events, **names) == missing
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.describe_log_streams(logGroupName="none")
    assert refused(logs.put_retention_policy, logGroupName="empty", retentionInDays=7)[1].count(
        "PutRetentionPolicy"
    )


def test_made_twice(platform: Platform) -> None:
    logs = client(platform, "logs")
    logs.create_log_group(logGroupName="twice")
    logs.create_log_stream(logGroupName="twice", logStreamName="s")
    assert refused(logs.create_log_group, logGroupName="twice") == (
        "ResourceAlreadyExistsException",
        "The specified log group already exists",
    )
    assert refused(logs.create_log_stream, logGroupName="twice", logStreamName="s") == (
        "ResourceAlreadyExistsException",
        "The specified log stream already exists",
    )


# ---------------------------------------------------------------------- GetLogEvents


def test_pages_forward_until_the_token_stays(platform: Platform) -> None:
    logs = client(platform, "logs")
    path = stream(platform, GROUPS, "job-a/algo-1-1", range(25))
    where = {"logGroupName": GROUPS, "logStreamName": "job-a/algo-1-1"}
    pages, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        answer = logs.get_log_events(**where, startFromHead=True, limit=10, **more)
        if answer["nextForwardToken"] == token:
            assert answer["events"] == []
            break
        pages.append(len(answer["events"]))
        token = answer["nextForwardToken"]
    assert pages == [10, 10, 5]
    with path.open("a") as file:
        file.write(f"{START + 25} line 25\n{START + 26} not yet whole")
    answer = logs.get_log_events(**where, nextToken=token)
    assert texts(answer) == ["line 25"]
    assert answer["events"][0]["timestamp"] == START + 25


def test_newest_first_then_backward(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, GROUPS, "job-b/algo-1-1", range(7))
    where = {"logGroupName": GROUPS, "logStreamName": "job-b/algo-1-1"}
    answer = logs.get_log_events(**where, limit=3)
    assert texts(answer) == ["line 4", "line 5", "line 6"]
    answer = logs.get_log_events(**where, limit=3, nextToken=answer["nextBackwardToken"])
    assert texts(answer) == ["line 1", "line 2", "line 3"]
    answer = logs.get_log_events(**where, limit=3, nextToken=answer["nextBackwardToken"])
    assert texts(answer) == ["line 0"]
    first = answer["nextBackwardToken"]
    answer = logs.get_log_events(**where, limit=3, nextToken=first)
    assert (answer["events"], answer["nextBackwardToken"]) == ([], first)


def test_time_range(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, GROUPS, "job-c/algo-1-1", range(10))
    where = {"logGroupName": GROUPS, "logStreamName": "job-c/algo-1-1"}
    ends = {"startTime": START + 3, "endTime": START + 6}  # the end is not part of it
    for head in (True, False):
        answer = logs.get_log_events(**where, **ends, startFromHead=head)
        assert texts(answer) == ["line 3", "line 4", "line 5"]
    again = logs.get_log_events(
        **where, **ends, startFromHead=True, nextToken=answer["nextForwardToken"]
    )
    assert again["events"] == []
    assert again["nextForwardToken"] == answer["nextForwardToken"]
    late = logs.get_log_events(**where, startTime=START + 100, startFromHead=True)
    assert late["events"] == []


def test_a_page_holds_a_megabyte(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, GROUPS, "job-d/algo-1-1", range(12), "x" * 200_000)
    where = {"logGroupName": GROUPS, "logStreamName": "job-d/algo-1-1", "startFromHead": True}
    answer = logs.get_log_events(**where)
    assert len(answer["events"]) == 5
    assert len(logs.get_log_events(**where, nextToken=answer["nextForwardToken"])["events"]) == 5


def test_invalid_tokens(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, GROUPS, "job-e/algo-1-1", range(3))
    where = {"logGroupName": GROUPS, "logStreamName": "job-e/algo-1-1"}
    expected = ("InvalidParameterException", "The specified nextToken is invalid.")
    for token in ("nonsense", "f/000000000000000003/s"):
        assert refused(logs.get_log_events, **where, nextToken=token) == expected
    for call in (logs.filter_log_events, logs.describe_log_streams):
        assert refused(call, logGroupName=GROUPS, nextToken="nonsense") == expected
    for token in ("[" * 5000, "9" * 30 + "/x", "²/x"):
        found = refused(logs.describe_log_streams, logGroupName=GROUPS, nextToken=token)
        assert found == expected


# ---------------------------------------------------------------------- descriptions


def test_streams_page_by_name(platform: Platform) -> None:
    logs = client(platform, "logs")
    names = [f"many/algo-{n:02d}" for n in range(7)]
    for name in names:
        stream(platform, "/pages", name, range(2))
    stream(platform, "/pages", "MANY/other-case", range(1))
    found, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        answer = logs.describe_log_streams(
            logGroupName="/pages", logStreamNamePrefix="many/", limit=3, **more
        )
        found.append([one["logStreamName"] for one in answer["logStreams"]])
        if "nextToken" not in answer:
            break
        token = answer["nextToken"]
    assert found == [names[:3], names[3:6], names[6:]]
    exact = logs.describe_log_streams(
        logGroupName="/pages", logStreamNamePrefix="many/", orderBy="LogStreamName", limit=7
    )
    assert "nextToken" not in exact  # SDK 2.x would ask for ever


def test_streams_by_their_last_event(platform: Platform) -> None:
    logs = client(platform, "logs")
    for name, last in (("a", 5), ("b", 9), ("c", 7)):
        stream(platform, "/order", name, range(last))
    platform.call(platform.app.logs.open_stream(ACCOUNT, "us-east-1", "/order", "empty"))
    asked = {"logGroupName": "/order", "orderBy": "LastEventTime", "descending": True}
    first = logs.describe_log_streams(**asked, limit=2)
    rest = logs.describe_log_streams(**asked, limit=2, nextToken=first["nextToken"])
    found = [one["logStreamName"] for one in first["logStreams"] + rest["logStreams"]]
    assert found == ["b", "c", "a", "empty"]
    b, empty = first["logStreams"][0], rest["logStreams"][1]
    assert (b["firstEventTimestamp"], b["lastEventTimestamp"]) == (START, START + 8)
    assert b["arn"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/order:log-stream:b"
    assert b["storedBytes"] == sum(len(f"{START + n} line {n}\n") for n in range(9))
    assert empty["storedBytes"] == 0 and "lastEventTimestamp" not in empty
    assert refused(logs.describe_log_streams, **asked, logStreamNamePrefix="a") == (
        "InvalidParameterException",
        "Cannot order by LastEventTime with a logStreamNamePrefix.",
    )


def test_groups(platform: Platform) -> None:
    logs = client(platform, "logs")
    for name in ("/g/one", "/g/two", "/g/three"):
        stream(platform, name, "s", range(3))
    first = logs.describe_log_groups(logGroupNamePrefix="/g/", limit=2)
    assert [one["logGroupName"] for one in first["logGroups"]] == ["/g/one", "/g/three"]
    rest = logs.describe_log_groups(logGroupNamePrefix="/g/", nextToken=first["nextToken"])
    assert [one["logGroupName"] for one in rest["logGroups"]] == ["/g/two"]
    assert "nextToken" not in rest
    one = rest["logGroups"][0]
    assert one["logGroupArn"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/g/two"
    assert one["arn"] == one["logGroupArn"] + ":*"
    assert one["storedBytes"] == sum(len(f"{START + n} line {n}\n") for n in range(3))
    by_arn = logs.describe_log_streams(logGroupIdentifier=one["logGroupArn"])
    assert len(by_arn["logStreams"]) == 1


# ---------------------------------------------------------------------- FilterLogEvents


def test_filter_merges_streams_in_order_of_time(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, "/filter", "even/1", range(0, 40, 2), "even")
    stream(platform, "/filter", "odd/1", range(1, 40, 2), "odd")
    found, token, ids = [], None, set()
    while True:
        more = {"nextToken": token} if token else {}
        answer = logs.filter_log_events(logGroupName="/filter", limit=7, **more)
        found += [event["timestamp"] - START for event in answer["events"]]
        ids |= {event["eventId"] for event in answer["events"]}
        if (token := answer.get("nextToken")) is None:
            break
    assert found == list(range(40)) and len(ids) == 40
    chosen = logs.filter_log_events(
        logGroupName="/filter", logStreamNamePrefix="odd", startTime=START + 5, endTime=START + 9
    )
    assert [e["timestamp"] - START for e in chosen["events"]] == [5, 7, 9]  # the end is part of it
    named = logs.filter_log_events(
        logGroupName="/filter", logStreamNames=["even/1"], filterPattern='"even 1"'
    )
    assert texts(named) == ["even 10", "even 12", "even 14", "even 16", "even 18"]


def test_filter_newest_first(platform: Platform) -> None:
    logs = client(platform, "logs")
    stream(platform, "/backward", "a", range(0, 20, 2))
    stream(platform, "/backward", "b", range(1, 20, 2))
    found, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        answer = logs.filter_log_events(
            logGroupName="/backward", limit=3, startFromHead=False, **more
        )
        found += [event["timestamp"] - START for event in answer["events"]]
        if (token := answer.get("nextToken")) is None:
            break
    assert found == list(range(19, -1, -1))


def test_filter_with_equal_times_loses_nothing(platform: Platform) -> None:
    logs = client(platform, "logs")
    for name in ("a", "b", "c"):
        opened = platform.app.logs.open_stream(ACCOUNT, "us-east-1", "/equal", name)
        path: Path = platform.call(opened)
        path.write_text("".join(f"{START} {name}{n}\n" for n in range(5)))
    for head in (True, False):
        found: list[str] = []
        token = None
        while True:
            more = {"nextToken": token} if token else {}
            answer = logs.filter_log_events(
                logGroupName="/equal", limit=4, startFromHead=head, **more
            )
            found += texts(answer)
            if (token := answer.get("nextToken")) is None:
                break
        assert sorted(found) == sorted(f"{name}{n}" for name in "abc" for n in range(5))


def test_filter_refuses_json_patterns_by_name(platform: Platform) -> None:
    logs = client(platform, "logs")
    logs.create_log_group(logGroupName="/json")
    _, message = refused(
        logs.filter_log_events, logGroupName="/json", filterPattern="{ $.level = ERROR }"
    )
    assert "JSON filter patterns" in message


# ---------------------------------------------------------------------- PutLogEvents


def put(platform: Platform, group: str, events: list[tuple[int, str]]) -> dict[str, Any]:
    answer: dict[str, Any] = client(platform, "logs").put_log_events(
        logGroupName=group,
        logStreamName="s",
        logEvents=[{"timestamp": at, "message": text} for at, text in events],
    )
    return answer


@pytest.fixture
def group(platform: Platform, request: pytest.FixtureRequest) -> str:
    name = f"/put/{request.node.name}"
    logs = client(platform, "logs")
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="s")
    return name


def test_put_keeps_texts_and_times(platform: Platform, group: str) -> None:
    now = time.time_ns() // 1_000_000
    put(platform, group, [(now - 2000, "one\nof two lines"), (now - 1000, "é \r tab\t")])
    put(platform, group, [(now - 1500, "late")])
    answer = client(platform, "logs").get_log_events(logGroupName=group, logStreamName="s")
    assert texts(answer) == ["one\nof two lines", "late", "é \r tab\t"]
    assert [event["timestamp"] - now for event in answer["events"]] == [-2000, -1500, -1000]
    assert all(event["ingestionTime"] >= now for event in answer["events"])


def test_put_rejects_what_is_too_old_or_too_new(platform: Platform, group: str) -> None:
    now, hour = time.time_ns() // 1_000_000, 3_600_000
    answer = put(
        platform, group, [(now - 15 * 24 * hour, "old"), (now, "good"), (now + 3 * hour, "new")]
    )
    assert answer["rejectedLogEventsInfo"] == {
        "tooOldLogEventEndIndex": 1,
        "tooNewLogEventStartIndex": 2,
    }
    logs = client(platform, "logs")
    assert texts(logs.get_log_events(logGroupName=group, logStreamName="s")) == ["good"]


def test_put_rules(platform: Platform, group: str) -> None:
    now = time.time_ns() // 1_000_000
    for events, message in (
        (
            [(now, "b"), (now - 1, "a")],
            "Log events in a single PutLogEvents request must be in chronological order.",
        ),
        (
            [(now - 25 * 3_600_000, "a"), (now, "b")],
            "The batch of log events in a single PutLogEvents request cannot span more than "
            "24 hours.",
        ),
        (
            [(now, "x" * 1_048_576)],
            "Log event too large: 1048602 bytes exceeds limit of 1048576",
        ),
        (
            [(now, "x" * 500_000)] * 3,
            "Upload too large: 1500078 bytes exceeds limit of 1048576",
        ),
    ):
        with pytest.raises(ClientError) as caught:
            put(platform, group, events)
        error = caught.value.response["Error"]
        assert (error["Code"], error["Message"]) == ("InvalidParameterException", message)


def test_put_to_a_stream_that_the_platform_writes(platform: Platform) -> None:
    stream(platform, "/engine", "s", range(1))
    with pytest.raises(ClientError, match="platform itself writes"):
        put(platform, "/engine", [(time.time_ns() // 1_000_000, "mine")])


def test_delete(platform: Platform) -> None:
    logs = client(platform, "logs")
    path = stream(platform, "/gone", "s", range(3))
    stream(platform, "/gone", "t", range(3))
    logs.delete_log_stream(logGroupName="/gone", logStreamName="s")
    assert not path.exists()
    logs.delete_log_group(logGroupName="/gone")
    assert refused(logs.describe_log_streams, logGroupName="/gone")[0] == (
        "ResourceNotFoundException"
    )
    stream(platform, "/gone", "s", range(1))
    answer = logs.get_log_events(logGroupName="/gone", logStreamName="s")
    assert texts(answer) == ["line 0"]


# ---------------------------------------------------------------------- the AWS CLI


def aws(platform: Platform, *arguments: str) -> Any:
    environment = {
        **os.environ,
        **platform.environment("admin"),
        "AWS_PAGER": "",
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [str(Path(sys.executable).with_name("aws")), "logs", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cli(platform: Platform) -> None:
    stream(platform, "/cli", "job/algo-1", range(30))
    where = ("--log-group-name", "/cli")
    answer = aws(
        platform, "get-log-events", *where, "--log-stream-name", "job/algo-1", "--limit", "2"
    )
    assert texts(answer) == ["line 28", "line 29"]
    # What `aws logs tail` of CLI 2 sends, page after page.
    answer = aws(
        platform, "filter-log-events", *where, "--interleaved", "--page-size", "7",
        "--start-time", str(START + 10),
    )  # fmt: skip
    assert texts(answer) == [f"line {n}" for n in range(10, 30)]
    assert len(aws(platform, "describe-log-streams", *where)["logStreams"]) == 1
