"""What a start of the server costs."""

import subprocess
import sys


def test_a_start_does_not_load_what_few_need() -> None:
    """Alembic migrates, Optuna tunes, NumPy looks at pictures: each is half a second of a start."""
    code = "import sys, cloche.server; print({'alembic', 'optuna', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_start_does_not_load_the_commands() -> None:
    """Typer, the tour, botocore's clients: the server says little and asks itself one thing."""
    code = (
        "import sys, cloche.server; "
        "print({'typer', 'cloche.cli', 'cloche.tour', 'botocore.client'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
