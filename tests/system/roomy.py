"""A server on a machine that says it has eight CPUs, so that several jobs run at once.

python roomy.py WISH -
"""

import json
import sys
from dataclasses import replace

from cloche.engine.local.accounts import Resources
from cloche.server import serve

CPUS = 8


def main() -> None:
    real = Resources.of_this_machine()
    Resources.of_this_machine = classmethod(  # type: ignore[method-assign,assignment]
        lambda cls: replace(real, cpus=CPUS)
    )
    serve(json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
