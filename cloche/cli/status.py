"""`cloche status`."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table

from cloche.cli.aws_client import AwsClient
from cloche.cli.output import Stop, count, out, size
from cloche.core import home as homes
from cloche.core.beneath import disk_used
from cloche.core.config import Home


def status(home: Home) -> None:
    """Print how the platform is."""
    client = AwsClient.of(home)
    try:
        reported = client.status()
        jobs, endpoints = running_jobs(client), endpoint_states(client)
    except (OSError, ValueError, BotoCoreError, ClientError) as error:
        raise Stop(
            f"Cloche at {client.server.address} (pid {client.server.pid}) does not answer: {error}"
        ) from None
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    for name, value in rows(client, reported, jobs, endpoints):
        table.add_row(name, value)
    out.print(table)


def rows(
    client: AwsClient, reported: dict[str, Any], jobs: list[str], endpoints: Counter[str]
) -> list[tuple[str, str]]:
    """Return what to show, line by line."""
    capacity = reported["capacity"]
    server = homes.Server(**reported["server"])  # may be younger than the one we knew of
    up_for = datetime.now(UTC) - homes.started_at(server)
    states = ", ".join(f"{number} {state}" for state, number in sorted(endpoints.items()))
    processes = f"pid {server.pid}, parent {server.parent}"
    return [
        ("address", f"{client.server.address} (HTTPS proxy: {client.server.proxy})"),
        ("up for", f"{timedelta(seconds=int(up_for.total_seconds()))} ({processes})"),
        *restarts(server),
        ("account", f"{reported['account']} in {reported['region']}"),
        ("jobs", f"{len(jobs)} running{': ' if jobs else ''}{', '.join(jobs)}"),
        ("endpoints", states or "none"),
        ("capacity", taken(capacity)),
        *warm(reported["fork_servers_mib"]),
        ("event loop", lateness(reported["event_loop"])),
        ("isolation", reported["isolation"]),
        *options(reported["options"]),
        ("home", f"{reported['home']} ({size(disk_used(client.home.path))} on disk)"),
        *([("log", server.log)] if server.log else []),
        *failing(reported["failing_loops"]),
        *([] if reported["root_has_mfa"] else [("root", "has no MFA device: cloche root mfa")]),
    ]


def restarts(server: homes.Server) -> list[tuple[str, str]]:
    """Return the line about servers that died and were started again."""
    if not server.restarts:
        return []
    return [("restarts", f"{server.restarts}; the server before this one {server.ended}")]


def taken(capacity: dict[str, Any]) -> str:
    """Return what jobs hold of the machine, and what endpoints do: each are counted on their own.

    A model server holds far less than its instance type declares, so an endpoint takes no memory
    from a job; both together may come to more than there is.
    """
    endpoints = capacity["memory_mib_background"]
    jobs = capacity["memory_mib_taken"] - endpoints
    memory = f"{capacity['memory_mib']:,} MiB"
    return (
        f"jobs hold {capacity['cpus_taken']:g} of {capacity['cpus']:g} CPUs and {jobs:,} of "
        f"{memory}; endpoints {endpoints:,} of {memory}"
    )


def options(reported: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines about the options of `cloche up` that are not the defaults."""
    added = ", ".join(reported["public_buckets"])
    gpu = {
        "cpu": "their instance types run on CPUs (cloche up --gpu-instances refuse)",
        "refuse": "their instance types are refused (cloche up --gpu-instances cpu)",
    }
    foreign = "reads that other accounts' keys signed are passed on (--pass-foreign-keys)"
    return [
        ("GPUs", gpu[reported["gpu_instances"]]),
        *([("real S3", f"public buckets besides the known ones: {added}")] if added else []),
        *([("real S3", foreign)] if reported["pass_foreign_keys"] else []),
    ]


def failing(loops: dict[str, str]) -> list[tuple[str, str]]:
    """Return the lines about loops that can't go on: what they look after stays as it is."""
    advice = "if it stays so, run cloche down, cloche up; see the server's log"
    return [("failing", f"the loop {kind}: {why}; {advice}") for kind, why in loops.items()]


def warm(held_mib: list[float]) -> list[tuple[str, str]]:
    """Return the line about interpreters that wait for scripts with their packages imported."""
    if not held_mib:
        return []
    held = f"{sum(held_mib):,.0f} MiB by {count(len(held_mib), 'fork server')}"
    return [("warm", f"{held}, so that scripts start at once; up to 30 minutes after a job")]


def lateness(told: dict[str, float]) -> str:
    """Return how late the server's event loop was: so long any request waits at the least."""
    return (
        f"lag {told['p99_9_ms']:.0f} ms at the 99.9th percentile, {told['most_ms']:.0f} ms at the "
        f"most (last {told['seconds']:,} s)"
    )


def running_jobs(client: AwsClient) -> list[str]:
    """Return the names of the training jobs that are not done."""
    pages = client.aws("sagemaker").get_paginator("list_training_jobs")
    return [
        job["TrainingJobName"]
        for state in ("InProgress", "Stopping")
        for page in pages.paginate(StatusEquals=state)
        for job in page["TrainingJobSummaries"]
    ]


def running_searches(client: AwsClient) -> list[str]:
    """Return the names of the tuning jobs that are not done."""
    pages = client.aws("sagemaker").get_paginator("list_hyper_parameter_tuning_jobs")
    return [
        job["HyperParameterTuningJobName"]
        for state in ("InProgress", "Stopping")
        for page in pages.paginate(StatusEquals=state)
        for job in page["HyperParameterTuningJobSummaries"]
    ]


def serving_endpoints(client: AwsClient) -> list[str]:
    """Return the names of the endpoints that have processes."""
    pages = client.aws("sagemaker").get_paginator("list_endpoints")
    return [
        endpoint["EndpointName"]
        for page in pages.paginate()
        for endpoint in page["Endpoints"]
        if endpoint["EndpointStatus"] not in ("Failed", "Deleting")
    ]


def endpoint_states(client: AwsClient) -> Counter[str]:
    """Return how many endpoints there are in each state."""
    pages = client.aws("sagemaker").get_paginator("list_endpoints")
    return Counter(
        endpoint["EndpointStatus"] for page in pages.paginate() for endpoint in page["Endpoints"]
    )
