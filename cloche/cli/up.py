"""`cloche up`: becomes the server, or starts one that goes on by itself."""

import ipaddress
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloche.cli.announce import announce
from cloche.cli.client import Client, answers, home_option
from cloche.cli.output import Stop, err, out
from cloche.core import home as homes
from cloche.core.config import Home

DEFAULT_REGION = "us-east-1"
NONE = "none"  # takes back what a list option was told before
ENGINES = ("local",)
ANSWERS_WITHIN_S = 120.0
LOG_LIMIT = 10 * 2**20
SERVER = (sys.executable, "-P", "-m", "cloche.server")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
FLAGS = {"allow_egress": "--allow-egress", "host_names": "--host-name"}
HOST_NAME = re.compile(rf"{LABEL}(\.{LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asked for; None: as the last time."""

    home: Home
    host: str | None
    port: int | None
    engine: str | None
    allow_egress: tuple[str, ...] | None
    host_names: tuple[str, ...] | None
    region: str | None
    account_id: str | None
    root_access_key_id: str | None
    root_secret_access_key: str | None


def up(wish: Wish, *, detach: bool) -> None:
    """Start the platform; with `detach`, in a process that outlives this one."""
    check(wish)
    warn_of_open_home(wish.home)
    if said_up_already(wish):
        return
    asked = settings_of(wish)
    if detach:
        start_detached(wish, asked)
        return
    # The server takes this process over: Ctrl-C and the terminal are its own.
    command, variables = server_command(asked, None)
    os.execve(command[0], command, variables)


def check(wish: Wish) -> None:
    """Raise Stop for what can't be meant."""
    if wish.engine not in (None, *ENGINES):
        raise Stop(f"There is no engine {wish.engine!r}. There is: {', '.join(ENGINES)}", code=2)
    for cidr in told(wish.allow_egress) or ():
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise Stop(
                f"--allow-egress takes a network such as 192.168.1.0/24, not {cidr!r}", code=2
            ) from None
    for name in told(wish.host_names) or ():
        if not HOST_NAME.fullmatch(name):
            raise Stop(f"--host-name takes a name such as cloche.example.com, not {name!r}", code=2)
    if wish.account_id is not None and not re.fullmatch(r"\d{12}", wish.account_id):
        raise Stop(f"--account-id takes 12 digits, not {wish.account_id!r}", code=2)
    if wish.region is not None and not REGION.fullmatch(wish.region):
        raise Stop(f"--region takes a name such as us-east-1, not {wish.region!r}", code=2)
    if (wish.root_access_key_id is None) != (wish.root_secret_access_key is None):
        raise Stop("Give --root-access-key-id and --root-secret-access-key, or neither", code=2)


def told(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return what a list option means: `none` alone is an empty list."""
    return () if values == (NONE,) else values


def choices(wish: Wish) -> dict[str, Any]:
    """Return the explicit choices of the command line, as fields of Config."""
    said = {
        "host": wish.host,
        "port": wish.port,
        "region": wish.region,
        "engine": wish.engine,
        "allow_egress": told(wish.allow_egress),
        "host_names": told(wish.host_names),
    }
    return {name: value for name, value in said.items() if value is not None}


def warn_of_open_home(home: Home) -> None:
    """Close a home folder that others could read until now, and say what that means."""
    had = homes.secure_if_made(home)
    if had is not None:
        err.print(
            f"{home.path} was open to other users of this machine (mode {had:04o}); it is closed "
            "now. Who has read it knows root's key. To change the key: cloche down, then cloche "
            "up --root-access-key-id … --root-secret-access-key …",
            markup=False,
        )


def said_up_already(wish: Wish) -> bool:
    """Say so and return True when this home's server is up; Stop when it was asked for another."""
    server = homes.read_server(wish.home)
    if server is None:
        return False
    where = f"Cloche is already up at {server.address} (pid {server.pid})"
    option = home_option(wish.home)
    if wish.port is not None and not server.address.endswith(f":{wish.port}"):
        raise Stop(
            f"{where}, with this home folder. To move it: cloche down{option}, "
            f"then cloche up --port {wish.port}{option}"
        )
    kept = homes.read_choices(wish.home)
    for name, value in choices(wish).items():
        if name in kept and kept[name] != value:
            raise Stop(
                f"{where}, with another {FLAGS.get(name, f'--{name}')}. To change it: cloche "
                f"down{option}, then this `cloche up` again"
            )
    out.print(f"{where}.", markup=False)
    return True


def settings_of(wish: Wish) -> dict[str, Any]:
    """Return what the server is told: the wish, over what the last one was, over what the home
    folder was made with.
    """
    made = homes.read_settings(wish.home)
    if made is not None and wish.account_id not in (None, made.account):
        raise Stop(
            f"{wish.home.path} is the home of account {made.account}; --account-id can't change "
            "it. Choose another --home for another account."
        )
    drawn = f"{secrets.randbelow(9 * 10**11) + 10**11}"
    return {
        "home": str(wish.home.path),
        "region": made.region if made else DEFAULT_REGION,
        **homes.read_choices(wish.home),
        **choices(wish),
        "account": made.account if made else wish.account_id or drawn,
        "root_access_key_id": wish.root_access_key_id,
        "root_secret_access_key": wish.root_secret_access_key,
    }


def server_command(asked: Mapping[str, Any], log: str | None) -> tuple[list[str], dict[str, str]]:
    """Return the server's command line, which names the home alone, and its environment.

    What it is told goes there: every user may read a process's command line, and root's secret
    can be among it.
    """
    told = json.dumps({**asked, "log": log})
    return [*SERVER, asked["home"]], {**os.environ, "CLOCHE_SERVER": told}


def start_detached(wish: Wish, asked: Mapping[str, Any]) -> None:
    """Start a server of its own and return once it answers; Stop with its words if it fails."""
    homes.prepare(wish.home)
    log = wish.home.path / "server.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name("server.log.1"))
    with log.open("ab") as file:
        begin = file.tell()
        command, variables = server_command(asked, str(log))
        child = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            child.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            server = homes.read_server(wish.home)
            if server is not None and server.pid == child.pid:
                client = Client(wish.home, server)
                if answers(client):
                    announce(client, client.status()["isolation"])
                    return
            continue
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode(errors="replace").strip()
        raise Stop(said or f"The server ended with code {child.returncode}; see {log}")
    child.terminate()
    raise Stop(f"The server gave no answer in {ANSWERS_WITHIN_S:.0f} seconds; see {log}")
