"""Records as releases before this one wrote them, and as a later one may."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cloche.core.typed import BadRecord, encode
from cloche.records.store import Resource
from cloche.services.sagemaker.serving.record import endpoint
from cloche.services.sagemaker.training.record import Transition, WarmPoolStatus, training_job
from cloche.services.sagemaker.training.status import SecondaryStatus
from cloche.services.sagemaker.tuning.record import tuning_job

AT = datetime(2026, 11, 27, tzinfo=UTC)
ARN = "arn:aws:sagemaker:us-east-1:123456789012:thing/t"

# As 0.1.0 wrote them when records were dataclasses.
PROGRESS: dict[str, Any] = json.loads("""
{"transitions": [{"status": "Starting", "start_ms": 1, "end_ms": 2, "message": "Starting the"},
                 {"status": "Completed", "start_ms": 2, "end_ms": 2, "message": "done"}],
 "started_ms": 1, "ended_ms": 2, "stream_s": 0, "ending": "Completed", "failure": null,
 "uploaded": true,
 "metrics": {"loss": {"value": NaN, "at_ms": 1}, "acc": {"value": 1.0, "at_ms": 2}},
 "read": {"algo-1": 7}, "curve": [0.5, 1.0], "unsearched": [2], "overdue": false,
 "rules": {"Overfit": {"status": "NoIssuesFound", "details": "d", "at_ms": 2}},
 "pool": {"name": "p", "made_ms": 1, "status": "Available", "kept_ms": 2, "ended_ms": null,
          "reused_by": null}}
""")
SEARCH: dict[str, Any] = json.loads("""
{"trials": [{"number": 1, "name": "t-001", "definition": "", "parameters": {"lr": "0.1"},
             "created_ms": 5, "early": true,
             "outcome": {"status": "Stopped", "objective": 0.5, "curve": [0.25, 0.5],
                         "failure": null, "started_ms": 6, "ended_ms": 7}},
            {"number": 2, "name": "t-002", "definition": "", "parameters": {"lr": "0.2"},
             "created_ms": 5, "early": false, "outcome": null}],
 "ending": "Stopped", "reason": null, "converged_ms": null, "ended_ms": null}
""")
REPLICA = json.loads("""
{"id": "i-1", "deployment": "d", "variant": "v", "created_ms": 1, "restarts": 2,
 "not_before_ms": 3, "launched_ms": 4, "ready_ms": 5, "left_ms": null, "layer": null}
""")
VARIANT = json.loads("""
{"name": "v", "model": "m", "image": "i", "model_data": "s3://b/k", "archived": true,
 "environment": {"A": "b"}, "role_arn": "r", "network_isolation": false,
 "instance_type": "ml.m5.large", "count": 1, "weight": 1.0, "startup_timeout_s": 480,
 "download_timeout_s": 3600, "no_effect": ["X"], "volume_gb": 30}
