"""A job whose image's environment is not built yet waits for that, as one waits for an image.

It stays in its phase (Downloading); the transition's message says what is built, and the lines of
venv and pip go into the log of the first host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import executors, log_lines
from cloche.environments.background import Failed, Files, wanted
from cloche.environments.ready import Ready, first, folder_of, ready
from cloche.environments.table import beneath
from cloche.services.sagemaker.software.images import not_built
from cloche.services.sagemaker.training import hosts, launchers
from cloche.services.sagemaker.training.record import Progress, TrainingJob

if TYPE_CHECKING:
    from cloche.services.logs import Logs
    from cloche.services.sagemaker import SageMaker

MESSAGE = "Downloading the training image: building its environment {name}, once, with {packages}"
OPENING = MESSAGE.partition("{")[0]  # by which the message is known again


async def awaited(
    job: TrainingJob,
    sagemaker: SageMaker,
    open_logs: Callable[[], Awaitable[Mapping[str, Path]]],
) -> tuple[Progress, bool]:
    """Return the job's progress (the same: no news) and whether its environment is there.

    It is built unless it is, or somebody builds it. NotBuilt says why that failed since the job
    came here.
    """
    last, home = job.progress.transitions[-1], sagemaker.config.home
    framework = hosts.framework(job, sagemaker.config)
    missing = [each for each in (*reversed(beneath(framework)), framework) if not ready(each, home)]
    missing += [tool for tool in launchers.tools(job) if not ready(tool, home)]
    framework = missing[0] if missing else framework
    found = await executors.BUILDS.run(wanted, framework, home, last.start_ms)
    if isinstance(found, Ready) and missing[1:]:
        return job.progress, False  # it was built just now: the others come at the next look
    waited = last.message.startswith(OPENING)
    if isinstance(found, Ready) and not waited:
        return job.progress, True
    log = (await open_logs())[job.hosts[0]]
    said = Files(folder_of(framework, home)).log
    await executors.LOGS.run(copy, sagemaker.logs, said, log, f"[{framework.name}]")
    now = sagemaker.store.clock.now()
    match found:
        case Failed():
            raise not_built(framework, found, home)
        case Ready():
            # What pip said is not searched for the job's metrics.
            read = {**job.progress.read, job.hosts[0]: log.stat().st_size}
            return job.progress.go(last.status, now).replace(read=read), True
    text = MESSAGE.format(name=framework.name, packages=", ".join(first(framework.packages)))
    progress = job.progress if last.message == text else job.progress.go(last.status, now, text)
    return progress, False


def copy(logs: Logs, source: Path, target: Path, prefix: str) -> None:
    """Append the records of a build's log to a job's that are newer than its last one.

    No two records of a build have the same time, so none is lost or repeated, whoever did it last.
    """
    newest = max((record.at_ms for record in logs.read_from(target, 0)[0]), default=0)
    records, _ = logs.read_from(source, 0)
    log_lines.append(target, [(r.at_ms, f"{prefix} {r.text}") for r in records if r.at_ms > newest])
