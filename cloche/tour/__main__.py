"""`python -m cloche.tour PLAN`: the story's own process, started by `cloche tour`."""

import importlib
import sys


def main() -> int:
    """Tell the story; importing what it needs takes seconds, in which Ctrl-C must work too."""
    try:
        code: int = importlib.import_module("cloche.tour.story").main(sys.argv[1])
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
