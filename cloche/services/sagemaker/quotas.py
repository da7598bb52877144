"""How many instances one job or one endpoint may have: AWS's quotas, and AWS's refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError

if TYPE_CHECKING:
    pass

MOST_INSTANCES = 16  # of one job or endpoint: each is a sandbox, and they start together
EXCEEDED = (
    "The account-level service limit '{name}' is {most} Instances, with current utilization of "
    "{used} Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to "
    "request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
    "support to request an increase for this quota."
)
Place = tuple[str, str]  # account and region


def check(
    wanted: Mapping[str, int],
    names: tuple[str, str],
    usage: Callable[[], Counter[str]],
    kept: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Refuse too many of one type, or of all types together; `usage`: what there is now."""
    for kind, count in wanted.items():
        if count > MOST_INSTANCES:
            raise exceeded(names[0].format(type=kind), usage()[kind], count - kept.get(kind, 0))
    if sum(wanted.values()) > MOST_INSTANCES:
        now = sum(kept.values())
        raise exceeded(names[1], now, sum(wanted.values()) - now)


def exceeded(name: str, used: int, delta: int) -> AwsError:
    """Return AWS's refusal."""
    text = EXCEEDED.format(name=name, most=MOST_INSTANCES, used=used, delta=delta)
    return AwsError("ResourceLimitExceeded", text)


def counted(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the sums."""
    sums: Counter[str] = Counter()
    for name, count in pairs:
        sums[name] += count
    return sums
