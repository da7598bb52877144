"""The platform: the one place that lists services, loops, engine and store, and wires them.

Store -> services -> gateway (HTTP) + reconciler (loops) + doors (sandboxes) + HTTPS proxy
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version

from cloche.core import executors, ids
from cloche.core import home as homes
from cloche.core.authorization import Authorizer
from cloche.core.clock import Clock, SystemClock
from cloche.core.config import Config
from cloche.core.held import Handed, Held
from cloche.core.lag import Lag
from cloche.core.typed import encode
from cloche.engine import Capacity
from cloche.engine.local.engine import LocalEngine
from cloche.environments import background
from cloche.events import EventLog
from cloche.gateway import Gateway, LocalRequest, Response
from cloche.gateway.authority import Authority
from cloche.gateway.doors import CREDENTIALS_PATH, Doorkeeper
from cloche.gateway.egress import Destination, Fenced, Open, networks, upstream_of
from cloche.gateway.event_paths import EVENTS_PATH, EventPaths
from cloche.gateway.iam_paths import EXPLANATION_PATH, FINDINGS_PATH, SUGGESTION_PATH, IamPaths
from cloche.gateway.listener import Listener
from cloche.gateway.own_paths import local_json
from cloche.gateway.owner import END_PATH, SESSION_PATH, STATUS_PATH, OwnerSessions
from cloche.gateway.passing import Passing
from cloche.gateway.proxy import Proxy
from cloche.operation import Service
from cloche.outside import PublicBuckets, RealS3, UpstreamProxy
from cloche.reconciler import Reconciler
from cloche.records.store import Store
from cloche.services import cloudtrail, cloudwatch, iam, logs, s3, sagemaker, sagemaker_runtime, sts

logger = logging.getLogger("cloche.app")
# What `cloche up --engine` names.
ENGINES: Mapping[str, Callable[[Config], LocalEngine]] = {
    "local": lambda config: LocalEngine(config.home.runs, port=config.port),
}


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The root user's key pair, where it is chosen and not generated (tests)."""

    access_key_id: str | None = None
    secret_access_key: str | None = None


