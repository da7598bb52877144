"""Rules that need the tensors: they are judged in a sandbox, by smdebug, when the job has ended.

Its gang sees the tensors as they are in S3 (hard links, read-only), no network, and a folder for
its verdicts, which are read as a sandbox's output is. It outlives the server like any other.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.core import beneath, executors
from cloche.core.beneath import remove as remove_tree
from cloche.core.clock import to_ms
from cloche.engine import EngineError, GangSpec, InsufficientCapacity, Mount, ProcessSpec
from cloche.environments.background import Failed, wanted
from cloche.environments.ready import Ready
from cloche.environments.table import SMDEBUG
from cloche.records.errors import StorageFull, storage_full
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.s3_objects import DownloadError, link, parts_of
from cloche.services.sagemaker.software.images import Environment, not_built
from cloche.services.sagemaker.software.instance import RUNTIME, base_environment, base_mounts
from cloche.services.sagemaker.training import hosts as h
from cloche.services.sagemaker.training.checkpoints import SyncedFolder
from cloche.services.sagemaker.training.debugger.rules import DETAILS_LIMIT, Verdict, invoked
from cloche.services.sagemaker.training.record import TrainingJob

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

HOST = "rules"
WITHIN_S = 600.0
MEMORY_MIB = 2048
TENSORS, ASKED, RUN = "/opt/ml/tensors", "/opt/ml/rules.json", "/run/cloche"
VERDICTS = "verdicts.json"
ENDED = "training_job_end.ts"  # by which smdebug knows that nothing more is to come
LONGEST = 1 << 20  # bytes of the verdicts; 20 rules are the most
STATUSES = ("NoIssuesFound", "IssuesFound", "Error")
NOTHING = (
    "No tensors were saved: the script needs a hook of smdebug, and the job a DebugHookConfig."
)


@dataclass(frozen=True, slots=True)
class Judging:
    """It is not known yet; `message` says what it waits for."""

    message: str


def name_of(job: TrainingJob) -> str:
    """Return the name of the gang that judges a job's tensors."""
    return f"rules-{h.gang_of(job).rpartition('-')[2]}"


async def look(
    job: TrainingJob,
    rules: Mapping[str, Request],
    sagemaker: SageMaker,
    sync: Callable[..., Awaitable[None]],
) -> Mapping[str, Verdict] | Judging:
    """Return what rules say about a job that has ended; ask again while they are judging.

    sync: puts what is left of the tensors to S3.
    """
    engine, name = sagemaker.engine, name_of(job)
    folder = h.ground_of(job, sagemaker.config).folder / "rules"
    seen = await executors.ENGINE.run(engine.see, name)
    if seen is None:
        if not await executors.FILES.run(saved, job, sagemaker):
            await sync(job, strict=False)
            if not await executors.FILES.run(saved, job, sagemaker):
                return all_of(rules, NOTHING)
        built = await executors.BUILDS.run(environment, job, sagemaker)
        if not isinstance(built, Environment):
            return built if isinstance(built, Judging) else all_of(rules, built)
        await sync(job, strict=False)
        try:
            await executors.FILES.run(prepare, job, rules, folder, sagemaker)
            outcome = await executors.LAUNCHES.run(
                engine.launch, gang(job, folder, built, sagemaker)
            )
        except (EngineError, DownloadError) as error:
            return all_of(rules, f"The tensors can't be read: {error}")
        if isinstance(outcome, InsufficientCapacity):
            return Judging("Waiting for capacity to evaluate the Debugger's rules")
        return Judging("Evaluating the Debugger's rules")
    if seen[HOST].state == "running":
        return Judging("Evaluating the Debugger's rules")
    await executors.FILES.run(engine.collect, name, folder / "run")
    said = await executors.FILES.run(read, folder / "run", rules)
    await executors.ENDINGS.run(engine.forget, name)
    await executors.FILES.run(remove_tree, folder)
    return said


