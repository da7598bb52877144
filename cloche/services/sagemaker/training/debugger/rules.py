"""Rules of the Debugger and the profiler: what can be judged from what is measured, is.

Measured are each host's CPU and memory (every 1 to 5 s) and the metrics that the job's own
definitions find in its log; what tensors say is judged elsewhere (`rule_gang`). A rule that needs
more has the status Error and says so: NoIssuesFound is only said of what was looked at. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloche.core.numbers import real, shown
from cloche.patterns import BadPattern, Exceeded, matched
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.record import TrainingJob

KINDS = {
    "DebugRuleConfigurations": "DebugHookConfig",
    "ProfilerRuleConfigurations": "ProfilerConfig",
}
DETAILS_LIMIT = 1024  # characters of StatusDetails (API_DebugRuleEvaluationStatus)
LARGEST = 1_000_000_000  # of a rule's numbers
LEAST_SAMPLES = 3  # fewer tell nothing about a host
# Parameters that change nothing here: how often AWS looks, and which tensors, and what GPUs do.
IDLE = ("rule_to_invoke", "scan_interval_us", "collection_names", "use_losses_collection")


class RuleError(Exception):
    """A rule can't be judged; the text is its StatusDetails."""


@dataclass(frozen=True, slots=True)
class HostSample:
    """What a host used at a time: percent of the CPUs that it has, percent of its memory."""

    at_s: int
    cpu: float | None
    memory: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a job when it has ended: hosts' samples, each metric's values in order."""

    hosts: Mapping[str, Sequence[HostSample]]
    metrics: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's `RuleEvaluationStatus` and `StatusDetails`."""

    status: Literal["NoIssuesFound", "IssuesFound", "Error"]
    details: str


def configured(request: Request) -> list[tuple[str, Request]]:
    """Return the rules of a job, with the member that each one came in."""
    return [(kind, rule) for kind in KINDS for rule in request.get(kind) or ()]


def off(request: Request, kind: str) -> bool:
    """Return whether the rules that came in this member are turned off, with the profiler."""
    profiler = kind == "ProfilerRuleConfigurations"
    return profiler and bool((request.get(KINDS[kind]) or {}).get("DisableProfiler"))


def invoked(rule: Request) -> str:
    """Return which built-in rule is asked for; nothing for one of the user's own."""
    name: str = (rule.get("RuleParameters") or {}).get("rule_to_invoke", "")
    return name


def supported(rule: Request) -> bool:
    """Return whether Cloche judges this rule."""
    return invoked(rule) in SUPPORTED


def unsupported_rule(rule: Request) -> Verdict:
    """Return the verdict on a rule that is not judged."""
    name = invoked(rule) or "a custom rule"
    text = f"{name} is not supported by Cloche. These are: {', '.join(SUPPORTED)}."
    return Verdict("Error", text)


def judge(rule: Request, measured: Measured) -> Verdict:
    """Return what a rule says about a job that has ended."""
    if invoked(rule) not in RULES:
        return unsupported_rule(rule)
    try:
        verdict = RULES[invoked(rule)](rule["RuleParameters"], measured)
    except RuleError as error:
        verdict = Verdict("Error", str(error))
    return Verdict(verdict.status, verdict.details[:DETAILS_LIMIT])


def cpu_bottleneck(parameters: Mapping[str, str], measured: Measured) -> Verdict:
    """Judge whether a host's CPUs were busy too much of the time.

    More than `threshold` (50) percent of the samples above `cpu_threshold` (90) percent; the
    first `patience` samples (0; on AWS 1000, of 0.5 s) don't count. There is no GPU that could
    wait for them meanwhile, so `gpu_threshold` changes nothing.
    """
    known = ("threshold", "cpu_threshold", "patience", "gpu_threshold")
    given = numbers(parameters, known)
    threshold, limit = given.get("threshold", 50.0), given.get("cpu_threshold", 90.0)
    texts, found = list[str](), False
    for host, samples in measured.hosts.items():
        values = [s.cpu for s in samples if s.cpu is not None][int(given.get("patience", 0)) :]
        if len(values) < LEAST_SAMPLES:
            raise RuleError(f"{host} has {len(values)} samples of its CPU: too few to judge.")
        share = 100 * sum(value > limit for value in values) / len(values)
        found |= share > threshold
        texts.append(f"{host}: {share:.0f}% of {len(values)} samples above {limit:g}%")
    if not texts:
        raise RuleError("No host was measured.")
    return Verdict("IssuesFound" if found else "NoIssuesFound", "; ".join(texts))


