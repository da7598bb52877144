"""The server's program: `cloche.server.serve`, with no collection of garbage while it is imported.

Classes, functions and shapes of 700 modules live as long as the server: looking through them again
and again is a tenth of a start, and would be a pause of each full collection later.
"""

import gc
import json
import os
import runpy
import sys

from cloche.engine.local.supervisor.namespaces import die_with_parent


def die_with(parent: int) -> None:
    """Be killed when the parent is: a server without one would keep the home folder and the ports.

    Killed, not asked: one that hangs would not hear it, and no state is lost by it.
    """
    die_with_parent()
    if os.getppid() != parent:
        sys.exit("The parent of the server has died.")


if __name__ == "__main__":
    gc.disable()
    die_with(json.loads(os.environ["CLOCHE_SERVER"])["parent"])
    runpy.run_module("cloche.server.serve", run_name="__main__", alter_sys=True)
