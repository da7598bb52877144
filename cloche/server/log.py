"""Where parent and server say what happens: a terminal, or the file that `--detach` opened."""

import logging
import sys


def configure() -> None:
    """Log to stderr: warnings, and of our own what is informative."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("cloche").setLevel(logging.INFO)
