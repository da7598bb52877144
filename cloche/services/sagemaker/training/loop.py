"""Runs training jobs: input from S3, hosts on the engine, metrics from the log, artifacts to S3.

Every step may be cut off and made again: what is written last is the record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cloche.core import executors
from cloche.core.beneath import remove as remove_tree
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.core.typed import encode, readable
from cloche.engine import InsufficientCapacity, Seen
from cloche.loop import Loop
from cloche.records.errors import Conflict, StorageFull
from cloche.records.store import Change, Resource
from cloche.services.sagemaker.software.instance import open_doors
from cloche.services.sagemaker.software.layers import LOOK_S, Installing
from cloche.services.sagemaker.training import (
    artifacts,
    attempts,
    checkpoints,
    host_usage,
    image_wait,
    inputs,
    platform_errors,
)
from cloche.services.sagemaker.training import hosts as h
from cloche.services.sagemaker.training.capacity_queue import CapacityQueue, Waiting
from cloche.services.sagemaker.training.checkpoints import Checkpoints
from cloche.services.sagemaker.training.debugger import rule_gang, rule_run
from cloche.services.sagemaker.training.decide import (
    Begin,
    End,
    Finish,
    Launch,
    Nothing,
    Started,
    StopHosts,
    Upload,
    Watch,
)
from cloche.services.sagemaker.training.outcome import REASON_LIMIT, failure_reason
from cloche.services.sagemaker.training.record import (
    TRAINING_JOB,
    Progress,
    TrainingJob,
    training_job,
)
from cloche.services.sagemaker.training.remembered import Remembered
from cloche.services.sagemaker.training.status import (
    ENDINGS,
    STATUS_OF_ENDING,
    UNSETTLED,
    SecondaryStatus,
    TrainingJobStatus,
)
from cloche.services.sagemaker.training.warm_pools import decide as warm_pools
from cloche.services.sagemaker.training.warm_pools import record as warm_pool_record

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

logger = logging.getLogger("cloche.sagemaker")
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CHECK_S = 5.0  # that the end of a job waits for the look at its pictures
FULL_FOR_S = 120.0  # that artifacts wait for space on the disk
NO_SPACE = "Insufficient disk space"
RETRY_S = 0.5  # between two tries for capacity
FULL_RETRY_S = 5.0  # between two tries for space on the disk
TRIES = 3  # to prepare a job, where the reason is none of its own
FIRST_LOOK_S, LAST_LOOK_S = 0.1, 1.0  # between two looks at a running job: soon while it is young

S = SecondaryStatus


@dataclass
class TrainingJobs(Loop):
    """The loop of training jobs."""

    sagemaker: SageMaker
    kind: ClassVar[str] = TRAINING_JOB
    remembered: dict[str, Remembered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints()
        self.queue = CapacityQueue(self.sagemaker.engine, self.sagemaker.gangs, self.wake)

    def load(self) -> Sequence[Resource]:
        """Return the jobs that have not ended."""
        found = self.sagemaker.store.each(TRAINING_JOB, UNSETTLED)
        if not self.queue.line.filled:
            jobs = readable(training_job, found)
            self.queue.line.fill(j.resource for j in jobs if j.secondary is S.PENDING)
        return found

    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""
        return resource.status in UNSETTLED

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one job. What goes wrong is told in its status before it is tried
        again.
        """
        job = training_job(resource)
        try:
            return await self.act(job)
        except Conflict:
            raise
        except Exception as error:
            self.queue.give_back(resource)
            with suppress(Exception):  # what it is about is raised, and logged
                await self.wait(job, job.secondary, platform_errors.message(error))
            raise

    async def act(self, job: TrainingJob) -> float | None:
        """Do what is next for one job."""
        if job.secondary not in (S.STARTING, S.DOWNLOADING, S.PENDING):
            self.queue.leave(job.resource)
        seen = await executors.ENGINE.run(self.sagemaker.engine.see, h.gang_of(job))
        if seen is not None:
            self.sagemaker.gangs.expect(h.gang_of(job), job.resource.arn, self.wake)
        plan = attempts.plan(job, seen, self.sagemaker.store.clock.now())
        match plan:
            case attempts.Leave():
                return await self.leave(job, plan)
            case attempts.Restart():
                return await self.restart(job)
            case attempts.Overdue():
                return await self.overdue(job)
            case Begin():
                return await self.begin(job)
            case Launch():
                return await self.launch(job)
            case Started():
                return await self.started(job)
            case Watch():
                return await self.watch(job)
            case StopHosts():
                return await self.stop(job)
            case End():
                return await self.end(job, plan, seen or {})
            case Upload():
                return await self.upload(job)
            case Finish():
                await self.finish(job)
            case Nothing():
                pass
        return None

    # ------------------------------------------------------------------ the plans

    async def begin(self, job: TrainingJob) -> float:
        """Write down that the input is presented, when it is the job's turn; billing begins."""
        if (waiting := await self.queue.turn(job.resource, h.claim(job))) is not None:
            return await self.wait_in_line(job, waiting)
        now = self.sagemaker.store.clock.now()
        pool, also = warm_pool_record.begin(self.sagemaker.store, job, now)
        progress = job.progress.go(S.DOWNLOADING, now)
        started_ms = job.progress.started_ms or to_ms(now)
        await self.write(job, progress.replace(started_ms=started_ms, pool=pool), also=also)
        return 0.0

    async def launch(self, job: TrainingJob) -> float:
        """Present the input and start the hosts; or write down what it waits for."""
        sagemaker, queue, kept = self.sagemaker, self.queue, self.kept(job)
        if not kept.preparing.begun:
            if job.secondary is S.PENDING:
                return await self.begin(job)
            if (waiting := await queue.turn(job.resource, h.claim(job))) is not None:
                return await self.wait_in_line(job, waiting)
        try:
            if not await kept.preparing.ready(job, sagemaker):
                queue.give_back(job.resource)
                return await self.wait(job, job.secondary, "Downloading input data")
            progress, built = await image_wait.awaited(job, sagemaker, lambda: self.logs(job))
            if progress is not job.progress:
                await self.write(job, progress)
            if not built:
                queue.give_back(job.resource)
                return RETRY_S
            if progress is not job.progress:
                return 0.0
            layer = await kept.layer(job, sagemaker, self.wake)
            if isinstance(layer, Installing):
                queue.give_back(job.resource)
                await self.wait(job, job.secondary, "Installing requirements.txt")
                now = sagemaker.store.clock.now()
                return max(RETRY_S, min(LOOK_S, attempts.wait_left_s(job, now)))
            if (waiting := await queue.turn(job.resource, h.claim(job))) is not None:
                return await self.wait_in_line(job, waiting)
            mls = h.mls_of(job, sagemaker.config)
            s3 = sagemaker.s3_as(job.request["RoleArn"])
            await executors.FILES.run(checkpoints.restore, s3, h.synced(job), mls)
            logs = await self.logs(job)
            gang = await executors.FILES.run(h.launch_spec, job, logs, layer, sagemaker)
            sagemaker.gangs.expect(gang.name, job.resource.arn, self.wake)
            placed = await executors.LAUNCHES.run(sagemaker.engine.launch, gang)
        except Conflict:
            raise
        except Exception as error:
            return await self.unprepared(job, error)
        if isinstance(placed, InsufficientCapacity):
            return await self.wait_in_line(job, queue.refused(job.resource, gang.name, placed))
        if channels := job.request["InputDataConfig"]:
            folder, log = h.ground_of(job, sagemaker.config).channels, logs[job.hosts[0]]
            kept.check = asyncio.create_task(sagemaker.data.warn(channels, folder, log))
        return await self.started(job)

    async def unprepared(self, job: TrainingJob, error: Exception) -> float:
        """Write down why the job could not be started: that it waits for that, or will fail."""
        self.queue.give_back(job.resource)
        if platform_errors.full(error):
            await self.wait(job, job.secondary, platform_errors.message(error))
            return FULL_RETRY_S
        failure, kept = platform_errors.reason(error), self.kept(job)
        if failure is None:
            logger.error("%s: it was not prepared", job.resource.arn, exc_info=error)
            kept.failures += 1
            if kept.failures < TRIES:
                return await self.wait(job, job.secondary, platform_errors.message(error))
            told = platform_errors.told(error)
            failure = f"InternalServerError: The job could not be prepared: {told}"
        return await self.give_up(job, failure)

    async def wait_in_line(self, job: TrainingJob, waiting: Waiting) -> float:
        """Write down that the job waits for capacity, and for whom."""
        text, now = f"Waiting for capacity: {waiting.text}", self.sagemaker.store.clock.now()
        if job.secondary is S.STARTING:
            pool, also = warm_pool_record.begin(self.sagemaker.store, job, now)
            await self.write(
                job, job.progress.go(S.PENDING, now, text).replace(pool=pool), also=also
            )
        else:
            await self.wait(job, S.PENDING, text)
        return max(RETRY_S, min(waiting.pause_s, attempts.wait_left_s(job, now)))

    async def wait(self, job: TrainingJob, status: SecondaryStatus, message: str) -> float:
        """Write down what the job waits for, if it is news."""
        last = job.progress.transitions[-1]
        if (last.status, last.message) != (status, message):
            now = self.sagemaker.store.clock.now()
            await self.write(job, job.progress.go(status, now, message))
        return RETRY_S

    async def give_up(self, job: TrainingJob, failure: str) -> float:
        """Write down that the job will fail although nothing ran, or that it is tried again."""
        if attempts.retried(job, failure):
            return await self.leave(job, attempts.Leave(S.RESTARTING, failure))
        self.queue.leave(job.resource)
        text = failure[:REASON_LIMIT]
        failed = job.progress.replace(ending=S.FAILED, failure=text, uploaded=True)
        await self.write(job, failed)
        return 0.0

    async def leave(self, job: TrainingJob, plan: attempts.Leave) -> float:
        """Write down that this attempt is given up."""
        now = self.sagemaker.store.clock.now()
        await self.write(job, job.progress.go(plan.status, now, plan.message))
        return 0.0

    async def restart(self, job: TrainingJob) -> float:
        """Let go of everything but the checkpoints, then write down that the job begins again."""
        progress = await self.harvest(job)
        await self.put_checkpoints(job, strict=False)
        await self.let_go(job)
        now = self.sagemaker.store.clock.now()
        stream_s = max(to_ms(now) // 1000, progress.stream_s + 1)
        progress = progress.go(S.STARTING, now).replace(stream_s=stream_s, read={})
        await self.write(job, progress)
        return 0.0

    async def overdue(self, job: TrainingJob) -> float:
        """Write down that the job stops because it took too long."""
        progress = job.progress.go(S.STOPPING, self.sagemaker.store.clock.now())
        await self.write(job, progress.replace(overdue=True), TrainingJobStatus.STOPPING)
        return 0.0

    async def started(self, job: TrainingJob) -> float:
        """Open the doors and write down that the hosts run."""
        self.queue.leave(job.resource)
        await self.open_doors(job)
        now = self.sagemaker.store.clock.now()
        await self.write(job, job.progress.go(S.TRAINING, now, h.under_way(job)))
        return FIRST_LOOK_S

    async def watch(self, job: TrainingJob) -> float:
        """Read logs and usage."""
        await self.open_doors(job)
        progress = await self.harvest(job, whole=False)
        await self.sample(job)
        if platform_errors.passing(progress.transitions[-1].message):  # that is over
            progress = progress.go(job.secondary, self.sagemaker.store.clock.now())
        looked = self.look_at_input(job)
        if looked.done() and looked.result() and progress.failure is None:
            progress = progress.replace(failure=looked.result())
        if progress is not job.progress:
            await self.write(job, progress)
        with suppress(AwsError):  # at the job's end it is tried again, and then it is told
            mls = await executors.FILES.run(h.collected, job, self.sagemaker)
            s3 = self.sagemaker.s3_as(job.request["RoleArn"])
            await self.checkpoints.sync(s3, h.synced(job), mls, self.sagemaker.store.clock.now())
        return min(LAST_LOOK_S, max(FIRST_LOOK_S, self.age_s(job) / 20))

    async def stop(self, job: TrainingJob) -> float:
        """Ask the hosts to end; they are served until they have."""
        await executors.ENDINGS.run(self.sagemaker.engine.stop, h.gang_of(job))
        return await self.watch(job)

    async def end(self, job: TrainingJob, plan: End, seen: Mapping[str, Seen]) -> float:
        """Write down how the job will end, with the rest of its metrics."""
        if plan.ending is S.COMPLETED:
            looked = self.look_at_input(job)
            await asyncio.wait({looked}, timeout=CHECK_S)
            if not looked.done():
                return await self.wait(job, job.secondary, "Verifying the input data")
            if damage := looked.result():
                plan = End(S.FAILED, failure=damage)
        progress, failure = await self.harvest(job), plan.failure
        if plan.failed_host is not None:
            log = (await self.logs(job))[plan.failed_host]
            failure = await executors.LOGS.run(failure_reason, job, plan, seen, log, self.sagemaker)
        if plan.ran:
            progress = progress.go(S.UPLOADING, self.sagemaker.store.clock.now())
        else:
            await self.put_checkpoints(job, strict=False)
        await self.write(
            job, progress.replace(ending=plan.ending, failure=failure, uploaded=not plan.ran)
        )
        return 0.0

    async def upload(self, job: TrainingJob) -> float:
        """Put model and output to S3; twice does no harm: the same keys, the same bytes.

        While the disk is full it is tried again, for a while: what was trained is not given up for
        a moment's fullness. What the sandboxes have left in their private folders goes first.
        """
        logs, sync = await self.logs(job), self.put_checkpoints
        rules = await rule_run.run(job, self.sagemaker, logs, sync)
        if isinstance(rules, rule_gang.Judging):
            self.sagemaker.gangs.expect(rule_gang.name_of(job), job.resource.arn, self.wake)
            return await self.wait(job, job.secondary, rules.message)
        progress = job.progress.replace(uploaded=True, rules=rules)
        try:
            await self.put_checkpoints(job, strict=True)
            s3 = self.sagemaker.s3_as(job.request["RoleArn"])
            await artifacts.put(job, h.ground_of(job, self.sagemaker.config), s3)
        except (AwsError, OSError) as error:
            full = platform_errors.full(error)
            if full:
                await executors.ENDINGS.run(self.sagemaker.engine.clear, h.gang_of(job))
            now, since_ms = self.sagemaker.store.clock.now(), job.progress.transitions[-1].start_ms
            waited_s = (to_ms(now) - since_ms) / 1000
            if (full and waited_s < FULL_FOR_S) or not (full or isinstance(error, AwsError)):
                raise
            if progress.ending is S.COMPLETED:
                why = f"{error.code}: {error.message}" if isinstance(error, AwsError) else ""
                text = f"ClientError: Artifact upload failed:{NO_SPACE if full else why}"
                progress = progress.replace(ending=S.FAILED, failure=text)
        await self.write(job, progress)
        return 0.0

    async def finish(self, job: TrainingJob) -> None:
        """Let go of everything the job held, then write its final status."""
        if (damage := self.kept(job).damage) is not None:
            damage.cancel()
        check = self.kept(job).check
        if check is not None:
            await asyncio.wait({check}, timeout=CHECK_S)
        await self.let_go(job)
        now, ending = self.sagemaker.store.clock.now(), job.progress.ending
        assert ending is not None and ending in ENDINGS
        progress = job.progress.go(ending, now).replace(pool=warm_pools.left(job, now))
        if progress.started_ms is not None:
            progress = progress.replace(ended_ms=to_ms(now))
        also = warm_pool_record.finish(self.sagemaker.store, job, progress.pool)
        await self.write(job, progress, STATUS_OF_ENDING[ending], also)

    # ------------------------------------------------------------------ what they share

    async def write(
        self,
        job: TrainingJob,
        progress: Progress,
        status: TrainingJobStatus | None = None,
        also: Sequence[Change] = (),
    ) -> None:
        """Write progress over the record that the plan was made from; Conflict when it changed."""
        document = encode(progress)
        await self.sagemaker.store.update(job.resource, status=status, document=document, also=also)
        platform_errors.tell(job, status, progress)

    def kept(self, job: TrainingJob) -> Remembered:
        """Return what is remembered of a job."""
        return self.remembered.setdefault(h.gang_of(job), Remembered())

    def age_s(self, job: TrainingJob) -> float:
        """Return the seconds since the job's billing began."""
        now = to_ms(self.sagemaker.store.clock.now())
        return (now - (job.progress.started_ms or now)) / 1000

    async def open_doors(self, job: TrainingJob) -> None:
        """Serve the platform to the hosts, unless the network is isolated."""
        await open_doors(
            self.sagemaker.doors,
            h.gang_of(job),
            job.resource,
            job.request["RoleArn"],
            isolated=job.request["EnableNetworkIsolation"],
        )

    async def logs(self, job: TrainingJob) -> Mapping[str, Path]:
        """Return each host's log file."""
        kept, r = self.kept(job), job.resource
        for host in job.hosts:
            if host not in kept.logs:
                stream = f"{r.name}/{host}-{job.progress.stream_s}"
                otherwise = h.ground_of(job, self.sagemaker.config).log(host)
                kept.logs[host] = await self.sagemaker.open_log(
                    r, job.request["RoleArn"], LOG_GROUP, stream, otherwise
                )
        return kept.logs

    async def harvest(self, job: TrainingJob, *, whole: bool = True) -> Progress:
        """Read new lines and put their metrics to CloudWatch; return progress (the same: no news).

        Not `whole`: a long log is read on at the next look.
        """
        if not job.request["AlgorithmSpecification"].get("MetricDefinitions"):
            return job.progress
        logs, kept = await self.logs(job), self.kept(job).harvest
        return await kept.look(job, logs, self.sagemaker, whole=whole)

    def look_at_input(self, job: TrainingJob) -> asyncio.Task[str | None]:
        """Return the look at the contents of the job's input, which goes on beside the job."""
        kept, folder = self.kept(job), h.ground_of(job, self.sagemaker.config).folder
        if kept.damage is None:
            kept.damage = asyncio.create_task(inputs.damage(folder, self.sagemaker.s3))
        return kept.damage

    async def sample(self, job: TrainingJob) -> None:
        """Put what the hosts use to CloudWatch, when it is time."""
        kept = self.kept(job)
        kept.sample = await host_usage.sample(job, kept.sample, self.age_s(job), self.sagemaker)

    async def put_checkpoints(self, job: TrainingJob, *, strict: bool) -> None:
        """Put what is left of the checkpoints to S3; strict: AwsError if its bucket is gone."""
        try:
            s3 = self.sagemaker.s3_as(job.request["RoleArn"])
            mls = await executors.FILES.run(h.collected, job, self.sagemaker)
            await self.checkpoints.finish(s3, h.synced(job), mls)
        except StorageFull:
            raise
        except AwsError:
            if strict:
                raise

    async def let_go(self, job: TrainingJob) -> None:
        """Let go of hosts, doors and folders."""
        gang, sagemaker = h.gang_of(job), self.sagemaker
        await self.clear_sandboxes(job)
        await rule_run.end(job, sagemaker)
        await self.kept(job).preparing.stop()
        await executors.FILES.run(remove_tree, h.ground_of(job, sagemaker.config).folder)
        sagemaker.gangs.forget(gang, rule_gang.name_of(job))
        remembered = self.remembered.pop(gang, None)
        if remembered is not None:
            remembered.harvest.close()
            if remembered.check is not None:
                remembered.check.cancel()
        self.checkpoints.forget(h.mls_of(job, sagemaker.config))
        self.queue.line.freed()

    async def clear_sandboxes(self, job: TrainingJob) -> None:
        """Let go of the hosts and their private folders."""
        await self.sagemaker.doors.close(h.gang_of(job))
        await executors.ENDINGS.run(self.sagemaker.engine.forget, h.gang_of(job))
