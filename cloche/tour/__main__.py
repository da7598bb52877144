"""`python -m cloche.tour PLAN`: the story's own process, started by `cloche tour`."""

import importlib
import logging
import sys


def main() -> int:
    """Tell the story; importing what it needs takes seconds, in which Ctrl-C must work too."""
    # Before the SDK is imported: it tells of its own configuration files while it is.
    # `sagemaker` says what the tour says itself, and of telemetry that `cloche run` turns off.
    for name in ("sagemaker", "sagemaker.config", "sagemaker.image_uris", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A tuner asks the estimator for its model, which it can't have yet, and the SDK warns of that.
    logging.getLogger("sagemaker.estimator").setLevel(logging.ERROR)
    try:
        code: int = importlib.import_module("cloche.tour.story").main(sys.argv[1])
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
