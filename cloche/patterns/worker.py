"""The child that runs Python's regular expressions: its parent stops it when it takes too long.

A program by itself, of the standard library alone: a request a line, an answer a line, both JSON.
It ends with its input, and by SIGPROF when a request used the processor for longer than it says.
"""

import json
import math
import os
import re
import resource
import signal
import sys
import time
import warnings

MEMORY_BYTES = 1 << 29


def main() -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
        begin = time.process_time()
        try:
            said = answer(request)
        except MemoryError:
            said = {"memory": True}
        except Exception as error:  # it is the user's: re.error, OverflowError, RecursionError
            said = {"error": str(error)}
        said["cpu_s"] = time.process_time() - begin
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def answer(request: dict) -> dict:  # type: ignore[type-arg]
    """Return what the pattern finds: numbers in texts, the names that it matches, its groups."""
    pattern = re.compile(request["pattern"])
    if "names" in request:
        return {"matched": [pattern.match(name) is not None for name in request["names"]]}
    found: list[tuple[int, float]] = []
    for place, text in enumerate(request["texts"]):
        for match in pattern.finditer(text):
            value = number(match.group(1))
            if value is not None:
                found.append((place, value))
                if len(found) > request["most"]:
                    return {"many": True}
    return {"groups": pattern.groups, "found": found}


def number(text: "str | None") -> "float | None":
    """Return a finite number (CloudWatch takes no other), or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
