"""What to do next for an endpoint: a pure function of its record and of what is seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloche.runtime.signals import killed_by
from cloche.services.sagemaker.serving.record import (
    PING_FAILED,
    Deployment,
    Endpoint,
    EndpointStatus,
    Replica,
    State,
    Variant,
    left,
)

E = EndpointStatus
STARTS = 3  # replicas of a new deployment that may die by no fault of the model's
UNHEALTHY_S = 30.0  # without an answer to pings, after which a replica is replaced
STEADY_S = 60.0  # ready for so long: the next death is the first of its kind again
FIRST_BACKOFF_S, LAST_BACKOFF_S = 1.0, 60.0
CAPACITY_WAIT_S = 1800.0  # that a new deployment waits for memory to become free
DRAIN_S = 65.0  # that a replica on its way out gets for the request it is at
# Until the next look: on its way; waiting for capacity; settled, but nothing would tell of an end;
# settled, when an end would be told.
SOON_S, CAPACITY_PAUSE_S, POLL_PAUSE_S, CALM_PAUSE_S = 0.1, 1.0, 0.5, 15.0

NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
    " {message}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen of one replica now.

    `healthy`: it answered the last ping. `silent_s`: seconds since it last did (or since this
    server first asked). `watched`: its end will be told. `trace`: the last line of what it left
    when it failed. `busy`: it is at a request.
    """

    process: Literal["absent", "running", "exited", "lost"]
    healthy: bool = False
    watched: bool = False
    silent_s: float = 0.0
    exit_code: int | None = None
    trace: str = ""
    busy: bool = False


