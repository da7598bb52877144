"""The records of warm pools: one row a folder that is kept, from before it is made until it is
removed. Each change of hands is one guarded write of that row and of the jobs that it concerns.

Its status is InUse, Available or Terminated, its document the ARN of the job that has it, or left
it. What became of it for each job stands in the job's own record.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cloche.core.clock import to_ms
from cloche.core.config import Config
from cloche.core.typed import Record, decode, encode, readable
from cloche.records.store import Change, Resource, Store
from cloche.services.sagemaker.software.instance import gang_name
from cloche.services.sagemaker.training.record import (
    WARM_POOL,
    TrainingJob,
    WarmPool,
    WarmPoolStatus,
    training_job,
)
from cloche.services.sagemaker.training.warm_pools import decide as warm_pools


class PoolHolder(Record, frozen=True, kw_only=True, rename="pascal"):
    """The document of a pool's row: the job that has it, or left it."""

    training_job_arn: str


def folder(name: str, config: Config) -> Path:
    """Return what a pool keeps: in it, a folder a host."""
    return config.home.warm_pools / name


def holder(pool: Resource, store: Store) -> TrainingJob | None:
    """Return the job that has a pool, or left it; None when another pool is its own by now."""
    found = store.find(decode(PoolHolder, pool.document, pool.arn).training_job_arn)
    job = None if found is None else training_job(found)
    own = None if job is None else job.progress.pool
    return job if own is not None and own.name == pool.name else None


def row_of(job: TrainingJob, store: Store) -> Resource | None:
    """Return the row of a job's pool, while there is one."""
    pool, r = job.progress.pool, job.resource
    return None if pool is None else store.get(WARM_POOL, r.account, r.region, pool.name)


def begin(store: Store, job: TrainingJob, now: datetime) -> tuple[WarmPool | None, list[Change]]:
    """Return the pool that a job begins with, and what must be written together with it.

    A job that begins again has its pool already. Without one to take, a job that shall leave a
    pool makes one: that is its cold start.
    """
    if job.progress.pool is not None or not warm_pools.takes_part(job):
        return job.progress.pool, []
    rows = store.each(WARM_POOL, (WarmPoolStatus.AVAILABLE,))
    holders = readable(lambda row: holder(row, store), rows)
    earlier = [found for found in holders if found is not None]
    before = warm_pools.best(job, earlier, now)
    if before is not None:
        return taken(store, before, job, now)
    if not warm_pools.keep_alive_s(job.request):
        return None, []
    r = job.resource
    pool = WarmPool(name=gang_name(r.name, r.arn, r.created), made_ms=to_ms(now))
    row = Resource(
        account=r.account,
        region=r.region,
        kind=WARM_POOL,
        name=pool.name,
        arn=f"cloche:{r.account}:{r.region}:{WARM_POOL}/{pool.name}",  # none that clients can name
        status=pool.status,
        created=now,
        modified=now,
        document=encode(PoolHolder(training_job_arn=r.arn)),
    )
    return pool, [Change(new=row)]


def taken(
    store: Store, before: TrainingJob, job: TrainingJob, now: datetime
) -> tuple[WarmPool, list[Change]]:
    """Return the pool that an earlier job left, as the next job has it, and what to write."""
    pool, row = before.progress.pool, row_of(before, store)
    assert pool is not None and row is not None
    mine = WarmPool(name=pool.name, made_ms=pool.made_ms)
    held = decode(PoolHolder, row.document, row.arn).replace(training_job_arn=job.resource.arn)
    return mine, [
        Change(
            old=row,
            new=store.newer(row, status=mine.status, document=encode(held)),
        ),
        settled(store, before, warm_pools.reused(pool, job, now)),
    ]


def finish(store: Store, job: TrainingJob, pool: WarmPool | None) -> list[Change]:
    """Return what must be written with the end of a job whose pool becomes this one."""
    if pool is None:
        return []
    row = row_of(job, store)
    assert row is not None, "it goes only after the pool was terminated"
    new = store.newer(row, status=pool.status)
    return [Change(old=row, new=new)]


async def terminate(store: Store, row: Resource, job: TrainingJob | None, now: datetime) -> None:
    """Write that a pool has ended that `job` left."""
    also: list[Change] = []
    if job is not None and warm_pools.available(job):
        pool = warm_pools.terminated(job, row.modified, now)
        also.append(settled(store, job, pool))
    await store.update(row, status=WarmPoolStatus.TERMINATED, also=also)


def settled(store: Store, job: TrainingJob, pool: WarmPool) -> Change:
    """Return the change by which a job's record tells what became of its pool."""
    document = encode(job.progress.replace(pool=pool))
    new = store.newer(job.resource, document=document)
    return Change(old=job.resource, new=new)
