"""What the endpoints' loop decides: a table of cases, then every status and observation."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cloche.core.typed import decode, encode
from cloche.records.store import Resource
from cloche.replicas.replacement import Sight
from cloche.services.sagemaker.serving.decide import (
    CALM_PAUSE_S,
    CAPACITY_PAUSE_S,
    POLL_PAUSE_S,
    REPLACEMENT,
    SOON_S,
    EndpointPlan,
    Models,
    Observation,
    decide,
)
from cloche.services.sagemaker.serving.record import (
    NEXT,
    Deployment,
    Endpoint,
    EndpointStatus,
    Replica,
    State,
    Variant,
    endpoint,
)

E = EndpointStatus
NOW = 1_000_000
ABSENT = Sight(process="absent")
STARTING = Sight(process="running")
UP = Sight(process="running", healthy=True)
BUSY = Sight(process="running", healthy=True, busy=True)
SILENT = Sight(process="running", silent_s=REPLACEMENT.unhealthy_s)
EXITED = Sight(process="exited", exit_code=1, trace="OSError: no weights")
KILLED = Sight(process="exited", exit_code=-9)
LOST = Sight(process="lost")
SIGHTS = (ABSENT, STARTING, UP, BUSY, SILENT, EXITED, KILLED, LOST)
AWS_TEXT = (
    "The primary container for production variant AllTraffic did not pass the ping health check."
    " Please check CloudWatch logs for this endpoint."
)


def variant(**changes: object) -> Variant:
    base = Variant(
        name="AllTraffic",
        model="m",
        image="img",
        role_arn="arn",
        instance_type="ml.m5.large",
        count=1,
        weight=1.0,
    )
    return base.replace(**changes)


def deployment(id: str, *replicas: Replica, **changes: object) -> Deployment:
    return Deployment(
        id=id, config=f"config-{id}", variants=(variant(**changes),), replicas=replicas
    )


def replica(id: str, of: str = "A", **changes: object) -> Replica:
    base = Replica(id=id, deployment=of, variant="AllTraffic", created_ms=NOW - 10_000)
    return base.replace(**changes)


def launched(id: str, of: str = "A", **changes: object) -> Replica:
    return replica(id, of, **{"launched_ms": NOW - 5_000, **changes})


def ready(id: str, of: str = "A", **changes: object) -> Replica:
    return launched(id, of, **{"ready_ms": NOW - 4_000, **changes})


def leaving(id: str, of: str = "A", **changes: object) -> Replica:
    return ready(id, of, **{"left_ms": NOW - 1_000, **changes})


def record(status: E, wanted: Deployment, now: State) -> Endpoint:
    at = datetime(2021, 11, 28, tzinfo=UTC)
    resource = Resource(
        account="123456789012",
        region="us-east-1",
        kind="endpoint",
        name="e",
        arn="arn:e",
        status=status,
        created=at,
        modified=at,
        desired={"Deployment": encode(wanted)},
        document=encode(now),
    )
    return endpoint(resource)


def look(seen: Mapping[str, Sight], **changes: object) -> Observation:
    numbers = itertools.count(1)
    models = {id: Models(ready=frozenset({"AllTraffic"})) for id in ("A", "B")}
    base = Observation(seen, models, NOW, lambda: f"new-{next(numbers)}")
    return replace(base, **changes)  # type: ignore[arg-type]


A, B = deployment("A"), deployment("B")


def creating(*replicas: Replica, **changes: object) -> Endpoint:
    coming = deployment("A", *replicas, **changes) if replicas or changes else None
    return record(E.CREATING, deployment("A", **changes), State(coming=coming))


def in_service(*replicas: Replica, gone: tuple[Replica, ...] = (), **changes: object) -> Endpoint:
    serving = deployment("A", *replicas, **changes)
    return record(E.IN_SERVICE, deployment("A", **changes), State(serving=serving, leaving=gone))


def updating(old: Replica, *new: Replica) -> Endpoint:
    state = State(serving=deployment("A", old), coming=deployment("B", *new))
    return record(E.UPDATING, B, state)


def ids(replicas: tuple[Replica, ...]) -> list[str]:
    return [r.id for r in replicas]


# ---------------------------------------------------------------------- coming up


def test_new_endpoint_gets_replicas_before_any_is_launched() -> None:
    plan = decide(creating(count=2), look({}))
    assert plan.state.coming is not None
    assert ids(plan.state.coming.replicas) == ["new-1", "new-2"]
    assert (plan.status, plan.launch) == (E.CREATING, ())


def test_recorded_replicas_are_launched_once_their_model_is_unpacked() -> None:
    waiting = look({}, models={"A": Models()})
    assert decide(creating(replica("i-1")), waiting).launch == ()
    assert ids(decide(creating(replica("i-1")), look({})).launch) == ["i-1"]
    assert decide(creating(launched("i-1")), look({"i-1": STARTING})).launch == ()


def test_launched_before_the_server_died_is_adopted() -> None:
    plan = decide(creating(replica("i-1")), look({"i-1": STARTING}))
    assert plan.launch == ()
    assert plan.state.coming is not None
    assert plan.state.coming.replicas[0].launched_ms == NOW


def test_in_service_when_all_answer() -> None:
    both = creating(launched("i-1"), launched("i-2"), count=2)
    assert decide(both, look({"i-1": UP, "i-2": STARTING})).status is E.CREATING
    plan = decide(both, look({"i-1": UP, "i-2": UP}))
    assert (plan.status, plan.state.coming) == (E.IN_SERVICE, None)
    assert plan.state.serving is not None
    assert [r.ready_ms for r in plan.state.serving.replicas] == [NOW, NOW]


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (EXITED, f"{AWS_TEXT} OSError: no weights"),
        (
            Sight(process="exited", exit_code=3),
            f"{AWS_TEXT} The container ended with exit code 3.",
        ),
    ],
)
def test_failing_start_fails_the_endpoint(seen: Sight, text: str) -> None:
    plan = decide(creating(launched("i-1")), look({"i-1": seen}))
    assert (plan.status, plan.state.failure) == (E.FAILED, text)
    assert (ids(plan.forget), plan.state.leaving, plan.delete) == (["i-1"], (), False)


def test_no_answer_in_time_fails_the_endpoint() -> None:
    started_ms = NOW - 60_001
    slow = creating(launched("i-1", launched_ms=started_ms), startup_timeout_s=60)
    plan = decide(slow, look({"i-1": STARTING}))
    assert plan.status is E.FAILED
    assert plan.state.failure == f"{AWS_TEXT} It did not answer within 60 seconds."
    assert ids(plan.stop) == ["i-1"]


def test_model_that_cannot_be_had_fails_the_endpoint() -> None:
    bad = look({}, models={"A": Models(failed={"AllTraffic": "no such archive"})})
    plan = decide(creating(replica("i-1")), bad)
    assert (plan.status, plan.state.failure) == (E.FAILED, "no such archive")


@pytest.mark.parametrize("seen", [LOST, KILLED, ABSENT])
def test_lost_while_starting_is_tried_again_a_few_times(seen: Sight) -> None:
    plan = decide(creating(launched("i-1")), look({"i-1": seen}))
    assert plan.status is E.CREATING
    assert plan.state.coming is not None
    assert [(r.id, r.restarts) for r in plan.state.coming.replicas] == [("new-1", 1)]
    last = creating(launched("i-1", restarts=REPLACEMENT.starts - 1))
    assert decide(last, look({"i-1": seen})).status is E.FAILED


def test_want_of_capacity_is_waited_for_then_given_up() -> None:
    full = look({}, no_capacity="needs 8 CPUs")
    assert decide(creating(replica("i-1")), full).status is E.CREATING
    plan = decide(creating(replica("i-1", created_ms=NOW - 1_800_000)), full)
    assert plan.status is E.FAILED
    assert plan.state.failure is not None
    assert "InsufficientInstanceCapacity" in plan.state.failure
    assert plan.launch == ()


# ---------------------------------------------------------------------- in service


@pytest.mark.parametrize("seen", [EXITED, KILLED, LOST, ABSENT, SILENT])
def test_dead_replica_is_replaced_at_once_and_the_endpoint_stays(seen: Sight) -> None:
    plan = decide(in_service(ready("i-1"), ready("i-2"), count=2), look({"i-1": seen, "i-2": UP}))
    assert plan.status is E.IN_SERVICE
    assert plan.state.serving is not None
    new = {r.id: r for r in plan.state.serving.replicas}
    assert set(new) == {"i-2", "new-1"}
    assert (new["new-1"].restarts, new["new-1"].not_before_ms) == (1, NOW)
    assert ids(plan.stop if seen is SILENT else plan.forget) == ["i-1"]


@pytest.mark.parametrize(("restarts", "wait_s"), [(1, 1), (2, 2), (4, 8), (20, 60)])
def test_replacing_backs_off(restarts: int, wait_s: float) -> None:
    plan = decide(in_service(launched("i-1", restarts=restarts)), look({"i-1": EXITED}))
    assert plan.state.serving is not None
    new = plan.state.serving.replicas[0]
    assert (new.restarts, new.not_before_ms) == (restarts + 1, NOW + wait_s * 1000)
    waiting = in_service(new)
    assert decide(waiting, look({})).launch == ()
    assert ids(decide(waiting, look({}, now_ms=new.not_before_ms)).launch) == ["new-1"]


def test_a_replica_that_was_ready_for_long_starts_counting_anew() -> None:
    steady = in_service(ready("i-1", ready_ms=NOW - 60_000, restarts=7))
    plan = decide(steady, look({"i-1": EXITED}))
    assert plan.state.serving is not None
    assert plan.state.serving.replicas[0].restarts == 1


def test_a_settled_endpoint_changes_nothing() -> None:
    settled = in_service(ready("i-1"))
    plan = decide(settled, look({"i-1": UP}))
    assert plan == EndpointPlan(status=E.IN_SERVICE, state=settled.state, pause_s=plan.pause_s)


def test_more_and_fewer_instances() -> None:
    serving = deployment("A", ready("i-1"))
    more = record(E.UPDATING, deployment("A", count=2, weight=3.0), State(serving=serving))
    plan = decide(more, look({"i-1": UP}))
    assert (plan.status, plan.state.serving is not None) == (E.UPDATING, True)
    assert plan.state.serving is not None
    assert ids(plan.state.serving.replicas) == ["i-1", "new-1"]
    assert plan.state.serving.variants[0].weight == 3.0
    two = deployment("A", ready("i-1"), ready("i-2", ready_ms=NOW), count=2)
    fewer = record(E.UPDATING, A, State(serving=two))
    plan = decide(fewer, look({"i-1": UP, "i-2": UP}))
    assert plan.state.serving is not None
    assert (ids(plan.state.serving.replicas), ids(plan.stop)) == (["i-1"], ["i-2"])
    done = record(E.UPDATING, A, State(serving=deployment("A", ready("i-1"))))
    assert decide(done, look({"i-1": UP})).status is E.IN_SERVICE


# ---------------------------------------------------------------------- updates


def test_update_keeps_the_old_until_the_new_are_ready() -> None:
    plan = decide(updating(ready("i-1"), launched("i-2", "B")), look({"i-1": UP, "i-2": STARTING}))
    assert (plan.status, plan.stop, plan.forget) == (E.UPDATING, (), ())
    assert plan.state.serving is not None and plan.state.serving.id == "A"


def test_update_swaps_when_the_new_are_ready() -> None:
    plan = decide(updating(ready("i-1"), launched("i-2", "B")), look({"i-1": UP, "i-2": UP}))
    assert plan.status is E.IN_SERVICE
    assert plan.state.serving is not None and plan.state.serving.id == "B"
    assert (ids(plan.state.leaving), ids(plan.stop)) == (["i-1"], ["i-1"])


def test_old_replica_finishes_its_request_first() -> None:
    gone = leaving("i-1", left_ms=NOW)
    busy = in_service(ready("i-2"), gone=(gone,))
    assert decide(busy, look({"i-1": BUSY, "i-2": UP})).stop == ()
    late = look({"i-1": BUSY, "i-2": UP}, now_ms=NOW + round(REPLACEMENT.drain_s * 1000) + 1)
    assert ids(decide(busy, late).stop) == ["i-1"]
    assert ids(decide(busy, look({"i-1": UP, "i-2": UP})).stop) == ["i-1"]


def test_failed_update_rolls_back() -> None:
    failing = updating(ready("i-1"), launched("i-2", "B"))
    plan = decide(failing, look({"i-1": UP, "i-2": EXITED}))
    assert (plan.status, plan.state.refused, plan.state.coming) == (E.ROLLING_BACK, "B", None)
    assert plan.state.serving is not None and plan.state.serving.id == "A"
    assert plan.state.failure == f"{AWS_TEXT} OSError: no weights"
    back = decide(record(E.ROLLING_BACK, B, plan.state), look({"i-1": UP}))
    assert (back.status, back.state.coming) == (E.IN_SERVICE, None)
    again = decide(record(E.IN_SERVICE, B, back.state), look({"i-1": UP}))
    assert (again.status, again.state) == (E.IN_SERVICE, back.state)


def test_old_replica_that_dies_during_an_update_is_replaced() -> None:
    dying = updating(ready("i-1"), launched("i-2", "B"))
    plan = decide(dying, look({"i-1": EXITED, "i-2": STARTING}))
    assert plan.status is E.UPDATING
    assert plan.state.serving is not None
    assert ids(plan.state.serving.replicas) == ["new-1"]


# ---------------------------------------------------------------------- going


def test_delete_stops_then_forgets_then_removes() -> None:
    doomed = record(E.DELETING, A, State(serving=deployment("A", ready("i-1"))))
    plan = decide(doomed, look({"i-1": UP}))
    assert (ids(plan.stop), plan.delete, plan.state.serving) == (["i-1"], False, None)
    ended = decide(record(E.DELETING, A, plan.state), look({"i-1": KILLED}))
    assert (ids(ended.forget), ended.delete) == (["i-1"], True)


# ---------------------------------------------------------------------- everything


STATES: tuple[Callable[[], State], ...] = (
    lambda: State(),
    lambda: State(coming=deployment("B", replica("x", "B"))),
    lambda: State(coming=deployment("B", launched("x", "B"))),
    lambda: State(serving=deployment("A", replica("x"))),
    lambda: State(serving=deployment("A", launched("x"))),
    lambda: State(serving=deployment("A", ready("x"))),
    lambda: State(serving=deployment("A", ready("y")), coming=deployment("B", launched("x", "B"))),
    lambda: State(serving=deployment("A", ready("x")), coming=deployment("B", launched("y", "B"))),
    lambda: State(serving=deployment("A", ready("y")), leaving=(leaving("x"),)),
    lambda: State(leaving=(leaving("x"),)),
    lambda: State(serving=deployment("A", ready("y")), refused="B", failure="why"),
)


def can_be(status: E, now: State, wanted: Deployment) -> bool:
    """Return whether such a record is ever written (operations and decide() see to it)."""
    current = now.serving is not None and now.serving.id == wanted.id
    return {
        E.CREATING: now.serving is None and now.refused is None,
        E.IN_SERVICE: now.serving is not None
        and now.coming is None
        and (current or now.refused == wanted.id),
        E.UPDATING: now.serving is not None and now.refused is None,
        E.ROLLING_BACK: now.serving is not None and now.coming is None and now.refused == wanted.id,
        E.DELETING: True,
        E.FAILED: True,
    }[status]


RECORDS = [
    (status, make, wanted)
    for status, make, wanted in itertools.product(E, STATES, (A, B))
    if can_be(status, make(), wanted)
]


@pytest.mark.parametrize(("status", "make", "wanted"), RECORDS)
def test_every_status_and_observation(
    status: E, make: Callable[[], State], wanted: Deployment
) -> None:
    for x, y in itertools.product(SIGHTS, SIGHTS):
        before = record(status, wanted, make())
        plan = decide(before, look({"x": x, "y": y}))
        assert plan.status is status or plan.status in NEXT[status]
        assert decode(State, encode(plan.state), "e") == plan.state  # it can be written and read
        known = [d for d in (plan.state.serving, plan.state.coming) if d is not None]
        staying = [r for d in known for r in d.replicas]
        everyone = [r.id for r in (*staying, *plan.state.leaving)]
        assert len(everyone) == len(set(everyone))
        # launched: what was recorded before, and shall stay
        old = before.state
        recorded = {r.id for d in (old.serving, old.coming) if d for r in d.replicas}
        assert set(ids(plan.launch)) <= recorded & {r.id for r in staying}
        # never stopped while it serves; forgotten only when it runs no more
        serving = plan.state.serving
        assert not set(ids(plan.stop)) & {r.id for r in staying}
        assert all({"x": x, "y": y}.get(r.id, ABSENT).process != "running" for r in plan.forget)
        assert plan.delete <= (status is E.DELETING and not everyone)
        if plan.status is E.IN_SERVICE and status is not E.IN_SERVICE:
            assert serving is not None
            assert all(r.ready_ms is not None for r in serving.replicas)
        if status in (E.IN_SERVICE, E.UPDATING, E.ROLLING_BACK) and old.serving is not None:
            assert serving is not None  # what serves goes on serving


WATCHED = replace(UP, watched=True)
PAUSES: tuple[tuple[Sight, float], ...] = (
    (WATCHED, CALM_PAUSE_S),  # its end would be told
    (UP, POLL_PAUSE_S),
    (replace(WATCHED, healthy=False), SOON_S),
    (EXITED, SOON_S),
)


@pytest.mark.parametrize(("sight", "pause_s"), PAUSES)
def test_how_long_an_endpoint_in_service_is_left_alone(sight: Sight, pause_s: float) -> None:
    settled = in_service(ready("i-1"))
    assert decide(settled, look({"i-1": sight})).pause_s == pause_s


def test_what_replicas_wait_for_is_written_until_they_are_placed() -> None:
    waits = creating(replica("i-1"))
    lacking = look({}, no_capacity="no room")
    plan = decide(waits, lacking)
    assert (plan.status, plan.state.waiting) == (E.CREATING, "no room")
    assert plan.pause_s == CAPACITY_PAUSE_S
    later = replace(waits, state=plan.state)
    assert decide(later, replace(lacking, no_capacity=None)).state.waiting is None
