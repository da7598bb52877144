"""Values of condition keys that are not text: numbers, times, truth, bytes, addresses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import base64
import binascii
import re
from datetime import date
from decimal import Decimal
from ipaddress import ip_network
from typing import NamedTuple

NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# The W3C's profile of ISO 8601: from the year alone to fractions of a second.
DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?(Z|[+-]\d\d:\d\d))?)?)?",
    re.ASCII,
)
EPOCH = date(1970, 1, 1).toordinal()
MINUTE, HOUR, DAY = 60, 3600, 86_400


def number(text: str) -> Decimal | None:
    """Return an integer or a decimal; None for what is neither."""
    return Decimal(text) if NUMBER.fullmatch(text) else None


def moment(text: str) -> Decimal | None:
    """Return a time in seconds since 1970: written as ISO 8601 (four digits are a year), or so."""
    found = DATE.fullmatch(text)
    if found is None:
        return number(text)
    year, month, day, hours, minutes, seconds, zone = found.groups()
    try:
        days = date(int(year), int(month or 1), int(day or 1)).toordinal() - EPOCH
    except ValueError:
        return None
    clock = int(hours or 0) * HOUR + int(minutes or 0) * MINUTE + Decimal(seconds or 0)
    if int(hours or 0) > 23 or int(minutes or 0) > 59 or Decimal(seconds or 0) >= MINUTE:
        return None
    return days * DAY + clock - offset(zone or "Z")


def offset(zone: str) -> int:
    """Return how many seconds a zone's clocks are before UTC."""
    if zone == "Z":
        return 0
    ahead = int(zone[1:3]) * HOUR + int(zone[4:]) * MINUTE
    return -ahead if zone[0] == "-" else ahead


def truth(text: str) -> bool | None:
    """Return what `true` and `false` say, in whatever case."""
    return {"true": True, "false": False}.get(text.lower())


def binary(text: str) -> bytes | None:
    """Return what base64 stands for."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


class Network(NamedTuple):
    """A block of addresses: the family, its first and its last address as numbers."""

    version: int
    first: int
    last: int


def network(text: str) -> Network | None:
    """Return the addresses of a CIDR block; of a single address, that one."""
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        return None
    return Network(found.version, int(found.network_address), int(found.broadcast_address))


def within(address: Network, block: Network) -> bool:
    """Tell whether an address is in a block of its own family."""
    return address.version == block.version and block.first <= address.first <= block.last
