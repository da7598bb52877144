"""What the tour tells its reader to do: now, next, or when something went wrong."""

import shlex
import shutil
import sys
from pathlib import Path

from cloche.tour.facts import Facts
from cloche.tour.plan import Plan

LOGS = "/aws/sagemaker"


def next_steps(plan: Plan, bucket: str, facts: Facts) -> list[tuple[str, str]]:
    """Return what to try after the tour: what for, and the command."""
    home = shlex.quote(plan.home)
    job, search = facts.models[-1].job, facts.tuning.job
    run = f"cloche run --home {home} --"
    steps = [
        ("Have the commands below at hand", activation()),
        (
            "Start the platform again, with all of this" if not plan.stays_up else "",
            f"cloche up --detach --home {home}",
        ),
        (
            "Look at the tuning job",
            f"{run} aws sagemaker describe-hyper-parameter-tuning-job "
            f"--hyper-parameter-tuning-job-name {search}",
        ),
        (
            "List what the job on several instances left",
            f"{run} aws s3 ls --recursive s3://{bucket}/training/{job}/",
        ),
        ("Look at it", f"{run} aws sagemaker describe-training-job --training-job-name {job}"),
        ("Read its log", f"{run} {read_log(f'TrainingJobs --log-stream-name-prefix {job}')}"),
        ("Work from Python with boto3 and the SageMaker SDK", f"{run} python"),
        ("The same with your own pictures", "cloche tour --data DIR"),
        ("The same with 133 breeds of dogs (1.1 GB)", "cloche tour --dataset dogs"),
    ]
    return [(purpose, command) for purpose, command in steps if purpose and command]


def where_to_look(plan: Plan, job: str | None, endpoint: str | None) -> list[tuple[str, str]]:
    """Return what helps after a failure: what for, and the command or the place."""
    home = shlex.quote(plan.home)
    run = f"cloche run --home {home} --"
    places = [("The platform's log", str(Path(plan.home) / "server.log"))]
    if job is None and endpoint is None:
        return places
    places += [
        ("Have the commands below at hand", activation()),
        ("Start the platform again", f"cloche up --detach --home {home}"),
    ]
    if job is not None:
        log = read_log(f"TrainingJobs --log-stream-name-prefix {job}")
        places.append(("The training job's log", f"{run} {log}"))
    if endpoint is not None:
        places.append(("The endpoint's log", f"{run} {read_log(f'Endpoints/{endpoint}')}"))
    return [(purpose, command) for purpose, command in places if command]


def read_log(streams: str) -> str:
    """Return the AWS CLI's command that prints a log."""
    return (
        f"aws logs filter-log-events --log-group-name {LOGS}/{streams} "
        "--query 'events[].[message]' --output text"
    )


def activation() -> str:
    """Return the command that puts `cloche`, `aws` and `python` on the path; "" if they are."""
    if shutil.which("cloche"):
        return ""
    script = Path(sys.prefix) / "bin" / "activate"
    if not script.exists():
        return ""
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return f". {shlex.quote(str(shown))}"


def go_on(home: str) -> str:
    """Return the command that starts the platform of a home folder again."""
    command = f"cloche up --home {shlex.quote(home)}"
    return f"{activation()} && {command}" if activation() else command