ABSENT = Sight(process="absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """How far the models of a deployment are unpacked, by variant; `failed` has the reasons."""

    ready: frozenset[str] = frozenset()
    failed: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, and the record that follows when it is done. Only `launch` may be refused."""

    status: EndpointStatus
    state: State
    launch: tuple[Replica, ...] = ()
    stop: tuple[Replica, ...] = ()
    forget: tuple[Replica, ...] = ()
    delete: bool = False
    pause_s: float | None = SOON_S


@dataclass(frozen=True, slots=True)
class Look:
    """All that a decision rests on, beside the record."""

    seen: Mapping[str, Sight]  # by replica id
    models: Mapping[str, Models]  # by deployment id
    now_ms: int
    new_id: Callable[[], str]
    no_capacity: str | None = None  # what the engine said when it last refused a launch

    def of(self, replica: Replica) -> Sight:
        """Return what is seen of the replica."""
        return self.seen.get(replica.id, ABSENT)


def decide(endpoint: Endpoint, look: Look) -> Plan:
    """Return what to do next."""
    status, state = endpoint.status, endpoint.state
    if status in (E.DELETING, E.FAILED):
        return wind_down(status, state.without_replicas(look.now_ms), look)
    state = with_request(endpoint, state, look.now_ms)
    launch: list[Replica] = []
    if state.coming is not None:
        coming, failure = converge(state.coming, look, launch, new=True)
        if failure is not None and state.serving is None:
            gone = state.replace(failure=failure).without_replicas(look.now_ms)
            return wind_down(E.FAILED, gone, look)
        status, state = advance(status, state, coming, failure, look)
        if failure is not None:
            launch = []
    if state.serving is not None:
        serving, dead = repaired(state.serving, look, launch)
        state = state.replace(serving=serving, leaving=state.leaving + dead)
        if state.coming is None and not state.leaving and complete(serving, look):
            status = E.IN_SERVICE if status in (E.UPDATING, E.ROLLING_BACK) else status
    waiting = look.no_capacity if any(r.launched_ms is None for r in state.replicas) else None
    state = state.replace(waiting=waiting)
    plan = clear(Plan(status=status, state=state, launch=tuple(launch)), look)
    return replace(plan, pause_s=pause_s(plan, look))


def pause_s(plan: Plan, look: Look) -> float:
    """Return seconds until the next look, if nothing changes before."""
    state = plan.state
    if state.waiting is not None and state.coming is not None and not state.leaving:
        return CAPACITY_PAUSE_S
    settled = plan.status is E.IN_SERVICE and not state.leaving and not plan.launch
    if not settled or state.serving is None or not complete(state.serving, look):
        return SOON_S
    sights = [look.of(replica) for replica in state.serving.replicas]
    if not all(sight.healthy for sight in sights):
        return SOON_S
    return CALM_PAUSE_S if all(sight.watched for sight in sights) else POLL_PAUSE_S


def with_request(endpoint: Endpoint, state: State, now_ms: int) -> State:
    """Return the state with what the client asks for now taken in."""
    wanted = endpoint.wanted
    if state.serving is not None and wanted.id == state.serving.id:
        coming = state.coming
        leaving = state.leaving + (left(coming.replicas, now_ms) if coming else ())
        serving = state.serving.replace(variants=wanted.variants)
        return state.replace(serving=serving, coming=None, leaving=leaving)
    if wanted.id == state.refused or (state.coming and wanted.id == state.coming.id):
        return state
    leaving = state.leaving + (left(state.coming.replicas, now_ms) if state.coming else ())
    return state.replace(coming=wanted, leaving=leaving, failure=None)


def advance(
    status: EndpointStatus,
    state: State,
    coming: tuple[Deployment, tuple[Replica, ...]],
    failure: str | None,
    look: Look,
) -> tuple[EndpointStatus, State]:
    """Return what follows from how far the new deployment is: swap, roll back, or go on."""
    deployment, dead = coming
    leaving = state.leaving + dead
    if failure is not None:
        leaving += left(deployment.replicas, look.now_ms)
        state = state.replace(coming=None, leaving=leaving, failure=failure, refused=deployment.id)
        return E.ROLLING_BACK, state
    if not complete(deployment, look):
        return status, state.replace(coming=deployment, leaving=leaving)
    old = state.serving
    leaving += left(old.replicas, look.now_ms) if old is not None else ()
    return E.IN_SERVICE, state.replace(serving=deployment, coming=None, leaving=leaving)


def complete(deployment: Deployment, look: Look) -> bool:
    """Return whether every variant has as many replicas as it shall, all ready."""
    return all(
        len(mine := deployment.of(variant.name)) == variant.count
        and all(replica.ready_ms is not None and is_up(look.of(replica)) for replica in mine)
        for variant in deployment.variants
    )


def is_up(sight: Sight) -> bool:
    """Return whether a replica may be sent requests, once it was ready."""
    return sight.process == "running" and sight.silent_s < UNHEALTHY_S


def converge(
    deployment: Deployment, look: Look, launch: list[Replica], *, new: bool
) -> tuple[tuple[Deployment, tuple[Replica, ...]], str | None]:
    """Return the deployment one step further with the replicas that died, or why it fails."""
    models = look.models.get(deployment.id, Models())
    for variant in deployment.variants:
        if reason := (models.failed or {}).get(variant.name):
            return (deployment, ()), reason
    kept: list[Replica] = []
    dead: list[Replica] = []
    for replica in deployment.replicas:
        variant = deployment.variant(replica.variant)
        sight = look.of(replica)
        if (reason := wrong_with(replica, variant, sight, look.now_ms)) is None:
            kept.append(started(replica, sight, variant.name in models.ready, look, launch))
            continue
        if new and (reason != LOST or replica.restarts + 1 >= STARTS):
            return (deployment, ()), startup_failure(variant, sight, reason)
        dead.append(replica)
        kept.append(successor(replica, look))
    if new and (reason := starved(kept, look)) is not None:
        return (deployment, ()), reason
    kept, surplus = resized(deployment, kept, look)
    return (deployment.replace(replicas=tuple(kept)), left([*dead, *surplus], look.now_ms)), None


def repaired(
    serving: Deployment, look: Look, launch: list[Replica]
) -> tuple[Deployment, tuple[Replica, ...]]:
    """Return the serving deployment with its dead replicas replaced, and those."""
    models = look.models.get(serving.id, Models())
    calm = replace(look, models={**look.models, serving.id: replace(models, failed=None)})
    (deployment, dead), _ = converge(serving, calm, launch, new=False)
    return deployment, dead


LOST, SILENT, NOT_STARTED, ENDED = "lost", "silent", "not started", "ended"


def wrong_with(replica: Replica, variant: Variant, sight: Sight, now_ms: int) -> str | None:
    """Return why a replica must be replaced; None while it is all right or on its way."""
    if sight.process == "running":
        if replica.ready_ms is not None:
            return SILENT if sight.silent_s >= UNHEALTHY_S else None
        since_ms = replica.launched_ms
        late = since_ms is not None and now_ms - since_ms > variant.startup_timeout_s * 1000
        return NOT_STARTED if late and not sight.healthy else None
    if sight.process == "absent":
        return LOST if replica.launched_ms is not None else None
    killed = sight.exit_code is not None and sight.exit_code < 0
    return LOST if sight.process == "lost" or killed else ENDED


def startup_failure(variant: Variant, sight: Sight, reason: str) -> str:
    """Return the FailureReason of a replica that did not start: AWS's text, and the cause."""
    text = PING_FAILED.format(container="primary", variant=variant.name)
    if sight.trace:
        return f"{text} {sight.trace}"
    if reason == NOT_STARTED:
        return f"{text} It did not answer within {variant.startup_timeout_s} seconds."
    return f"{text} {end}." if (end := ended(sight)) else text


def ended(sight: Sight) -> str:
    """Return how a replica's process ended; empty while it runs, and where nobody knows."""
    if sight.exit_code is None:
        return ""
    if sight.exit_code < 0:
        return killed_by(-sight.exit_code)
    return f"The container ended with exit code {sight.exit_code}"


def started(
    replica: Replica, sight: Sight, prepared: bool, look: Look, launch: list[Replica]
) -> Replica:
    """Return a replica with what is known of it now; ask for its launch when it is time."""
    if sight.process == "absent":
        if prepared and replica.not_before_ms <= look.now_ms and replica.launched_ms is None:
            launch.append(replica)
        return replica
    launched_ms = replica.launched_ms or look.now_ms
    ready_ms = replica.ready_ms
    if sight.healthy and ready_ms is None:
        ready_ms = look.now_ms
    return replica.replace(launched_ms=launched_ms, ready_ms=ready_ms)


def successor(dead: Replica, look: Look) -> Replica:
    """Return what takes a dead replica's place: at once, then later each time."""
    steady = dead.ready_ms is not None and look.now_ms - dead.ready_ms >= STEADY_S * 1000
    restarts = 1 if steady else dead.restarts + 1
    wait_s = 0.0
    if restarts > 1:
        wait_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (restarts - 2))
    return Replica(
        id=look.new_id(),
        deployment=dead.deployment,
        variant=dead.variant,
        created_ms=look.now_ms,
        restarts=restarts,
        not_before_ms=look.now_ms + round(wait_s * 1000),
    )


