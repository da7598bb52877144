"""What fails is said in the server's own log as well: one line each, whatever user code wrote."""

from __future__ import annotations

import logging

from cloche.records.store import Resource

logger = logging.getLogger("cloche.sagemaker")
LONGEST = 600  # characters of a reason
KINDS = {
    "training-job": "training job",
    "hyper-parameter-tuning-job": "tuning job",
    "endpoint": "endpoint",
}


def failed(resource: Resource, reason: str | None, what: str = "failed") -> None:
    """Say that something failed, and why."""
    kind = KINDS.get(resource.kind, resource.kind)
    logger.warning("%s %s %s: %s", kind, resource.name, what, one_line(reason or "no reason"))


def one_line(text: str) -> str:
    """Return a text without what a terminal would obey, in a line of bounded length."""
    line = " ".join(text[: 2 * LONGEST].split())
    shown = "".join(c if c.isprintable() else "?" for c in line)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
