"""What a start of the server costs."""

import subprocess
import sys


def test_a_start_does_not_load_what_few_need() -> None:
    """Alembic migrates, Optuna tunes, NumPy looks at pictures: each is half a second of a start."""
    code = (
        "import sys, cloche.server.serve; "
        "print({'alembic', 'optuna', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_start_does_not_load_the_commands() -> None:
    """Typer, the tour, botocore's clients: the server says little and asks itself one thing."""
    code = (
        "import sys, cloche.server.serve; "
        "print({'typer', 'cloche.cli', 'cloche.tour', 'botocore.client'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_parent_loads_next_to_nothing() -> None:
    """It lives as long as the platform does, and holds what must not be lost."""
    code = (
        "import sys, cloche.server.parent; "
        "print(sorted(name for name in sys.modules if name.startswith('cloche')), "
        "{'asyncio', 'botocore', 'rich', 'socket', 'subprocess', 'psutil'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "['cloche', 'cloche.server', 'cloche.server.log', 'cloche.server.parent', "
        "'cloche.server.restarts'] set()\n"
    )
