"""How a job ended: its failure reason. Reads what user code left; trusts none of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import beneath
from cloche.engine import Seen
from cloche.runtime.signals import killed_by
from cloche.services.sagemaker.training import hosts as h
from cloche.services.sagemaker.training.decide import End
from cloche.services.sagemaker.training.record import TrainingJob

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

REASON_LIMIT = 1024  # characters of FailureReason (API_DescribeTrainingJob)
TAIL_BYTES = 65_536
TRACEBACK = "Traceback (most recent call last):"


def failure_text(ml: Path) -> str:
    """Return what the algorithm wrote to `/opt/ml/output/failure`, or nothing."""
    text = beneath.read(ml, "output/failure", TAIL_BYTES) or b""
    return text.decode("utf-8", "replace").strip()


def traceback_text(log: Path) -> str:
    """Return the message of the last traceback in a log file, or nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    texts = [re.sub(r"^\d+&?\+? ?", "", line) for line in lines]
    starts = [number for number, text in enumerate(texts) if text.strip() == TRACEBACK]
    if not starts:
        return ""
    after = texts[starts[-1] + 1 :]
    frames = next((n for n, text in enumerate(after) if text[:1].strip()), len(after))
    return "\n".join(after[frames:]).strip()


def failure_reason(
    job: TrainingJob, plan: End, seen: Mapping[str, Seen], log: Path, sagemaker: SageMaker
) -> str:
    """Return FailureReason for the host that a job failed by. Blocks."""
    host = plan.failed_host
    assert host is not None
    ml = dict(zip(job.hosts, h.collected(job, sagemaker), strict=True))[host]
    named = host if len(job.hosts) > 1 else None
    return reason_of_code(ml, log, seen[host].exit_code or 1, named, plan.note)


def reason_of_code(ml: Path, log: Path, exit_code: int, host: str | None, note: str = "") -> str:
    """Return FailureReason for a process that ended with this code (negative: that signal).

    host: named at the end where there are several; AWS leaves the reader to guess it.
    note: what we know of it, said first.
    """
    code = 128 - exit_code if exit_code < 0 else exit_code
    left = failure_text(ml)
    if not left:
        killed = killed_by(-exit_code) if exit_code < 0 and not note else ""
        left = "\n".join(filter(None, (traceback_text(log), killed)))
    text = " ".join(filter(None, (note, left)))
    ending = f", exit code: {code}" + (f", host: {host}" if host else "")
    return f"AlgorithmError: {text[: REASON_LIMIT - len(ending) - 16]}{ending}"
