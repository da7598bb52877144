"""A server that lives for one step: it kills itself before the second write about the story.

    python doomed.py OPTIONS JOURNAL

OPTIONS is what `cloche.server.serve` takes. JOURNAL is a file to which each death adds a line: what
was about to be written. With "-" as JOURNAL the server lives.

So every life does all that a step does (starts a gang, puts artifacts, …) and dies before it is
written down that it was done; the next life has to find that out, and gets one step further.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cloche.records.resource import Resource
from cloche.records.store import Store
from cloche.server.serve import serve

STORY = "story"  # the name of the training job and of the endpoint
Write = Callable[..., Coroutine[Any, Any, Any]]


def main() -> None:
    options, journal = json.loads(sys.argv[1]), sys.argv[2]
    if journal != "-":
        doom(Path(journal))
    serve(options)


def doom(journal: Path) -> None:
    """Let this process end before its second write about the story."""
    writes = 0

    def counted(what: str, write: Write) -> Write:
        async def doomed(store: Store, resource: Resource, *rest: Any, **values: Any) -> Any:
            nonlocal writes
            if resource.name == STORY:
                writes += 1
                if writes > 1:
                    die(journal, f"{what} {resource.kind} {step_of(resource, values)}")
            return await write(store, resource, *rest, **values)

        return doomed

    for what in ("insert", "update", "delete"):
        setattr(Store, what, counted(what, getattr(Store, what)))


def step_of(resource: Resource, values: dict[str, Any]) -> str:
    """Return which step is about to be written."""
    transitions = (values.get("document") or {}).get("transitions")
    return str(
        transitions[-1]["status"] if transitions else values.get("status") or resource.status
    )


def die(journal: Path, what: str) -> None:
    """Write down what was about to be written, then end as `kill -9` ends a process."""
    with journal.open("a") as file:
        file.write(what + "\n")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
