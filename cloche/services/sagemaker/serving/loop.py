"""Makes endpoints true: looks at the replicas, decides (decide), acts, writes.

Whatever is done can be done again: replicas are recorded before they are launched, and stopped
only after the record says that they leave. So a server killed between any two lines goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cloche.core import executors
from cloche.core.beneath import remove as remove_tree
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.core.typed import encode
from cloche.engine import Address, EngineError, InsufficientCapacity, Seen
from cloche.loop import Loop
from cloche.records.store import Resource
from cloche.replicas.connection import request_head
from cloche.replicas.health import Pace, Pings
from cloche.replicas.replacement import ABSENT, Sight
from cloche.services.sagemaker import failure_log, no_effect
from cloche.services.sagemaker.serving.decide import (
    CAPACITY_PAUSE_S,
    SOON_S,
    EndpointPlan,
    Observation,
    decide,
    ended,
)
from cloche.services.sagemaker.serving.metrics import EndpointMetrics
from cloche.services.sagemaker.serving.model_folders import ModelFolders
from cloche.services.sagemaker.serving.record import (
    ENDPOINT,
    Deployment,
    Endpoint,
    Replica,
    State,
    Variant,
    endpoint,
    log_group,
)
from cloche.services.sagemaker.serving.replica_gang import (
    HOST,
    Folders,
    claim,
    gang_spec,
    last_line,
    prepare,
)
from cloche.services.sagemaker.serving.router import VariantRoute
from cloche.services.sagemaker.serving.variant_software import Software
from cloche.services.sagemaker.software.instance import open_doors
from cloche.services.sagemaker.software.instance_types import in_log

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

# A container must answer a ping within 2 s (hosting, "Your own code").
PING = request_head("GET", "/ping", 0, ()), b""
PACE = Pace(timeout_s=2.0, pause_s=2.0, calm_pause_s=12.0)
QUEUED_PAUSE_S = 60.0  # between two looks at an endpoint that others wait for memory before
WAKE_PAUSE_S = 0.1  # between looks that something told asks for
NAMED = 3  # names in a message
logger = logging.getLogger("cloche.sagemaker.endpoint")


def instance_id() -> str:
    """Return an EC2 instance id, as log streams of endpoints show it."""
    return f"i-{secrets.token_hex(9)[:17]}"


@dataclass
class Memory:
    """What the loop knows of endpoints beside their records; lost at a restart, and found again."""

    woken: dict[str, float] = field(default_factory=dict)  # endpoint ARN -> event loop time
    refused: dict[str, str] = field(default_factory=dict)  # endpoint ARN -> want; who waits longest
    broken: dict[str, str] = field(default_factory=dict)  # replica id -> why it did not launch
    addresses: dict[str, Address] = field(default_factory=dict)  # by replica id, once it runs
    clean: dict[str, frozenset[str]] = field(default_factory=dict)  # ARN -> deployments on disk


class EndpointLoop(Loop):
    """Looks after endpoints."""

    kind: ClassVar[str] = ENDPOINT

    def __init__(self, sagemaker: SageMaker, new_id: Callable[[], str] = instance_id) -> None:
        super().__init__()
        self.sagemaker, self.new_id = sagemaker, new_id
        self.models = ModelFolders(sagemaker.sources_as)
        self.software = Software(sagemaker, self.wake)
        self.metrics = EndpointMetrics(sagemaker)
        self.memory = Memory()
        self.pings = Pings(PING, PACE)
        sagemaker.gangs.freed.append(self.freed)
        sagemaker.router.noted = self.wake

    def wake(self, arn: str) -> None:
        """Have an endpoint looked at, now or, when it just was, soon."""
        events = asyncio.get_running_loop()
        now, last = events.time(), self.memory.woken.get(arn, float("-inf"))
        if last > now:
            return  # it will be
        at = self.memory.woken[arn] = max(now, last + WAKE_PAUSE_S)
        events.call_at(at, super().wake, arn)

    def freed(self) -> None:
        """Have the endpoint that waits longest try again: there may be memory."""
        if self.memory.refused:
            self.wake(next(iter(self.memory.refused)))

    def _note(self, arn: str, refusal: str | None) -> None:
        """Note what an endpoint waits for; when the first waits no more, the next one tries."""
        if refusal is not None:
            self.memory.refused[arn] = refusal
        elif arn in self.memory.refused:
            del self.memory.refused[arn]
            self.freed()

    def load(self) -> Sequence[Resource]:
        """Return every endpoint: one that is in service is watched too."""
        return self.sagemaker.store.each(ENDPOINT)

    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""
        return True

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one endpoint."""
        found = endpoint(resource)
        folders = Folders.of(resource, self.sagemaker.config)
        look = await self._look(found, folders)
        plan = decide(found, look)
        self._publish(found, plan, look)
        plan = await self._launch(found, plan, folders)
        await self._end(found, plan, folders)
        if plan.delete:
            return await self._delete(found, folders)
        if plan.state != found.state or plan.status != found.status:
            document = encode(plan.state)
            await self.sagemaker.store.update(resource, status=plan.status, document=document)
            self._tell(found, plan, look)
        await self._tidy(found, plan.state, folders)
        await self.metrics.report(found)
        if plan.status != found.status:
            return 0.0
        if plan.pause_s is None:
            return None
        pause_s, waiting = plan.pause_s, self.memory.refused
        behind = resource.arn in waiting and next(iter(waiting)) != resource.arn
        if behind and pause_s == CAPACITY_PAUSE_S:
            pause_s = QUEUED_PAUSE_S  # it is woken when it comes first
        return min(pause_s, self.metrics.pause_s(found))

    def _tell(self, found: Endpoint, plan: EndpointPlan, look: Observation) -> None:
        """Say in the server's log what failed, and which replicas died in service."""
        if plan.state.failure is not None and plan.state.failure != found.state.failure:
            failure_log.failed(found.resource, plan.state.failure)
        serving = found.state.serving
        going = {replica.id for replica in (*plan.state.leaving, *plan.forget)}
        for replica in () if serving is None else serving.replicas:
            sight = look.of(replica)
            if replica.id in going and (end := sight.trace or ended(sight)):
                failure_log.failed(found.resource, f"{replica.id}: {end}", "lost a replica")

    # ------------------------------------------------------------------ look

    async def _look(self, found: Endpoint, folders: Folders) -> Observation:
        state = found.state
        current = [d for d in (state.serving, state.coming) if d is not None]
        staying = [replica for deployment in current for replica in deployment.replicas]
        seen, traces = await executors.ENGINE.run(self._see, state.replicas, folders)
        running = [r for r in staying if (s := seen[r.id]) is not None and s.state == "running"]
        lost = partial(self.wake, found.resource.arn)
        addresses = self.memory.addresses
        await asyncio.gather(
            *(
                self.pings.ping(r.id, addresses[r.id], lost, ready=r.ready_ms is not None)
                for r in running
                if r.id in addresses
            )
        )
        await asyncio.gather(*(self._open_doors(found, r) for r in running))
        for replica in running:
            self.sagemaker.gangs.expect(replica.gang, found.resource.arn, self.wake)
        sights = {
            replica.id: self._sight(replica, seen[replica.id], traces.get(replica.id, ""))
            for replica in state.replicas
        }
        wanted = {d.id: d for d in (*current, found.wanted) if d.id != state.refused}
        return Observation(
            seen=sights,
            models={
                d.id: await self.software.look(
                    found.resource, d, self.models.look(d, folders.deployment(d.id)), folders
                )
                for d in wanted.values()
                if not self._ending(found)
            },
            now_ms=to_ms(self.sagemaker.store.clock.now()),
            new_id=self.new_id,
            no_capacity=self.memory.refused.get(found.resource.arn),
        )

    def _ending(self, found: Endpoint) -> bool:
        return found.status in ("Deleting", "Failed")

    def _see(
        self, replicas: Sequence[Replica], folders: Folders
    ) -> tuple[Mapping[str, Seen | None], Mapping[str, str]]:
        """Return what the engine says of each replica's process, and why those ended that did."""
        seen: dict[str, Seen | None] = {}
        traces: dict[str, str] = {}
        engine, addresses = self.sagemaker.engine, self.memory.addresses
        for replica in replicas:
            gang = engine.see(replica.gang)
            found = seen[replica.id] = gang.get(HOST) if gang else None
            if found is not None and found.state == "exited":
                engine.collect(replica.gang, folders.run(replica))
                traces[replica.id] = found.detail or last_line(folders.run(replica))
            elif found is not None and replica.id not in addresses:
                address = engine.address(replica.gang, HOST)
                if address is not None:
                    addresses[replica.id] = address
        return seen, traces

    async def _open_doors(self, found: Endpoint, replica: Replica) -> None:
        variant = self._variant(found.state, replica)
        await open_doors(
            self.sagemaker.doors,
            replica.gang,
            found.resource,
            variant.role_arn,
            isolated=variant.network_isolation,
        )

    def _sight(self, replica: Replica, seen: Seen | None, left: str) -> Sight:
        if (trace := self.memory.broken.get(replica.id)) is not None:
            return Sight(process="exited", exit_code=1, trace=trace)
        if seen is None:
            return ABSENT
        heard, now = self.pings.heard.get(replica.id), asyncio.get_running_loop().time()
        return Sight(
            process=seen.state,
            healthy=heard is not None and heard.healthy,
            watched=heard is not None and heard.pinger.connected,
            silent_s=max(0.0, now - (0.0 if heard is None else heard.answered)),
            exit_code=seen.exit_code,
            trace=left,
            busy=self.sagemaker.router.in_flight(replica.id) > 0,
        )

    # ------------------------------------------------------------------ act

    def _publish(self, found: Endpoint, plan: EndpointPlan, look: Observation) -> None:
        """Tell the router who is ready, before anything is stopped."""
        router, arn, serving = self.sagemaker.router, found.resource.arn, plan.state.serving
        if serving is None:
            router.withdraw(arn)
            return
        addresses = self.memory.addresses
        router.publish(
            arn,
            [
                VariantRoute(
                    variant.name,
                    variant.weight,
                    {
                        replica.id: addresses[replica.id]
                        for replica in serving.of(variant.name)
                        if look.up(replica) and replica.id in addresses
                    },
                )
                for variant in serving.variants
            ],
        )

    async def _launch(self, found: Endpoint, plan: EndpointPlan, folders: Folders) -> EndpointPlan:
        """Launch; return the plan with the times of those that were placed."""
        placed: dict[str, str | None] = {}  # replica id -> the layer it has
        lacking: str | None = None
        for replica in plan.launch:
            refusal = await self._launch_one(found, replica, plan.state, folders)
            if refusal is None:
                layer = self.software.layer(replica)
                placed[replica.id] = None if layer is None else layer.name
            else:
                lacking = refusal
        self._note(found.resource.arn, lacking)
        now_ms = to_ms(self.sagemaker.store.clock.now())

        def mark(deployment: Deployment | None) -> Deployment | None:
            if deployment is None or not placed:
                return deployment
            replicas = tuple(
                r.replace(launched_ms=now_ms, layer=placed[r.id]) if r.id in placed else r
                for r in deployment.replicas
            )
            return deployment.replace(replicas=replicas)

        state = plan.state
        state = state.replace(serving=mark(state.serving), coming=mark(state.coming))
        return replace(plan, state=state)

    async def _launch_one(
        self, found: Endpoint, replica: Replica, state: State, folders: Folders
    ) -> str | None:
        """Launch one replica; return why there is no room for it, or None."""
        sagemaker, resource = self.sagemaker, found.resource
        variant, layer = self._variant(state, replica), self.software.layer(replica)
        stream = f"{variant.name}/{replica.id}"
        try:
            # Asked before anything is made for it: it may be asked many times.
            refused = await executors.ENGINE.run(sagemaker.engine.room, claim(replica, variant))
            if refused is not None:
                return await self._lacking(replica, variant, refused)
            model = folders.model(replica.deployment, variant.name)
            software = await executors.BUILDS.run(
                self.software.prepared, replica.deployment, variant, model, layer
            )
            group, otherwise = log_group(resource.name), folders.log(replica)
            log = await sagemaker.open_log(resource, variant.role_arn, group, stream, otherwise)
            await executors.FILES.run(prepare, replica, folders)
            spec = await executors.FILES.run(
                gang_spec,
                replica,
                variant,
                folders=folders,
                software=software,
                config=sagemaker.config,
                engine=sagemaker.engine,
                log=log,
            )
            lines, where = no_effect.line(variant.no_effect), in_log([variant.instance_type])
            now_ms = to_ms(sagemaker.store.clock.now())
            await executors.LOGS.run(software.say, log, now_ms, variant.image, lines, where)
            sagemaker.gangs.expect(replica.gang, resource.arn, self.wake)
            outcome = await executors.LAUNCHES.run(sagemaker.engine.launch, spec)
        except (EngineError, AwsError) as error:
            logger.error("%s: %s", replica.gang, error)
            self.memory.broken[replica.id] = str(error)
            return None
        if isinstance(outcome, InsufficientCapacity):
            return await self._lacking(replica, variant, outcome)
        return None

    async def _lacking(
        self, replica: Replica, variant: Variant, refused: InsufficientCapacity
    ) -> str:
        """Return what a replica waits for, in a line."""
        held = await executors.RECORDS.run(self._held, refused)
        return f"{variant.instance_type} {refused.lacking(replica.gang)}{held}"

    def _held(self, refused: InsufficientCapacity) -> str:
        """Return who has what a replica lacks, by the names that users gave."""
        # Jobs take nothing from endpoints (engine/local/accounts.py).
        names = [
            name
            for name in self.sagemaker.gangs.owners(refused.holders)
            if not name.startswith("training job ")
        ]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"; held by {', '.join(names[:NAMED])}{more}" if names else ""

    async def _end(self, found: Endpoint, plan: EndpointPlan, folders: Folders) -> None:
        """Stop what leaves by the record as it stands, and remove what has ended."""
        engine = self.sagemaker.engine
        recorded = {replica.id for replica in found.state.leaving}
        for replica in plan.stop:
            if replica.id in recorded:
                await executors.ENDINGS.run(engine.stop, replica.gang)
        for replica in plan.forget:
            await self.sagemaker.doors.close(replica.gang)
            await executors.ENDINGS.run(engine.forget, replica.gang)
            await executors.FILES.run(remove_tree, folders.replica(replica))
            self.pings.forget(replica.id)
            self.memory.broken.pop(replica.id, None)
            self.memory.addresses.pop(replica.id, None)
            self.sagemaker.gangs.forget(replica.gang)

    async def _delete(self, found: Endpoint, folders: Folders) -> float | None:
        """Remove all that is kept of the endpoint, then its record."""
        self.models.stop(folders.root)
        if self.models.under_way(folders.root):
            return SOON_S
        self.models.forget(folders.root)
        self.software.forget(found.wanted.id)
        await self.metrics.report(found, last=True)
        await executors.FILES.run(remove_tree, folders.root)
        self.memory.clean.pop(found.resource.arn, None)
        self._note(found.resource.arn, None)
        self.memory.woken.pop(found.resource.arn, None)
        await self.sagemaker.store.delete(found.resource)
        return None

    async def _tidy(self, found: Endpoint, state: State, folders: Folders) -> None:
        """Remove the models of deployments that are gone."""
        arn, needed = found.resource.arn, state.deployments
        if self.memory.clean.get(arn) == needed:
            return
        if not self._ending(found) and found.wanted.id != state.refused:
            needed |= {found.wanted.id}
        parent = folders.deployment("")
        for name in await executors.FILES.run(names, parent):
            if name not in needed:
                folder = folders.deployment(name)
                self.models.stop(folder)
                if self.models.under_way(folder):
                    return  # at the next step
                self.models.forget(folder)
                self.software.forget(name)
                await executors.FILES.run(remove_tree, folder)
        self.memory.clean[arn] = state.deployments

    def _variant(self, state: State, replica: Replica) -> Variant:
        deployments = (state.serving, state.coming)
        owner = next(d for d in deployments if d is not None and d.id == replica.deployment)
        return owner.variant(replica.variant)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder; nothing when it is not there."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
