"""What pip says of its failure. Standard library only, Python 3.8 and later."""

from __future__ import annotations

import re

ERROR = re.compile(r"^\s*(?:ERROR|error): ")
REFUSED = re.compile(r"Tunnel connection failed: (\d+ [^'\"\n]*)")  # the proxy's status and words


def errors(stderr: str) -> str:
    """Return pip's error lines, after why its proxy did not connect it; empty: there are none."""
    refused = dict.fromkeys(f"The proxy answered {each}" for each in REFUSED.findall(stderr))
    lines = [line.strip() for line in stderr.splitlines() if ERROR.match(line)]
    return "\n".join([*refused, *dict.fromkeys(lines)])
