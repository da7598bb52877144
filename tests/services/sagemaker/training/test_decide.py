"""What the loop decides, for every state of a job and everything the engine may have seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from cloche.core.typed import encode
from cloche.engine import Seen
from cloche.records.store import Resource
from cloche.services.sagemaker.training.decide import (
    Begin,
    End,
    Finish,
    Launch,
    Nothing,
    Plan,
    Started,
    StopHosts,
    Upload,
    Watch,
    decide,
)
from cloche.services.sagemaker.training.record import (
    TRAINING_JOB,
    Progress,
    TrainingJob,
    training_job,
)
from cloche.services.sagemaker.training.status import (
    ENDED,
    ENDINGS,
    NEXT,
    NEXT_SECONDARY,
    STATUS_OF_ENDING,
    UNSETTLED,
    SecondaryStatus,
    TrainingJobStatus,
)

S, T = SecondaryStatus, TrainingJobStatus
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PATHS = {
    S.STARTING: (S.STARTING,),
    S.DOWNLOADING: (S.STARTING, S.DOWNLOADING),
    S.PENDING: (S.STARTING, S.DOWNLOADING, S.PENDING),
    S.TRAINING: (S.STARTING, S.DOWNLOADING, S.TRAINING),
    S.STOPPING: (S.STARTING, S.DOWNLOADING, S.TRAINING, S.STOPPING),
    S.UPLOADING: (S.STARTING, S.DOWNLOADING, S.TRAINING, S.UPLOADING),
}
RUNNING = Seen("running")
DONE = Seen("exited", exit_code=0, ended=NOW)
FAILED = Seen("exited", exit_code=1, ended=NOW)
KILLED = Seen("exited", exit_code=-9, ended=NOW + timedelta(seconds=1))
STOPPED = Seen("exited", exit_code=-15, reason="Stopped", ended=NOW)
POLITE = Seen("exited", exit_code=0, reason="Stopped", ended=NOW)
TOO_LONG = Seen("exited", exit_code=-15, reason="MaxRuntimeExceeded", ended=NOW)
LOST = Seen("lost", ended=NOW)
MEMORY = Seen("exited", exit_code=-9, reason="OutOfMemory", ended=NOW, detail="a held 9 MiB")
WORKER = replace(MEMORY, exit_code=1)  # it failed because what it had started was killed
DISK = replace(MEMORY, reason="DiskFull", detail="a holds 9 MiB of files")
LOST_WRITES = replace(DISK, exit_code=0)  # the disk had no place for what was written before
FORKS = replace(MEMORY, reason="TooManyProcesses", detail="a had 9 processes")
MORE_MEMORY = (
    "Please use an instance type with more memory, or reduce the size of job data processed on an "
    "instance. (a held 9 MiB)"
)
NO_SPACE = "ClientError: Artifact upload failed:Insufficient disk space. (a holds 9 MiB of files)"
ONE_HOST: tuple[Mapping[str, Seen] | None, ...] = (
    None,
    *({"algo-1": s} for s in (RUNNING, DONE, FAILED, KILLED, STOPPED, POLITE, TOO_LONG, LOST)),
    *({"algo-1": s} for s in (MEMORY, DISK, FORKS)),
)


def job(
    secondary: SecondaryStatus,
    ending: SecondaryStatus | None = None,
    uploaded: bool = False,
    status: TrainingJobStatus | None = None,
) -> TrainingJob:
    progress = Progress()
    for step in PATHS[secondary]:
        progress = progress.go(step, NOW)
    progress = progress.replace(ending=ending, uploaded=uploaded)
    default = T.STOPPING if secondary is S.STOPPING else T.IN_PROGRESS
    resource = Resource(
        account="1",
        region="r",
        kind=TRAINING_JOB,
        name="j",
        arn="arn",
        status=status or default,
        created=NOW,
        modified=NOW,
        desired={
            "Request": {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2}},
            "Tags": {},
        },
        document=encode(progress),
    )
    return training_job(resource)


TABLE: list[tuple[SecondaryStatus, Mapping[str, Seen] | None, Plan | type]] = [
    (S.STARTING, None, Begin()),
    (S.DOWNLOADING, None, Launch()),
    (S.DOWNLOADING, {"algo-1": RUNNING}, Started()),
    (S.DOWNLOADING, {"algo-1": DONE}, Started()),
    (S.PENDING, None, Launch()),
    (S.PENDING, {"algo-1": RUNNING}, Started()),
    (S.TRAINING, {"algo-1": RUNNING}, Watch()),
    (S.TRAINING, {"algo-1": DONE, "algo-2": RUNNING}, Watch()),
    (S.TRAINING, {"algo-1": FAILED, "algo-2": RUNNING}, StopHosts()),
    (S.TRAINING, {"algo-1": LOST, "algo-2": RUNNING}, StopHosts()),
    (S.TRAINING, {"algo-1": DONE, "algo-2": DONE}, End(S.COMPLETED)),
    (S.TRAINING, {"algo-1": FAILED}, End(S.FAILED, failed_host="algo-1")),
    (S.TRAINING, {"algo-1": STOPPED, "algo-2": FAILED}, End(S.FAILED, failed_host="algo-2")),
    (S.TRAINING, {"algo-1": KILLED, "algo-2": FAILED}, End(S.FAILED, failed_host="algo-2")),
    (S.TRAINING, {"algo-1": MEMORY, "algo-2": RUNNING}, StopHosts()),
    (S.TRAINING, {"a": MEMORY, "b": STOPPED}, End(S.FAILED, failed_host="a", note=MORE_MEMORY)),
    (S.TRAINING, {"a": WORKER}, End(S.FAILED, failed_host="a", note=MORE_MEMORY)),
    (S.TRAINING, {"a": FORKS}, End(S.FAILED, failed_host="a", note="a had 9 processes")),
    (S.TRAINING, {"a": DISK, "b": STOPPED}, End(S.FAILED, failure=NO_SPACE, ran=False)),
    (S.TRAINING, {"a": LOST_WRITES}, End(S.FAILED, failure=NO_SPACE, ran=False)),
    (S.STOPPING, {"algo-1": MEMORY}, End(S.STOPPED)),
    (S.TRAINING, {"algo-1": TOO_LONG}, End(S.MAX_RUNTIME_EXCEEDED)),
    (S.TRAINING, {"algo-1": STOPPED}, End(S.STOPPED)),
    (S.STOPPING, {"algo-1": RUNNING}, StopHosts()),
    (S.STOPPING, {"algo-1": STOPPED}, End(S.STOPPED)),
    (S.STOPPING, {"algo-1": POLITE}, End(S.STOPPED)),
    (S.STOPPING, {"algo-1": DONE}, End(S.STOPPED)),
    (S.STOPPING, {"algo-1": TOO_LONG}, End(S.MAX_RUNTIME_EXCEEDED)),
    (S.STOPPING, None, End(S.STOPPED, ran=False)),
]


@pytest.mark.parametrize(("secondary", "seen", "plan"), TABLE)
def test_table(secondary: SecondaryStatus, seen: Mapping[str, Seen] | None, plan: Plan) -> None:
    assert decide(job(secondary), seen) == plan


@pytest.mark.parametrize("seen", [None, {"algo-1": LOST}, {"algo-1": LOST, "algo-2": DONE}])
def test_lost_job_fails_with_an_honest_reason(seen: Mapping[str, Seen] | None) -> None:
    plan = decide(job(S.TRAINING), seen)
    assert isinstance(plan, End) and plan.ending is S.FAILED
    assert plan.failure is not None
    assert plan.failure.startswith("InternalServerError: We encountered an internal error.")


@pytest.mark.parametrize(("ending", "seen"), list(product(ENDINGS, ONE_HOST)))
def test_known_ending_is_uploaded_then_finished(
    ending: SecondaryStatus, seen: Mapping[str, Seen] | None
) -> None:
    for status in UNSETTLED:
        assert decide(job(S.UPLOADING, ending, False, status), seen) == Upload()
        assert decide(job(S.UPLOADING, ending, True, status), seen) == Finish()
        assert STATUS_OF_ENDING[ending] in NEXT[status]


@pytest.mark.parametrize(("status", "seen"), list(product(ENDED, ONE_HOST)))
def test_ended_job_needs_nothing(
    status: TrainingJobStatus, seen: Mapping[str, Seen] | None
) -> None:
    assert decide(job(S.UPLOADING, S.COMPLETED, True, status), seen) == Nothing()


@pytest.mark.parametrize(
    ("secondary", "first", "second"),
    list(product((s for s in PATHS if s is not S.UPLOADING), ONE_HOST, ONE_HOST)),
)
def test_every_status_against_every_observation_leads_to_a_legal_move(
    secondary: SecondaryStatus,
    first: Mapping[str, Seen] | None,
    second: Mapping[str, Seen] | None,
) -> None:
    seen = None if first is None else dict(first)
    if seen is not None and second is not None:
        seen["algo-2"] = second["algo-1"]
    one = job(secondary)
    plan = decide(one, seen)
    running = any(s.state == "running" for s in (seen or {}).values())
    if isinstance(plan, Begin):
        one.progress.go(S.DOWNLOADING, NOW)
    elif isinstance(plan, Started):
        one.progress.go(S.TRAINING, NOW)
    elif isinstance(plan, Launch):
        assert seen is None
        one.progress.go(S.PENDING, NOW)
        assert S.FAILED in NEXT_SECONDARY[secondary]
    elif isinstance(plan, End):
        assert not running
        assert (plan.ending is S.FAILED) == (
            plan.failure is not None or plan.failed_host is not None
        )
        uploading = one.progress.go(S.UPLOADING, NOW) if plan.ran else one.progress
        uploading.go(plan.ending, NOW)
    else:
        assert isinstance(plan, Watch | StopHosts) and running


def test_statuses_that_may_not_follow_are_refused() -> None:
    with pytest.raises(ValueError, match="Training may not follow Starting"):
        job(S.STARTING).progress.go(S.TRAINING, NOW)
    assert all(not NEXT_SECONDARY[ending] for ending in ENDINGS)


def test_same_status_changes_the_message_alone() -> None:
    waiting = job(S.PENDING).progress
    more = waiting.go(S.PENDING, NOW + timedelta(seconds=5), "Waiting for capacity: 3 of 4")
    assert len(more.transitions) == len(waiting.transitions)
    assert more.transitions[-1].message == "Waiting for capacity: 3 of 4"
    assert more.transitions[-1].start_ms == waiting.transitions[-1].start_ms


def test_progress_survives_its_document() -> None:
    one = job(S.UPLOADING, S.FAILED, True)
    assert training_job(replace(one.resource, document=encode(one.progress))) == one
