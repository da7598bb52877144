"""What the tour proposes to do: now, next, or when something went wrong."""

import shlex
import shutil
import sys
from pathlib import Path

from cloche.tour.facts import Facts
from cloche.tour.plan import TourPlan

LOGS = "/aws/sagemaker"


def next_steps(plan: TourPlan, bucket: str, facts: Facts) -> list[tuple[str, str]]:
    """Return what to try after the tour: what for, and the command."""
    job, search = facts.models[-1].job, facts.tuning.job
    cloche, aws = tool("cloche"), f"{run(plan)} {tool('aws')}"
    steps = [
        (
            "Start the platform again, with all of this" if not plan.stays_up else "",
            f"{cloche} up --detach --home {shlex.quote(plan.home)}",
        ),
        (
            "Look at the tuning job",
            f"{aws} sagemaker describe-hyper-parameter-tuning-job "
            f"--hyper-parameter-tuning-job-name {search}",
        ),
        (
            "List what the job on several instances left",
            f"{aws} s3 ls --recursive s3://{bucket}/training/{job}/",
        ),
        ("Look at it", f"{aws} sagemaker describe-training-job --training-job-name {job}"),
        ("Read its log", read_log(plan, f"TrainingJobs --log-stream-name-prefix {job}")),
        (
            "Work from Python with boto3 and the SageMaker SDK",
            f"{run(plan)} {tool('python', only_ours=True)}",
        ),
        ("Link the command cloche into ~/.local/bin" if "/" in cloche else "", "make install"),
        ("The same with your own pictures", f"{cloche} tour --data DIR"),
        ("The same with 133 breeds of dogs (1.1 GB)", f"{cloche} tour --dataset dogs"),
    ]
    return [(purpose, command) for purpose, command in steps if purpose]


def where_to_look(plan: TourPlan, job: str | None, endpoint: str | None) -> list[tuple[str, str]]:
    """Return what helps after a failure: what for, and the command or the place."""
    places = [("The platform's log", str(Path(plan.home) / "server.log"))]
    if job is None and endpoint is None:
        return places
    places.append(
        (
            "Start the platform again",
            f"{tool('cloche')} up --detach --home {shlex.quote(plan.home)}",
        )
    )
    if job is not None:
        log = read_log(plan, f"TrainingJobs --log-stream-name-prefix {job}")
        places.append(("The training job's log", log))
    if endpoint is not None:
        places.append(("The endpoint's log", read_log(plan, f"Endpoints/{endpoint}")))
    return places


def run(plan: TourPlan, options: str = "") -> str:
    """Return the beginning of a command that is to see the tour's platform."""
    return f"{tool('cloche')} run{options} --home {shlex.quote(plan.home)} --"


def read_log(plan: TourPlan, streams: str) -> str:
    """Return the command that prints a log; as on AWS the execution role may not search in logs."""
    aws = f"{run(plan, ' --as admin')} {tool('aws')}"
    asked = f"logs filter-log-events --log-group-name {LOGS}/{streams}"
    return f"{aws} {asked} --query 'events[].[message]' --output text"


def tool(name: str, *, only_ours: bool = False) -> str:
    """Return how a shell in this folder calls a command: by its name where the PATH has it
    (only_ours: in the tour's own Python), else by its path in the tour's own Python.
    """
    path = Path(sys.prefix) / "bin" / name
    found = shutil.which(name)
    if found and (not only_ours or Path(found) == path):
        return name
    if not path.exists():
        return name
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def where_it_is(home: str) -> str:
    """Return where the tour's results are, and how to start the platform that has them."""
    return (
        f"All that the tour created is in a home folder of its own: {home}\n"
        "`cloche up` alone would use another one (~/.cloche) and show none of it. To see it:\n"
        f"   {tool('cloche')} up --detach --home {shlex.quote(home)}\n"
        f"   {tool('cloche')} run --home {shlex.quote(home)} -- {tool('aws')} s3 ls"
    )
