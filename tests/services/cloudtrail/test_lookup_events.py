"""LookupEvents through boto3: the management events, the newest first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.events import Search
from cloche.testing.platform import ACCOUNT, Platform, start

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ACCOUNT}}
        ],
    }
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home")) as running:
        root = running.client("iam", as_="root")
        for number in range(7):
            root.create_role(RoleName=f"r{number}", AssumeRolePolicyDocument=TRUST)
        s3 = running.client("s3", as_="root")
        s3.create_bucket(Bucket="bkt")
        s3.put_object(Bucket="bkt", Key="k", Body=b"1")
        with pytest.raises(ClientError):
            root.get_role(RoleName="nobody")
        running.app.events.flush()
        yield running


def looked_up(platform: Platform, **parameters: Any) -> list[dict[str, Any]]:
    client = platform.client("cloudtrail", as_="root")
    pages = client.get_paginator("lookup_events").paginate(**parameters)
    return [event for page in pages for event in page["Events"]]


def by(name: str, value: str) -> dict[str, Any]:
    return {"LookupAttributes": [{"AttributeKey": name, "AttributeValue": value}]}


def test_the_newest_first_without_data_events(platform: Platform) -> None:
    names = [event["EventName"] for event in looked_up(platform)]
    begun = names.index("GetRole")
    assert names[begun:][:9] == ["GetRole", "CreateBucket", *["CreateRole"] * 7]
    assert "PutObject" not in names


@pytest.mark.control("the data event is in the event log")
def test_data_events_are_kept(platform: Platform) -> None:
    found = platform.app.events.find(Search(lambda event: event.operation == "PutObject"))
    assert next(found).service == "s3"


def test_an_event_says_who_did_what(platform: Platform) -> None:
    (event,) = looked_up(platform, **by("ResourceName", f"arn:aws:iam::{ACCOUNT}:role/r3"))
    assert event["EventName"] == "CreateRole" and event["ReadOnly"] == "false"
    assert event["EventSource"] == "iam.amazonaws.com" and event["Username"] == "root"
    assert event["AccessKeyId"].startswith("AKIA")
    assert abs(datetime.now(UTC) - event["EventTime"]) < timedelta(minutes=5)
    name = f"arn:aws:iam::{ACCOUNT}:role/r3"
    assert event["Resources"] == [{"ResourceType": "AWS::IAM::Role", "ResourceName": name}]
    record = json.loads(event["CloudTrailEvent"])
    assert record["userIdentity"] == {
        "type": "Root",
        "principalId": ACCOUNT,
        "arn": f"arn:aws:iam::{ACCOUNT}:root",
        "accountId": ACCOUNT,
        "accessKeyId": event["AccessKeyId"],
    }
    assert record["eventID"] == event["EventId"] == record["requestID"]
    assert record["sourceIPAddress"] == "127.0.0.1" and record["userAgent"].startswith("Boto3/")
    assert record["managementEvent"] is True and "errorCode" not in record


def test_a_session_has_its_role(platform: Platform) -> None:
    platform.client("sagemaker").list_endpoints()
    platform.app.events.flush()
    event = looked_up(platform, **by("EventName", "ListEndpoints"))[0]
    who = json.loads(event["CloudTrailEvent"])["userIdentity"]
    assert who["type"] == "AssumedRole"
    assert who["sessionContext"]["sessionIssuer"]["arn"] == next(
        role["Arn"]
        for role in platform.client("iam", as_="root").list_roles()["Roles"]
        if role["RoleName"].startswith("AmazonSageMaker-ExecutionRole-")
    )
    assert event["Username"] == who["arn"].rpartition("/")[2]


def test_an_error_is_in_the_record(platform: Platform) -> None:
    (event,) = looked_up(platform, **by("ResourceName", "nobody"))
    record = json.loads(event["CloudTrailEvent"])
    assert record["errorCode"] == "NoSuchEntity"
    assert record["errorMessage"] == "The role with name nobody cannot be found."


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("EventName", "CreateRole", 7),
        ("EventSource", "s3.amazonaws.com", 1),
        ("ReadOnly", "false", 8),
        ("Username", "root", 9),
        ("ResourceType", "AWS::S3::Bucket", 1),
        ("EventName", "NoSuchThing", 0),
    ],
)
def test_an_attribute(platform: Platform, name: str, value: str, least: int) -> None:
    found = looked_up(platform, **by(name, value))
    assert len(found) >= least and (least > 0) == bool(found)


def test_pages(platform: Platform) -> None:
    client = platform.client("cloudtrail", as_="root")
    asked = by("EventName", "CreateRole") | {"MaxResults": 3}
    ids, sizes, more = [], [], {}
    while True:
        answer = client.lookup_events(**asked, **more)
        sizes.append(len(answer["Events"]))
        ids += [event["EventId"] for event in answer["Events"]]
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert sizes == [3, 3, 1] and len(set(ids)) == 7


def test_a_time(platform: Platform) -> None:
    last = looked_up(platform, **by("EventName", "CreateRole"))[0]["EventTime"]
    before = looked_up(platform, EndTime=last - timedelta(hours=1))
    assert before == []
    since = looked_up(platform, **by("EventName", "CreateRole"), StartTime=last - timedelta(1))
    assert len(since) == 7


def refused(platform: Platform, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        platform.client("cloudtrail", as_="root").lookup_events(**parameters)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_what_is_refused(platform: Platform) -> None:
    now = datetime.now(UTC)
    two = [{"AttributeKey": "EventName", "AttributeValue": "x"}] * 2
    assert refused(platform, LookupAttributes=two) == (
        "InvalidLookupAttributesException",
        "The lookup attributes list can contain only one item.",
    )
    assert refused(platform, StartTime=now, EndTime=now - timedelta(days=1)) == (
        "InvalidTimeRangeException",
        "The start time can't be after the end time.",
    )
    assert refused(platform, NextToken="abc") == ("InvalidNextTokenException", "Invalid token.")
    assert refused(platform, EventCategory="insight") == (
        "ValidationException",
        "Cloche does not support the event category insight.",
    )


def test_a_token_is_of_one_search(platform: Platform) -> None:
    client = platform.client("cloudtrail", as_="root")
    answer = client.lookup_events(MaxResults=1)
    other = by("EventName", "CreateRole")
    assert refused(platform, NextToken=answer["NextToken"], **other) == (
        "InvalidNextTokenException",
        "Invalid token.",
    )
