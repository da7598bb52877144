"""`cloche env` and `cloche run`."""

import os
import sys
from collections.abc import Sequence

from cloche.cli.client import Client
from cloche.cli.environment import Environment, Identity, environment
from cloche.cli.output import Stop
from cloche.core.config import Home

# As shells have it.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def env(home: Home, identity: Identity) -> None:
    """Print the environment for a shell to evaluate."""
    sys.stdout.write(asked(home, identity).shell())


def run(home: Home, identity: Identity, command: Sequence[str]) -> None:
    """Become the command, in the environment."""
    variables = asked(home, identity).applied(os.environ)
    try:
        os.execvpe(command[0], list(command), variables)
    except FileNotFoundError:
        raise Stop(f"There is no command {command[0]!r}", code=NOT_FOUND) from None
    except OSError as error:
        raise Stop(f"{command[0]!r} can't be run: {error.strerror}", code=NOT_EXECUTABLE) from None


def asked(home: Home, identity: Identity) -> Environment:
    """Return the environment; Stop when the server does not give it."""
    client = Client.of(home)
    try:
        return environment(client, identity)
    except (OSError, ValueError) as error:
        raise Stop(f"Cloche at {client.server.address} gave no session: {error}") from None
