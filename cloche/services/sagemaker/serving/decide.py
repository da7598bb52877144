"""What to do next for an endpoint: a pure function of its record and of what is seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cloche.replicas.replacement import (
    ABSENT,
    Fault,
    ReplacementPolicy,
    Sight,
    due,
    left,
    observed,
    oldest_ready_first,
)
from cloche.runtime.signals import killed_by
from cloche.services.sagemaker.serving.record import (
    PING_FAILED,
    Deployment,
    Endpoint,
    EndpointStatus,
    Replica,
    State,
    Variant,
)

E = EndpointStatus
REPLACEMENT = ReplacementPolicy(
    starts=3,
    unhealthy_s=30.0,
    steady_s=60.0,
    first_backoff_s=1.0,
    last_backoff_s=60.0,
    drain_s=65.0,
)
CAPACITY_WAIT_S = 1800.0  # that a new deployment waits for memory to become free
# Until the next look: on its way; waiting for capacity; settled, but nothing would tell of an end;
# settled, when an end would be told.
SOON_S, CAPACITY_PAUSE_S, POLL_PAUSE_S, CALM_PAUSE_S = 0.1, 1.0, 0.5, 15.0

NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
    " {message}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """How far the models of a deployment are unpacked, by variant; `failed` has the reasons."""

    ready: frozenset[str] = frozenset()
    failed: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """What to do, and the record that follows when it is done. Only `launch` may be refused."""

    status: EndpointStatus
    state: State
    launch: tuple[Replica, ...] = ()
    stop: tuple[Replica, ...] = ()
    forget: tuple[Replica, ...] = ()
    delete: bool = False
    pause_s: float | None = SOON_S


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a decision rests on, beside the record."""

    seen: Mapping[str, Sight]  # by replica id
    models: Mapping[str, Models]  # by deployment id
    now_ms: int
    new_id: Callable[[], str]
    no_capacity: str | None = None  # what the engine said when it last refused a launch

    def of(self, replica: Replica) -> Sight:
        """Return what is seen of the replica."""
        return self.seen.get(replica.id, ABSENT)

    def up(self, replica: Replica) -> bool:
        """Return whether the replica may be sent requests."""
        return replica.ready_ms is not None and REPLACEMENT.is_up(self.of(replica))


def decide(endpoint: Endpoint, look: Observation) -> EndpointPlan:
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
    plan = clear(EndpointPlan(status=status, state=state, launch=tuple(launch)), look)
    return replace(plan, pause_s=pause_s(plan, look))


def pause_s(plan: EndpointPlan, look: Observation) -> float:
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
    look: Observation,
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


def complete(deployment: Deployment, look: Observation) -> bool:
    """Return whether every variant has as many replicas as it shall, all ready."""
    return all(
        len(mine := deployment.of(variant.name)) == variant.count
        and all(look.up(replica) for replica in mine)
        for variant in deployment.variants
    )


def converge(
    deployment: Deployment, look: Observation, launch: list[Replica], *, new: bool
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
        wrong = REPLACEMENT.fault(replica, sight, variant.startup_timeout_s, look.now_ms)
        if wrong is None:
            kept.append(observed(replica, sight, look.now_ms))
            if variant.name in models.ready and due(replica, sight, look.now_ms):
                launch.append(replica)
            continue
        if new and REPLACEMENT.gives_up(replica, wrong):
            return (deployment, ()), startup_failure(variant, sight, wrong)
        dead.append(replica)
        next_one = REPLACEMENT.successor(replica, look.new_id(), look.now_ms)
        kept.append(next_one.replace(layer=None))
    if new and (reason := starved(kept, look)) is not None:
        return (deployment, ()), reason
    kept, surplus = resized(deployment, kept, look)
    return (deployment.replace(replicas=tuple(kept)), left([*dead, *surplus], look.now_ms)), None


def repaired(
    serving: Deployment, look: Observation, launch: list[Replica]
) -> tuple[Deployment, tuple[Replica, ...]]:
    """Return the serving deployment with its dead replicas replaced, and those."""
    models = look.models.get(serving.id, Models())
    calm = replace(look, models={**look.models, serving.id: replace(models, failed=None)})
    (deployment, dead), _ = converge(serving, calm, launch, new=False)
    return deployment, dead


def startup_failure(variant: Variant, sight: Sight, fault: Fault) -> str:
    """Return the FailureReason of a replica that did not start: AWS's text, and the cause."""
    text = PING_FAILED.format(container="primary", variant=variant.name)
    if sight.trace:
        return f"{text} {sight.trace}"
    if fault == "not started":
        return f"{text} It did not answer within {variant.startup_timeout_s} seconds."
    return f"{text} {end}." if (end := ended(sight)) else text


def ended(sight: Sight) -> str:
    """Return how a replica's process ended; empty while it runs, and where nobody knows."""
    if sight.exit_code is None:
        return ""
    if sight.exit_code < 0:
        return killed_by(-sight.exit_code)
    return f"The container ended with exit code {sight.exit_code}"


def starved(replicas: list[Replica], look: Observation) -> str | None:
    """Return why a new deployment is given up for want of capacity, or None."""
    waits = [r.created_ms for r in replicas if r.launched_ms is None]
    if look.no_capacity is None or not waits:
        return None
    if look.now_ms - min(waits) < CAPACITY_WAIT_S * 1000:
        return None
    return NO_CAPACITY.format(message=look.no_capacity)


def resized(
    deployment: Deployment, replicas: list[Replica], look: Observation
) -> tuple[list[Replica], list[Replica]]:
    """Return as many replicas as each variant shall have, and those that are too many."""
    kept: list[Replica] = []
    surplus: list[Replica] = []
    for variant in deployment.variants:
        mine = oldest_ready_first(r for r in replicas if r.variant == variant.name)
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


def wind_down(status: EndpointStatus, state: State, look: Observation) -> EndpointPlan:
    """Return the plan for an endpoint all of whose replicas go."""
    plan = clear(EndpointPlan(status=status, state=state), look)
    if plan.state.leaving:
        return plan
    return replace(plan, delete=status is E.DELETING, pause_s=None)


def clear(plan: EndpointPlan, look: Observation) -> EndpointPlan:
    """Return the plan with what is to be done about the replicas on their way out."""
    stop: list[Replica] = []
    forget: list[Replica] = []
    for replica in plan.state.leaving:
        sight = look.of(replica)
        if sight.process != "running":
            forget.append(replica)
        elif REPLACEMENT.drained(replica, sight, look.now_ms):
            stop.append(replica)
    leaving = tuple(replica for replica in plan.state.leaving if replica not in forget)
    state = plan.state.replace(leaving=leaving)
    return replace(plan, state=state, stop=tuple(stop), forget=tuple(forget))
