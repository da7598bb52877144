"""`cloche env` and `cloche run`."""

import os
import sys
from collections.abc import Sequence

from cloche.cli.aws_client import AwsClient
from cloche.cli.output import Stop, err
from cloche.cli.variables import ShellVariables, closed, environment, given_back
from cloche.core.config import Home

# As shells have it.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def env(home: Home, name: str) -> None:
    """Print the environment for a shell to evaluate; one that leads nowhere when there is none."""
    try:
        lines = asked(home, name).shell(os.environ)
    except BaseException:
        keep_away(home)
        raise
    say(lines)


def keep_away(home: Home) -> None:
    """Print an environment in which nothing reaches AWS, nor anything else, and which fails."""
    say([*closed(home, os.environ).shell(os.environ), "false"])
    err.print(
        "AWS requests of this shell now go to a closed port: Cloche is not up, and they must not "
        'reach the real AWS. To undo this: eval "$(cloche env --unset)"',
        markup=False,
    )


def unset() -> None:
    """Print what gives a shell back what it had before `cloche env`."""
    lines = given_back(os.environ)
    if lines is None:
        raise Stop("This shell was not set up by `cloche env`: there is nothing to undo.")
    say(lines)


def say(lines: Sequence[str]) -> None:
    """Print lines for a shell, byte by byte what its variables hold."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode("".join(f"{line}\n" for line in lines)))
    sys.stdout.buffer.flush()


def run(home: Home, name: str, command: Sequence[str]) -> None:
    """Become the command, in the environment."""
    variables = asked(home, name).applied(os.environ)
    try:
        os.execvpe(command[0], list(command), variables)
    except FileNotFoundError:
        raise Stop(f"{command[0]}: command not found", code=NOT_FOUND) from None
    except OSError as error:
        raise Stop(f"{command[0]!r} can't be run: {error.strerror}", code=NOT_EXECUTABLE) from None


def asked(home: Home, name: str) -> ShellVariables:
    """Return the environment of a role or user; Stop when the server does not give it."""
    client = AwsClient.of(home)
    try:
        return environment(client, name)
    except LookupError as error:
        raise Stop(f"--as {name}: {error.args[0]}") from None
    except (OSError, ValueError) as error:
        raise Stop(f"Cloche at {client.server.address} returned no credentials: {error}") from None