def starved(replicas: list[Replica], look: Look) -> str | None:
    """Return why a new deployment is given up for want of capacity, or None."""
    waits = [r.created_ms for r in replicas if r.launched_ms is None]
    if look.no_capacity is None or not waits:
        return None
    if look.now_ms - min(waits) < CAPACITY_WAIT_S * 1000:
        return None
    return NO_CAPACITY.format(message=look.no_capacity)


def resized(
    deployment: Deployment, replicas: list[Replica], look: Look
) -> tuple[list[Replica], list[Replica]]:
    """Return as many replicas as each variant shall have, and those that are too many."""
    kept: list[Replica] = []
    surplus: list[Replica] = []
    for variant in deployment.variants:
        mine = [replica for replica in replicas if replica.variant == variant.name]
        # the oldest ready ones stay
        mine.sort(key=lambda r: (r.ready_ms is None, r.ready_ms or 0, r.created_ms))
        surplus += mine[variant.count :]
        kept += mine[: variant.count]
        kept += [
            Replica(
                id=look.new_id(),
                deployment=deployment.id,
                variant=variant.name,
                created_ms=look.now_ms,
            )
            for _ in range(variant.count - len(mine))
        ]
    return kept, surplus


def wind_down(status: EndpointStatus, state: State, look: Look) -> Plan:
    """Return the plan for an endpoint all of whose replicas go."""
    plan = clear(Plan(status=status, state=state), look)
    if plan.state.leaving:
        return plan
    return replace(plan, delete=status is E.DELETING, pause_s=None)


def clear(plan: Plan, look: Look) -> Plan:
    """Return the plan with what is to be done about the replicas on their way out."""
    stop: list[Replica] = []
    forget: list[Replica] = []
    for replica in plan.state.leaving:
        sight = look.of(replica)
        if sight.process != "running":
            forget.append(replica)
        elif not sight.busy or look.now_ms - (replica.left_ms or 0) > DRAIN_S * 1000:
            stop.append(replica)
    leaving = tuple(replica for replica in plan.state.leaving if replica not in forget)
    state = plan.state.replace(leaving=leaving)
    return replace(plan, state=state, stop=tuple(stop), forget=tuple(forget))