def loss_not_decreasing(parameters: Mapping[str, str], measured: Measured) -> Verdict:
    """Judge whether each loss went down: every `num_steps` (10) values by `diff_percent` (0.1).

    A loss is a metric of the job's definitions whose name has "loss" in it, or which
    `tensor_regex` matches.
    """
    given = numbers(parameters, ("num_steps", "diff_percent"), ("tensor_regex",))
    steps, percent = max(1, int(given.get("num_steps", 10))), given.get("diff_percent", 0.1)
    pattern, metrics = parameters.get("tensor_regex", "(?i).*loss"), measured.metrics
    try:
        fits = matched(pattern, list(metrics))
    except BadPattern as error:
        raise RuleError(f"tensor_regex is not a valid regular expression: {error}") from error
    except Exceeded as error:
        raise RuleError(f"tensor_regex {error}: {pattern!r}") from error
    losses = {name: metrics[name] for name, fit in zip(metrics, fits, strict=True) if fit}
    if not losses:
        raise RuleError(
            f"No losses were saved as tensors, and no metric of the job's MetricDefinitions "
            f"matches {pattern!r}."
        )
    texts, found = list[str](), False
    for name, values in losses.items():
        if len(values) <= steps:
            raise RuleError(
                f"{name} has {len(values)} values: more than num_steps ({steps}) are needed."
            )
        for now in range(steps, len(values), steps):
            before, after = values[now - steps], values[now]
            if before - after < abs(before) * percent / 100:
                texts.append(f"{name}: {before:g} at value {now - steps}, {after:g} at {now}")
                found = True
                break
        else:
            texts.append(f"{name}: decreased every {steps} of {len(values)} values")
    return Verdict("IssuesFound" if found else "NoIssuesFound", "; ".join(texts))


def profiler_report(parameters: Mapping[str, str], measured: Measured) -> Verdict:
    """Judge by the one rule that the report has; parameters are `CPUBottleneck_threshold`, …"""
    own = {
        name.removeprefix("CPUBottleneck_"): value
        for name, value in parameters.items()
        if name.startswith("CPUBottleneck_")
    }
    verdict = cpu_bottleneck(own, measured)
    return Verdict(verdict.status, f"CPUBottleneck: {verdict.details}")


RULES: Mapping[str, Callable[[Mapping[str, str], Measured], Verdict]] = {
    "CPUBottleneck": cpu_bottleneck,
    "LossNotDecreasing": loss_not_decreasing,
    "ProfilerReport": profiler_report,
}


# Judged by what the hooks of smdebug saved (`cloche.runtime.tensor_rules`); LossNotDecreasing by
# metrics where no tensors are.
TENSOR_RULES = (
    "LossNotDecreasing",
    "Overfit",
    "Overtraining",
    "PoorWeightInitialization",
    "VanishingGradient",
)
SUPPORTED = sorted({*RULES, *TENSOR_RULES})


def numbers(
    parameters: Mapping[str, str], known: Sequence[str], texts: Sequence[str] = ()
) -> dict[str, float]:
    """Return a rule's numbers; RuleError for one that is none, and for unknown parameters."""
    found: dict[str, float] = {}
    for name, value in parameters.items():
        if name in known:
            try:
                found[name] = real(value)
            except ValueError as error:
                raise RuleError(f"The parameter {name} is not a number: {shown(value)}") from error
            if not 0 <= found[name] <= LARGEST:
                raise RuleError(f"The parameter {name} is not within 0 and {LARGEST}: {value!r}")
        elif name not in (*IDLE, *texts):
            raise RuleError(f"The parameter {name} is not supported by Cloche.")
    return found


def folder(job: TrainingJob, kind: str, rule: Request) -> str:
    """Return the S3 URI beneath which a rule's output goes."""
    config = job.request.get(KINDS[kind]) or {}
    base: str = (
        rule.get("S3OutputPath")
        or config.get("S3OutputPath")
        or job.request["OutputDataConfig"]["S3OutputPath"]
    )
    return f"{base.rstrip('/')}/{job.resource.name}/rule-output/{rule['RuleConfigurationName']}"
