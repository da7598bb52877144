"""`python -m bench [NAME …]`: run all benchmarks, or those named, one after the other."""

import importlib
import importlib.util
import sys
import time

from bench.harness import cores
from cloche.engine.local.supervisor import mounts

BENCHES = (
    "wire",
    "control_plane",
    "identity",
    "s3",
    "engine",
    "training",
    "serving",
    "images",
    "gang",
    "tuning",
    "scale",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}. There are: {', '.join(BENCHES)}")
        return 2
    mounts.own()  # as the server: volumes that a benchmark leaves end with it
    print(f"Python {sys.version.split()[0]}, {cores()} CPUs")
    for name in names or BENCHES:
        if importlib.util.find_spec(f"bench.{name}") is None:
            print(f"\n== {name}: not there")
            continue
        print(f"\n== {name}", flush=True)
        sys.argv[1:] = []  # a benchmark that takes options of its own gets none from here
        start = time.monotonic()
        importlib.import_module(f"bench.{name}").main()
        print(f"   ({time.monotonic() - start:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
