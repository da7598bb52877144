"""The files that rules leave in S3: a page with each host's CPU and memory, and all as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.debugger.rules import HostSample, Measured, Verdict, invoked
from cloche.services.sagemaker.training.record import TrainingJob

WIDTH, HEIGHT = 720, 160  # pixels of a chart
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 sans-serif; max-width: 760px; margin: 2em auto; padding: 0 1em }}
svg {{ background: #f4f4f4; width: 100% }} polyline {{ fill: none; stroke-width: 1.5 }}
.cpu {{ stroke: #1f5fa8 }} .memory {{ stroke: #b3541e }}
td, th {{ padding: 0 1em 0 0; text-align: left }}
</style>
<h1>{title}</h1>
<p>{status}: {details}</p>
<p>Measured by Cloche: the share of each host's CPUs (blue) and of its memory (brown) in percent,
from the start of training to its end. Nothing was measured inside the script.</p>
{hosts}</html>
"""


def files(
    job: TrainingJob, rule: Request, verdict: Verdict, measured: Measured
) -> dict[str, bytes]:
    """Return what a rule leaves, by its name beneath the rule's folder."""
    document = json.dumps(content(job, rule, verdict, measured), indent=1).encode()
    if invoked(rule) != "ProfilerReport":
        return {"report.json": document}
    return {
        "profiler-output/profiler-report.html": page(job, verdict, measured).encode(),
        "profiler-output/profiler-report.json": document,
    }


def content(job: TrainingJob, rule: Request, verdict: Verdict, measured: Measured) -> Any:
    """Return everything that the verdict is based on."""
    return {
        "TrainingJobName": job.resource.name,
        "RuleConfigurationName": rule["RuleConfigurationName"],
        "RuleParameters": dict(rule.get("RuleParameters") or {}),
        "RuleEvaluationStatus": verdict.status,
        "StatusDetails": verdict.details,
        "Hosts": {
            host: [
                {"at": s.at_s, "cpu_percent": s.cpu, "memory_percent": s.memory} for s in samples
            ]
            for host, samples in measured.hosts.items()
        },
        "Metrics": {name: list(values) for name, values in measured.metrics.items()},
    }


def page(job: TrainingJob, verdict: Verdict, measured: Measured) -> str:
    """Return the report as a page that needs nothing else."""
    return PAGE.format(
        title=escape(f"Profiler report of {job.resource.name}"),
        status=verdict.status,
        details=escape(verdict.details),
        hosts="".join(host_part(host, samples) for host, samples in measured.hosts.items()),
    )


def host_part(host: str, samples: Sequence[HostSample]) -> str:
    """Return one host's chart and numbers."""
    series: Mapping[str, list[tuple[int, float]]] = {
        "cpu": [(s.at_s, s.cpu) for s in samples if s.cpu is not None],
        "memory": [(s.at_s, s.memory) for s in samples if s.memory is not None],
    }
    lines = "".join(
        f'<polyline class="{name}" points="{points(values)}"/>' for name, values in series.items()
    )
    rows = "".join(
        f"<tr><td>{name}<td>{len(values)}<td>{mean(values):.1f}<td>{most(values):.1f}"
        for name, values in series.items()
    )
    return (
        f'<h2>{escape(host)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}">{lines}</svg>'
        f"<table><tr><th>percent<th>samples<th>mean<th>most{rows}</table>\n"
    )


def points(values: Sequence[tuple[int, float]]) -> str:
    """Return a line through the values, 100 percent at the top."""
    if not values:
        return ""
    first, last = values[0][0], values[-1][0]
    span = max(1, last - first)
    return " ".join(
        f"{(at - first) / span * WIDTH:.1f},{HEIGHT * (1 - min(value, 100) / 100):.1f}"
        for at, value in values
    )


def mean(values: Sequence[tuple[int, float]]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(value for _, value in values) / len(values) if values else 0.0


def most(values: Sequence[tuple[int, float]]) -> float:
    """Return the greatest; 0 of nothing."""
    return max((value for _, value in values), default=0.0)