class App:
    """One platform in one home folder: `start`, then `stop`; in an asyncio loop."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        root: RootKeys | None = None,
        authorizer: Authorizer | None = None,
        handed: Handed | None = None,
    ) -> None:
        """handed: what its parent holds for it; without, it takes the home folder and its ports.

        authorizer: asked in place of the policies (tests that record what is asked).
        """
        self.config, self.root, self.handed = config, root or RootKeys(), handed
        self.given = authorizer
        self.clock: Clock = clock or SystemClock()
        self.lag = Lag()
        self.came_up = asyncio.Event()  # the address answers before
        self.closing = contextlib.AsyncExitStack()

    async def start(self, log: str | None = None) -> None:
        """Serve: returns once the address answers. Busy, PortTaken, HomeError and OSError say why
        not; then nothing is left behind. `log` is where the server's own log goes, for clients.
        """
        try:
            await self._start(log)
        except BaseException:
            await self.closing.aclose()
            raise

    async def stop(self) -> None:
        """End what is under way, keep everything, free the home folder. Gangs go on running."""
        await self.closing.aclose()

    async def status(self, request: LocalRequest) -> Response:
        """Answer `/_cloche/status`: what `cloche status` shows beside the account's resources."""
        await self.came_up.wait()
        capacity, isolation, held_mib = await executors.ENGINE.run(self._look_at_engine)
        content = {
            "version": version("cloche"),
            "home": str(self.config.home.path),
            "account": self.config.account,
            "region": self.config.region,
            "server": encode(self.told),
            "isolation": isolation,
            "capacity": asdict(capacity),
            "fork_servers_mib": held_mib,
            "event_loop": self.lag.report(),
            "options": {
                "public_buckets": self.config.public_buckets,
                "pass_foreign_keys": self.config.pass_foreign_keys,
                "gpu_instances": self.config.gpu_instances,
            },
            "failing_loops": self.reconciler.failures(),
            "root_has_mfa": bool(self.identity.mfa.of(self.config.account)),
        }
        return local_json(200, content)

    async def end_processes(self, request: LocalRequest) -> Response:
        """Answer `POST /_cloche/end-processes`: ask every process of user code, and every build of
        an environment, to end.

        The loops are stopped first, or they would start them again: the server is to go down next.
        """
        await self.came_up.wait()
        await self._end_reconciler()
        gangs = await executors.ENGINE.run(self.engine.adopt)
        for gang in gangs:
            await executors.ENDINGS.run(self.engine.stop, gang)
        await executors.BUILDS.run(background.stop, self.config.home)
        return local_json(200, {})

    def _look_at_engine(self) -> tuple[Capacity, str, list[float]]:
        engine = self.engine
        return engine.capacity(), engine.isolation, engine.fork_servers.memory_mib()

    async def _start(self, log: str | None) -> None:
        closing = self.closing
        held = self.handed.held if self.handed else Held.take(self.config)
        closing.callback(held.close)
        self._settle(homes.read_settings(self.config.home))
        config = self.config
        self.store = Store.open(config.home.database, self.clock)
        closing.callback(self.store.close)
        closing.push_async_callback(executors.close)
        self.events = EventLog(config.home.events)
        self.events.start()
        closing.push_async_callback(executors.FILES.run, self.events.close)
        self.authority = Authority.open(config.home.authority, self.clock, self.store.secrets)
        self._build()
        await self._bootstrap()
        await self._serve(held.sockets)
        self.lag.start()
        closing.callback(self.lag.stop)
        # Answers need no sandbox; jobs wait until it is known what isolation there is.
        await asyncio.wrap_future(self.engine.trial)
        self._hear_of_endings()
        self.reconciling = asyncio.create_task(self.reconciler.run(), name="reconciler")
        closing.push_async_callback(self._end_reconciler)
        homes.write_choices(config)
        self.told = self._tell(log)
        homes.write_server(config.home, self.told)
        closing.callback(config.home.server.unlink, missing_ok=True)
        self.came_up.set()

    def _settle(self, settings: homes.Settings | None) -> None:
        """Keep what a new home folder is made with, or be the account of an old one.

        An older format is this one from here on, before anything is written that it can't hold.
        """
        if settings is not None:
            self.config = replace(self.config, account=settings.account)
            if settings.format != homes.FORMAT:
                homes.write_settings(self.config.home, settings.replace(format=homes.FORMAT))
            return
        made = homes.Settings(
            format=homes.FORMAT,
            version=version("cloche"),
            account=self.config.account,
            region=self.config.region,
        )
        homes.write_settings(self.config.home, made)

    def _tell(self, log: str | None) -> homes.Server:
        """Return what is said of this server in the home folder."""
        handed = self.handed
        return homes.Server(
            pid=os.getpid(),
            address=self.config.address,
            proxy=self.config.proxy_address,
            version=version("cloche"),
            started=self.clock.now().isoformat(),
            log=log,
            parent=handed.parent if handed else None,
            restarts=handed.restarts if handed else 0,
            ended=handed.ended if handed else None,
        )

    def _build(self) -> None:
        """Make every part. The order is the order in which they need one another."""
        config, store, clock = self.config, self.store, self.clock
        self.s3 = s3.S3(store, config.home.blobs)
        self.closing.callback(self.s3.close)
        self.logs = logs.Logs(store, config.home.logs)
        self.cloudwatch = cloudwatch.CloudWatch(store)
        buckets = s3.BucketPolicies(self.s3, iam.compiled)
        self.policies = iam.Policies(store, buckets.resource_policy)
        authorizer: Authorizer = self.given or self.policies
        self.identity = iam.Identity(store, clock, authorizer, self.events)
        self.engine = ENGINES[config.engine](config)
        self.closing.push_async_callback(self._end_trial)
        self.upstream = upstream_of()
        fenced = Fenced(self.upstream, networks(config.allow_egress), config.port)
        self.doors = Doorkeeper(
            engine=self.engine,
            gateway_for=lambda gang: self.gateway.for_gang(gang),
            sessions=self.identity,
            authority=self.authority,
            egress=fenced,
            clock=clock,
        )
        sources = self._build_outside()
        self.sagemaker = sagemaker.SageMaker(
            store=store,
            engine=self.engine,
            s3=self.s3,
            logs=self.logs,
            cloudwatch=self.cloudwatch,
            identity=self.identity,
            doors=self.doors,
            config=config,
            sources=sources,
        )
        self.closing.push_async_callback(self.sagemaker.close)
        services: tuple[Service, ...] = (
            s3.service(self.s3),
            logs.service(self.logs),
            cloudwatch.service(self.cloudwatch),
            cloudtrail.service(self.events),
            iam.service(self.identity),
            sts.service(self.identity),
            sagemaker.service(self.sagemaker),
            sagemaker_runtime.service(self.sagemaker),
        )
        self.gateway = Gateway(
            {service.name: service for service in services},
            credentials=self.identity,
            store=store,
            clock=clock,
            config=config,
            authorizer=authorizer,
            passing=self.passing,
            events=self.events,
        )
        self._add_own_paths()
        self.reconciler = Reconciler(store, [one for each in services for one in each.loops])
        self.gateway.local.failures = self.reconciler.failures

    def _add_own_paths(self) -> None:
        local, events = self.gateway.local, EventPaths(self.events)
        permissions = IamPaths(self.identity, self.events, self.config.account, self.policies)
        local.add(STATUS_PATH, self.status, access="known", method="GET")
        local.add(EVENTS_PATH, events.events, access="owner", method="GET")
        local.add(SUGGESTION_PATH, permissions.suggestion, access="owner", method="GET")
        local.add(EXPLANATION_PATH, permissions.explanation, access="owner", method="GET")
        local.add(FINDINGS_PATH, permissions.findings, access="owner", method="GET")
        local.add(CREDENTIALS_PATH, self.doors.credentials, access="gang")

    def _hear_of_endings(self) -> None:
        """Have whom the end of a gang concerns told of it."""
        events, ended = asyncio.get_running_loop(), self.sagemaker.gangs.ended

        def tell(gang: str) -> None:
            events.call_soon_threadsafe(ended, gang)

        self.engine.on_ended(tell)
        self.closing.push_async_callback(executors.ENGINE.run, self.engine.close)

    def _build_outside(self) -> s3.Sources:
        """Make what reads the real S3: for clients, and (returned) for jobs and endpoints."""
        config = self.config
        real = RealS3(config.s3_address, self._route_outside)
        public = PublicBuckets(config.public_buckets)
        self.passing = Passing(
            real,
            public,
            self.s3.bucket_exists,
            frozenset((config.host.lower(), *config.host_names)),
            config.pass_foreign_keys,
        )
        self.closing.callback(self.passing.close)
        return s3.Sources(self.s3, real, public)

    def _route_outside(self, host: str, port: int) -> UpstreamProxy | None:
        """Return the proxy by which this machine reaches a host outside."""
        return self.upstream.route(Destination(host, port), secure=True)

    async def _bootstrap(self) -> None:
        """Make the account, its root user and the execution role; say where clients find them."""
        config = self.config
        self.closing.push_async_callback(self.identity.close)
        made = await self.identity.bootstrap(
            config.account,
            config.region,
            self.root.access_key_id,
            self.root.secret_access_key,
            now=self.clock.now(),
        )
        # One for all servers of an `up`: who read it waits while the next of them is started.
        token = self.handed.token if self.handed else ids.secret_access_key()
        self.owner = OwnerSessions(
            partial(iam.session_as, self.identity, config.account), self.clock
        )
        local = self.gateway.local
        local.token = token
        local.add(SESSION_PATH, self.owner.session, access="owner", method="POST")
        local.add(END_PATH, self.end_processes, access="owner", method="POST")
        keys = homes.OwnerKeys(
            account=config.account,
            region=config.region,
            access_key_id=made.root.access_key_id,
            secret_access_key=made.root.secret_access_key,
            role_arn=made.role_arn,
            token=token,
        )
        homes.write_owner_keys(config.home, keys)

    async def _serve(self, sockets: Mapping[str, socket.socket]) -> None:
        mounts = self.gateway.mounts
        self.closing.push_async_callback(mounts.close)
        await mounts.start()
        self.listener = Listener(self.gateway, mounts=mounts)
        self.proxy = Proxy(self.listener, self.authority, Open(self.upstream))
        self.closing.push_async_callback(self.listener.close)
        self.closing.push_async_callback(self.doors.close_all)
        self.closing.push_async_callback(self.proxy.close)
        await self.proxy.listen(sockets["proxy"])
        await self.listener.listen(sockets["gateway"])

    async def _end_trial(self) -> None:
        """Leave nothing at work in the home folder, where the start failed meanwhile."""
        await asyncio.gather(asyncio.wrap_future(self.engine.trial), return_exceptions=True)

    async def _end_reconciler(self) -> None:
        self.reconciling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.reconciling
