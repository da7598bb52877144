"""Runs tuning jobs: proposes trials, starts and stops their training jobs, ends the search.

A trial is written into the tuning job's record first and created as a training job after: a
server that dies in between creates the very same training job again, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cloche.core import executors
from cloche.core.clock import to_ms
from cloche.core.typed import encode
from cloche.loop import Loop
from cloche.records.store import AlreadyExists, Changed, Resource
from cloche.services.sagemaker import failure_log
from cloche.services.sagemaker.training.record import TRAINING_JOB
from cloche.services.sagemaker.training.request import with_defaults
from cloche.services.sagemaker.training.submission import new_training_job, stop_training_job
from cloche.services.sagemaker.tuning.decide import TuningPlan, decide, rules_of
from cloche.services.sagemaker.tuning.record import (
    TUNING_JOB,
    UNSETTLED_TUNING,
    SearchProgress,
    TrialRecord,
    TuningJob,
    TuningJobStatus,
    tuning_job,
)
from cloche.services.sagemaker.tuning.request import training_request
from cloche.services.sagemaker.tuning.situation import propose, situation
from cloche.services.sagemaker.tuning.strategies import Trial
from cloche.services.sagemaker.tuning.trials import ObservedTrial, look

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

TOGETHER_S = 0.25  # trials that were started together end together, more or less
LOOK_S = 0.5  # between two looks at what the trials that run report, where that may end them


def search_of(change: Changed) -> str | None:
    """Return the ARN of the tuning job whose trial a training job is that came to a new status."""
    if change.old is not None and change.new is not None and change.old.status == change.new.status:
        return None
    tuning_job: str | None = change.resource.desired.get("TuningJobArn")
    return tuning_job


@dataclass
class TuningJobs(Loop):
    """The loop of tuning jobs."""

    sagemaker: SageMaker
    kind: ClassVar[str] = TUNING_JOB
    watches: ClassVar[Mapping[str, Callable[[Changed], str | None]]] = {TRAINING_JOB: search_of}
    watch_delay_s: ClassVar[float] = TOGETHER_S

    def load(self) -> Sequence[Resource]:
        """Return the tuning jobs that have not ended."""
        return self.sagemaker.store.each(TUNING_JOB, UNSETTLED_TUNING)

    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""
        return resource.status in UNSETTLED_TUNING

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one tuning job."""
        store = self.sagemaker.store
        job = tuning_job(resource)
        seen = look(job, store)
        await self.create(job, [each for each in seen if each.missing])
        plan = self.plan(job, seen)
        proposals = await executors.SEARCH.run(self.proposals, job, seen, plan.start)
        await self.stop(job, seen, plan)
        return await self.write(job, seen, plan, proposals)

    # ------------------------------------------------------------------ the parts of a step

    async def create(self, job: TuningJob, missing: Sequence[ObservedTrial]) -> None:
        """Create the training jobs that are written down and not there."""
        store, r = self.sagemaker.store, job.resource
        for each in missing:
            definition = job.definitions[each.record.definition]
            request = with_defaults(training_request(definition, each.record.parameters))
            tags = [{"Key": key, "Value": value} for key, value in r.desired["Tags"].items()]
            new = new_training_job(
                (r.account, r.region), each.record.name, request, tags, store.clock.now(), r.arn
            )
            try:
                await store.insert(new)
            except AlreadyExists:
                continue  # created just before an earlier server died

    def plan(self, job: TuningJob, seen: Sequence[ObservedTrial]) -> TuningPlan:
        """Return what to do; a search whose end was written down starts nothing any more."""
        plan = decide(situation(job, seen, self.sagemaker.store.clock.now()))
        if job.search.ending is None or plan.ending is not None:
            return plan
        running = tuple(each.record.number for each in seen if not each.ended)
        return TuningPlan(stop=running, ending=job.search.ending, reason=job.search.reason)

    def proposals(
        self, job: TuningJob, seen: Sequence[ObservedTrial], count: int
    ) -> list[TrialRecord]:
        """Return so many new trials, fewer when nothing is left to try.

        Blocks for some tens of milliseconds a trial (Optuna): call it from a thread.
        """
        if not count:
            return []
        known = [(each.record.definition, each.trial()) for each in seen]
        parents, now_ms = self.parents(job), to_ms(self.sagemaker.store.clock.now())
        records: list[TrialRecord] = []
        while len(records) < count and (proposed := propose(job, known, parents)):
            definition, parameters = proposed
            number = len(known) + 1
            records.append(
                TrialRecord(
                    number=number,
                    name=job.trial_name(number),
                    definition=definition,
                    parameters=parameters,
                    created_ms=now_ms,
                )
            )
            known.append((definition, Trial(number=number, parameters=parameters, state="running")))
        return records

    def parents(self, job: TuningJob) -> list[Trial]:
        """Return the trials of the parents of a warm start."""
        store, r = self.sagemaker.store, job.resource
        trials: list[Trial] = []
        warm_start = job.request.get("WarmStartConfig") or {}
        for named in warm_start.get("ParentHyperParameterTuningJobs", ()):
            name = named["HyperParameterTuningJobName"]
            resource = store.get(TUNING_JOB, r.account, r.region, name)
            if resource is not None:
                trials += [each.trial() for each in look(tuning_job(resource), store)]
        return trials

    async def stop(self, job: TuningJob, seen: Sequence[ObservedTrial], plan: TuningPlan) -> None:
        """Ask the training jobs of the plan to stop."""
        store, r = self.sagemaker.store, job.resource
        for each in seen:
            # One that was marked before is told again: the server may have died in between.
            if each.record.number in plan.stop or (each.record.early and not each.ended):
                found = store.get(TRAINING_JOB, r.account, r.region, each.record.name)
                if found is not None:
                    await stop_training_job(store, found, store.clock.now())

    async def write(
        self,
        job: TuningJob,
        seen: Sequence[ObservedTrial],
        plan: TuningPlan,
        proposals: Sequence[TrialRecord],
    ) -> float | None:
        """Write what became of trials, new ones and the end; return seconds until the next look."""
        store, search = self.sagemaker.store, job.search
        early = set(plan.stop) if plan.ending is None else set()
        for each in seen:
            record = each.record
            if each.ended and record.outcome is None:
                search = search.with_trial(record.replace(outcome=each.outcome))
            elif record.number in early:
                search = search.with_trial(record.replace(early=True))
        for new in proposals:
            search = search.with_trial(new)
        if plan.ending is not None and search.ending is None:
            converged = to_ms(store.clock.now()) if plan.converged else None
            search = search.replace(ending=plan.ending, reason=plan.reason, converged_ms=converged)
        over = search.ending is not None and all(each.ended for each in seen)
        changes: dict[str, Any] = {}
        if over and search.ending is not None:
            search = search.replace(ended_ms=to_ms(store.clock.now()))
            ending = "Stopped" if job.status is TuningJobStatus.STOPPING else search.ending
            changes["status"] = ending
        if search != job.search:
            await store.update(job.resource, document=encode(search), **changes)
            if changes.get("status") == "Failed":
                failure_log.failed(job.resource, search.reason)
            if proposals:
                return 0.0
        return self.pause_s(job, search)

    def pause_s(self, job: TuningJob, search: SearchProgress) -> float | None:
        """Return seconds until the next look; None: not until a trial comes to a new status."""
        rules = rules_of(job.config)
        if search.ending is not None:
            return None
        if rules.early_stopping or rules.hyperband is not None:
            return LOOK_S
        if rules.max_runtime_s is None:
            return None
        age_s = (self.sagemaker.store.clock.now() - job.resource.created).total_seconds()
        return max(0.0, rules.max_runtime_s - age_s)
