"""A server on a machine that says it has eight CPUs, so that several jobs run at once.

python roomy.py OPTIONS -             by itself
python roomy.py OPTIONS parent        a parent, which starts it again when it dies
python roomy.py                    the server, as its parent starts it
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from cloche.core import ids
from cloche.core.config import Config, Home
from cloche.core.held import Held
from cloche.engine.local.accounts import Resources
from cloche.server import log, restarts
from cloche.server.parent import SETTINGS, Parent
from cloche.server.serve import serve
from cloche.server.start import die_with

CPUS = 8


def main() -> None:
    handed = os.environ.pop(SETTINGS, None)
    settings = json.loads(handed or sys.argv[1])
    if handed is None and sys.argv[2] == "parent":
        keep_up(settings)
    if handed is not None:
        die_with(settings["parent"])
    real = Resources.of_this_machine()
    Resources.of_this_machine = classmethod(  # type: ignore[method-assign,assignment]
        lambda cls: replace(real, cpus=CPUS)
    )
    serve(settings)


def keep_up(settings: dict[str, object]) -> None:
    """Be the parent, as `cloche up` makes one. No death counts: the test kills faster than bugs."""
    log.configure()
    restarts.STEADY_S = 0.0
    home = Home(Path(str(settings["home"])))
    chosen = {"host": str(settings["host"]), "port": int(str(settings["port"]))}
    held = Held.take(Config(home=home, account=str(settings["account"]), **chosen))
    for descriptor in held.descriptors().values():
        os.set_inheritable(descriptor, True)
    own = {"held": held.descriptors(), "token": ids.secret_access_key()}
    sys.exit(Parent([sys.executable, __file__], settings | own).keep_up())


if __name__ == "__main__":
    main()