""")
DEPLOYMENT = {"id": "d", "config": "c", "variants": [VARIANT], "replicas": [REPLICA]}
STATE: dict[str, Any] = {
    "serving": DEPLOYMENT,
    "coming": None,
    "leaving": [REPLICA | {"left_ms": 6}],
    "failure": "why",
    "refused": None,
    "waiting": None,
}


def row(document: object, **desired: object) -> Resource:
    return Resource(
        account="123456789012",
        region="us-east-1",
        kind="thing",
        name="t",
        arn=ARN,
        status="InService",
        created=AT,
        modified=AT,
        desired=desired,
        document=document,  # type: ignore[arg-type]
    )


def rewritten(kind: str, document: object) -> str:
    """What is in the database after it was read and written again."""
    match kind:
        case "training":
            return json.dumps(encode(training_job(row(document)).progress), sort_keys=True)
        case "tuning":
            return json.dumps(encode(tuning_job(row(document)).search), sort_keys=True)
        case _:
            found = endpoint(row(document, Deployment=DEPLOYMENT))
            return json.dumps(encode(found.state), sort_keys=True)


DOCUMENTS = {"training": PROGRESS, "tuning": SEARCH, "endpoint": STATE}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_record_of_the_first_release_is_read_and_written_as_it_was(kind: str) -> None:
    assert rewritten(kind, DOCUMENTS[kind]) == json.dumps(DOCUMENTS[kind], sort_keys=True)


LATER: dict[str, Any] = {
    "training": PROGRESS
    | {
        "later": {"a": 1},
        "transitions": [t | {"later": [1]} for t in PROGRESS["transitions"]],
        "metrics": {name: m | {"later": 1} for name, m in PROGRESS["metrics"].items()},
        "rules": {name: r | {"later": None} for name, r in PROGRESS["rules"].items()},
        "pool": PROGRESS["pool"] | {"later": {"b": []}},
    },
    "tuning": {
        "trials": [
            SEARCH["trials"][0] | {"outcome": SEARCH["trials"][0]["outcome"] | {"later": 2}},
            SEARCH["trials"][1] | {"later": 3},
        ],
        "later": "x",
    }
    | {name: value for name, value in SEARCH.items() if name != "trials"},
    "endpoint": STATE
    | {
        "later": 1,
        "serving": DEPLOYMENT
        | {"later": 2, "variants": [VARIANT | {"later": 3}], "replicas": [REPLICA | {"later": 4}]},
        "leaving": [REPLICA | {"left_ms": 6, "later": 5}],
    },
}


@pytest.mark.parametrize("kind", LATER)
def test_what_a_later_release_wrote_is_kept_when_it_is_written_again(kind: str) -> None:
    assert rewritten(kind, LATER[kind]) == json.dumps(LATER[kind], sort_keys=True)
    assert LATER[kind].keys() - DOCUMENTS[kind].keys() == {"later"}  # there was something to keep


def test_what_is_unknown_goes_where_its_value_goes() -> None:
    found = endpoint(row(LATER["endpoint"], Deployment=DEPLOYMENT))
    state = encode(found.state.without_replicas(9))
    assert state["serving"] is None and state["later"] == 1
    assert [(r["id"], r["later"], r["left_ms"]) for r in state["leaving"]] == [
        ("i-1", 5, 6),
        ("i-1", 4, 9),
    ]
    job = training_job(
        row(LATER["training"] | {"transitions": LATER["training"]["transitions"][:1]})
    )
    gone = encode(job.progress.go(SecondaryStatus.DOWNLOADING, AT))
    assert [t.get("later") for t in gone["transitions"]] == [[1], None]


def test_records_that_are_older_than_a_field_have_its_default() -> None:
    old = {name: PROGRESS[name] for name in ("transitions", "ending", "metrics")}
    progress = training_job(row(old)).progress
    assert progress.transitions[0] == Transition(
        status=SecondaryStatus.STARTING, start_ms=1, end_ms=2, message="Starting the"
    )
    assert progress.ending is SecondaryStatus.COMPLETED
    assert (progress.curve, progress.rules, progress.pool) == ((), {}, None)
    assert not progress.overdue
    pool = training_job(row(PROGRESS)).progress.pool
    assert pool is not None and pool.status is WarmPoolStatus.AVAILABLE
    assert endpoint(row({}, Deployment=DEPLOYMENT)).state.replicas == ()


@pytest.mark.parametrize(
    ("kind", "document", "text"),
    [
        ("training", PROGRESS | {"stream_s": "7"}, "Expected `int`, got `str` - at `$.stream_s`"),
        ("training", PROGRESS | {"ending": "Gone"}, "Invalid enum value 'Gone' - at `$.ending`"),
        ("tuning", SEARCH | {"trials": {}}, "Expected `array`, got `object` - at `$.trials`"),
        (
            "endpoint",
            STATE | {"leaving": [REPLICA | {"restarts": None}]},
            "Expected `int`, got `null` - at `$.leaving[0].restarts`",
        ),
    ],
)
def test_a_record_that_is_wrong_says_which_and_where(kind: str, document: Any, text: str) -> None:
    with pytest.raises(BadRecord) as refused:
        rewritten(kind, document)
    assert str(refused.value) == f"{ARN}: {text}"


def test_a_wrong_deployment_in_an_endpoint_s_desired_state_is_said_too() -> None:
    with pytest.raises(BadRecord) as refused:
        endpoint(row({}, Deployment=DEPLOYMENT | {"variants": [VARIANT | {"count": "1"}]}))
    assert str(refused.value) == (
        f"{ARN} (Deployment): Expected `int`, got `str` - at `$.variants[0].count`"
    )
