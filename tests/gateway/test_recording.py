"""Every call leaves an event: who, what, on what, from where, and what IAM answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError

from cloche.core.authorization import Context, Decision, Question, Statement
from cloche.events import Event, Search
from cloche.testing.platform import ACCOUNT, Platform, start

DENYING = Statement(f"arn:aws:iam::{ACCOUNT}:policy/no-secrets", "identity-based policy", 2, "No")
ALLOWING = Statement("arn:aws:iam::aws:policy/AdministratorAccess", "identity-based policy", 0)


class Guard:
    """Denies what is called secret, and allows the rest."""

    def decide(self, question: Question) -> Decision:
        if "secret" in question.resource and question.action != "s3:CreateBucket":
            return Decision("explicitDeny", (DENYING,))
        if "nobodys" in question.resource:
            return Decision("implicitDeny", missing=("aws:SourceVpc",))
        return Decision("allowed", (ALLOWING,))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home"), authorizer=Guard()) as running:
        for bucket in ("bkt", "secret"):
            running.client("s3").create_bucket(Bucket=bucket)
        yield running


def found(platform: Platform, fits: Callable[[Event], bool] = lambda _event: True) -> list[Event]:
    """Return the events, the newest first."""
    platform.app.events.flush()
    return list(platform.app.events.find(Search(fits)))


def failed(call: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as error:
        call(**parameters)
    answer: dict[str, Any] = error.value.response
    return answer


def test_a_call_that_succeeds(platform: Platform) -> None:
    s3 = platform.client("s3")
    answer = s3.put_object(Bucket="bkt", Key="a/b", Body=b"1")
    event = found(platform)[0]
    identity = platform.client("sts").get_caller_identity()
    # S3's request ids are the beginning of the others'.
    sent = answer["ResponseMetadata"]["RequestId"]
    assert event.id.replace("-", "").upper().startswith(sent) and len(sent) == 16
    assert (event.service, event.operation, event.account) == ("s3", "PutObject", ACCOUNT)
    assert event.principal == identity["Arn"] and event.user_id == identity["UserId"]
    assert event.kind == "assumed-role" and event.role is not None
    assert event.role.startswith(f"arn:aws:iam::{ACCOUNT}:role/service-role/AmazonSageMaker-Exec")
    assert event.key is not None and event.key.startswith("ASIA")
    assert event.source == "127.0.0.1"
    assert event.agent is not None and event.agent.startswith("Boto3/")
    (asked,) = event.asked
    assert (asked.action, asked.resource) == ("s3:PutObject", "arn:aws:s3:::bkt/a/b")
    assert (asked.verdict, asked.by, asked.context) == ("allowed", (ALLOWING,), {})
    assert not event.refused and event.code is None and event.message is None


def test_a_call_that_fails_for_another_reason(platform: Platform) -> None:
    name = "no-such-endpoint"
    failed(platform.client("sagemaker").describe_endpoint, EndpointName=name)
    event = found(platform)[0]
    assert event.code == "ValidationException" and not event.refused
    assert event.message is not None and event.message.startswith("Could not find endpoint")


def test_a_refusal_has_what_denied_it_and_the_condition_keys(platform: Platform) -> None:
    s3 = platform.client("s3")
    answer = failed(s3.list_objects_v2, Bucket="secret", Prefix="x/")
    event = found(platform)[0]
    assert event.code == "AccessDenied" and event.refused
    assert event.message == answer["Error"]["Message"]
    (asked,) = event.asked
    assert (asked.verdict, asked.by) == ("explicitDeny", (DENYING,))
    assert asked.context["s3:prefix"] == "x/"
    assert asked.context["aws:principalaccount"] == ACCOUNT


def test_a_refusal_says_how_it_is_explained(platform: Platform) -> None:
    answer = failed(platform.client("sagemaker").describe_endpoint, EndpointName="nobodys")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    event = found(platform)[0]
    assert headers["x-cloche-explain"] == event.id == answer["ResponseMetadata"]["RequestId"]
    assert event.asked[0].missing == ("aws:SourceVpc",)


@pytest.mark.control("what was refused for another reason has no such header")
def test_other_errors_are_not_explained(platform: Platform) -> None:
    answer = failed(platform.client("sagemaker").describe_endpoint, EndpointName="missing")
    assert "x-cloche-explain" not in answer["ResponseMetadata"]["HTTPHeaders"]


def test_a_call_with_many_questions_keeps_the_first(platform: Platform) -> None:
    keys = [{"Key": f"k{number}"} for number in range(30)]
    platform.client("s3").delete_objects(Bucket="bkt", Delete={"Objects": keys})
    event = found(platform)[0]
    assert len(event.asked) + event.left_out == 30 and len(event.asked) == 20


def test_what_was_refused_is_kept_however_late_it_was_asked(platform: Platform) -> None:
    keys = [{"Key": f"k{number}"} for number in range(25)] + [{"Key": "secret"}]
    answer = platform.client("s3").delete_objects(Bucket="bkt", Delete={"Objects": keys})
    assert [each["Key"] for each in answer["Errors"]] == ["secret"]
    event = found(platform)[0]
    assert event.refused and event.asked[-1].verdict == "explicitDeny"
    assert len(event.asked) == 21 and event.left_out == 5


def test_who_proves_nothing_leaves_no_event(platform: Platform) -> None:
    count = len(found(platform))
    with pytest.raises(HTTPError):
        urlopen(Request(f"{platform.address}/bkt/a", headers={"authorization": "AWS4 x"}))
    assert len(found(platform)) == count


def test_a_client_can_make_neither_lines_nor_long_ones(platform: Platform, tmp_path: Path) -> None:
    s3 = platform.client("s3")
    s3.put_object(Bucket="bkt", Key='a\n{"id": "forged"}' + "x" * 900, Body=b"1")
    event = found(platform)[0]
    assert event.asked[0].resource.startswith('arn:aws:s3:::bkt/a\n{"id": "forged"}xxx')
    assert not found(platform, lambda event: event.id == "forged")


def test_what_a_job_does_is_done_by_its_role(platform: Platform) -> None:
    role = platform.client("iam").list_roles()["Roles"][0]["Arn"]
    actor = platform.app.identity.acting_as(role, "SageMaker")
    for number in range(150):
        actor.authorize("s3:GetObject", f"arn:aws:s3:::bkt/data/{number}", Context())
    done = found(platform, lambda event: event.role == role and event.source is None)
    resources = [event.asked[0].resource for event in done][::-1]
    assert resources[:100] == [f"arn:aws:s3:::bkt/data/{number}" for number in range(100)]
    assert resources[100:] == ["arn:aws:s3:::bkt/data/*"]
    assert {event.operation for event in done} == {"GetObject"}