def environment(job: TrainingJob, sagemaker: SageMaker) -> Environment | Judging | str:
    """Return what has smdebug, building it if need be; or why nothing has."""
    home, since_ms = sagemaker.config.home, job.progress.transitions[-1].start_ms
    found = wanted(SMDEBUG, home, min(since_ms, to_ms(sagemaker.store.clock.now())))
    if isinstance(found, Failed):
        return str(not_built(SMDEBUG, found, home))
    if not isinstance(found, Ready):
        return Judging("Building the environment smdebug, which reads tensors")
    return Environment(SMDEBUG, found.python, found.prefixes, found.versions)


def place_of(job: TrainingJob) -> SyncedFolder | None:
    """Return where in S3 a job's tensors are."""
    return next((each for each in h.synced(job) if each.name == "debug"), None)


def saved(job: TrainingJob, sagemaker: SageMaker) -> bool:
    """Return whether a hook saved tensors: it has an index then."""
    place = place_of(job)
    if place is None:
        return False
    stored = sagemaker.s3_as(job.request["RoleArn"]).list(place.bucket, f"{place.prefix}index/")
    return next(iter(stored), None) is not None


def prepare(
    job: TrainingJob, rules: Mapping[str, Request], folder: Path, sagemaker: SageMaker
) -> None:
    """Make the gang's folders again; DownloadError when that can't be."""
    place = place_of(job)
    assert place is not None
    remove_tree(folder)
    for name in ("tensors", "run"):
        (folder / name).mkdir(parents=True)
    asked = {
        key: {"rule": invoked(rule), "parameters": dict(rule["RuleParameters"])}
        for key, rule in rules.items()
    }
    (folder / "rules.json").write_text(json.dumps(asked))
    try:
        s3 = sagemaker.s3_as(job.request["RoleArn"])
        for stored in s3.list(place.bucket, place.prefix):
            relative = stored.key[len(place.prefix) :]
            target = (folder / "tensors").joinpath(*parts_of(stored.key, relative))
            if relative and not relative.endswith("/"):
                target.parent.mkdir(parents=True, exist_ok=True)
                link(s3, stored, target)
        if not (ended := folder / "tensors" / ENDED).exists():  # a script that was killed
            ended.touch()
    except OSError as error:
        if storage_full(error):
            raise StorageFull from error
        raise DownloadError(error.strerror or str(error)) from error


def gang(job: TrainingJob, folder: Path, built: Environment, sagemaker: SageMaker) -> GangSpec:
    """Return the process that judges."""
    config, stage = sagemaker.config, sagemaker.engine.stage
    process = ProcessSpec(
        name=HOST,
        argv=(
            str(built.python),
            f"{RUNTIME}/saved_tensors.py",
            TENSORS,
            ASKED,
            f"{RUN}/{VERDICTS}",
        ),
        env=base_environment(built, config, (HOST,), isolated=True),
        mounts=(
            *base_mounts(built, config, sagemaker.engine),
            Mount(stage(folder / "tensors"), TENSORS),
            Mount(stage(folder / "rules.json"), ASKED),
            Mount(stage(folder / "run"), RUN, "rw"),
        ),
        memory_mib=MEMORY_MIB,
    )
    return GangSpec(
        name=name_of(job),
        processes=(process,),
        max_run_s=WITHIN_S,
        egress=False,
        background=True,
    )


def read(run: Path, rules: Mapping[str, Request]) -> Mapping[str, Verdict]:
    """Return the verdicts that a sandbox left; what is none of one is Error."""
    left = beneath.read(run, VERDICTS, LONGEST) or b""
    try:
        said: Any = json.loads(left)
    except (ValueError, RecursionError):
        said = None
    return {key: verdict(said.get(key) if isinstance(said, dict) else None) for key in rules}


def verdict(said: Any) -> Verdict:
    """Return one verdict."""
    if isinstance(said, dict) and said.get("status") in STATUSES:
        details = said.get("details")
        if isinstance(details, str):
            return Verdict(said["status"], printable(details))
    return Verdict("Error", "The tensors could not be read, or not in time and memory.")


def printable(details: str) -> str:
    """Return details as a description can have them."""
    return details.encode("utf-8", "replace").decode()[:DETAILS_LIMIT]


def all_of(rules: Mapping[str, Request], why: str) -> Mapping[str, Verdict]:
    """Return Error for every rule."""
    return {key: Verdict("Error", printable(why)) for key in rules}
