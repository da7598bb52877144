"""`cloche up`: becomes the server's parent, or starts one that goes on by itself."""

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
from pathlib import Path
from typing import Any

import psutil

from cloche.announce import announce
from cloche.cli.aws_client import AwsClient, answers, home_option
from cloche.cli.output import Stop, err, out
from cloche.core import home as homes
from cloche.core import ids
from cloche.core.config import ENGINES, Config, Home
from cloche.core.held import Busy, Held, PortTaken

DEFAULT_REGION = "us-east-1"
NONE = "none"  # removes the values of a list option that earlier starts had
ANSWERS_WITHIN_S = 120.0
LOG_LIMIT = 10 * 2**20
SERVER = (sys.executable, "-P", "-m", "cloche.server")
# They are of the user's Python, and would put its packages before the server's own.
USERS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
FLAGS = {
    "allow_egress": "--allow-egress",
    "host_names": "--host-name",
    "public_buckets": "--public-bucket",
    "pass_foreign_keys": "--pass-foreign-keys",
    "gpu_instances": "--gpu-instances",
}
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
HOST_NAME = re.compile(rf"{LABEL}(\.{LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line; None: as at the last start."""

    home: Home
    host: str | None
    port: int | None
    engine: str | None
    allow_egress: tuple[str, ...] | None
    host_names: tuple[str, ...] | None
    public_buckets: tuple[str, ...] | None
    pass_foreign_keys: bool | None
    gpu_instances: str | None
    region: str | None
    account_id: str | None
    root_access_key_id: str | None
    root_secret_access_key: str | None


def up(options: Options, *, detach: bool) -> None:
    """Start the platform; with `detach`, in a process that outlives this one."""
    check(options)
    warn_of_open_home(options.home)
    if is_up_already(options):
        return
    asked = settings_of(options)
    held = take(asked)
    if detach:
        start_detached(options, asked, held)
        return
    # The parent takes this process over: Ctrl-C and the terminal are its own.
    command, variables = server_command(asked, held, None)
    for descriptor in held.descriptors().values():
        os.set_inheritable(descriptor, True)
    os.execve(command[0], command, variables)


def take(asked: Mapping[str, Any]) -> Held:
    """Take the home folder and its ports for all servers of this `up`; Stop says why not."""
    home = Home(Path(asked["home"]))
    chosen = {name: asked[name] for name in ("host", "port") if name in asked}
    try:
        return Held.take(Config(home=home, account=asked["account"], **chosen))
    except Busy:
        raise Stop(
            f"Another `cloche up` is starting or stopping in {home.path}. Try again, or "
            "choose another --home."
        ) from None
    except PortTaken as taken:
        raise Stop(port_taken(taken)) from None
    except OSError as error:
        place = error.filename or home.path
        raise Stop(f"{place} can't be used by this user: {error.strerror}") from None


def port_taken(taken: PortTaken) -> str:
    """Return what to tell the user about a port that can't be had."""
    if "in use" not in str(taken).lower():
        return f"Cloche can't listen on {taken}"
    which = f"{taken.host}:{taken.port} is in use{by_whom(taken.port)}."
    return f"{which} Stop that, or choose another port: cloche up --port {taken.port + 100}"


def by_whom(port: int) -> str:
    """Return ` by NAME (pid N)` where the system tells us."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # others' processes are not shown to every user
    return ""


def check(options: Options) -> None:
    """Raise Stop for what can't be meant."""
    if options.engine not in (None, *ENGINES):
        raise Stop(f"There is no engine {options.engine!r}; there is: {', '.join(ENGINES)}", code=2)
    for cidr in listed(options.allow_egress) or ():
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise Stop(
                f"--allow-egress takes a network such as 192.168.1.0/24, not {cidr!r}", code=2
            ) from None
    for name in listed(options.host_names) or ():
        if not HOST_NAME.fullmatch(name):
            raise Stop(f"--host-name takes a name such as cloche.example.com, not {name!r}", code=2)
    for name in listed(options.public_buckets) or ():
        if not BUCKET.fullmatch(name):
            raise Stop(f"--public-bucket takes the name of a bucket, not {name!r}", code=2)
    if options.account_id is not None and not re.fullmatch(r"\d{12}", options.account_id):
        raise Stop(f"--account-id takes 12 digits, not {options.account_id!r}", code=2)
    if options.region is not None and not REGION.fullmatch(options.region):
        raise Stop(f"--region takes a name such as us-east-1, not {options.region!r}", code=2)
    if (options.root_access_key_id is None) != (options.root_secret_access_key is None):
        raise Stop("Give --root-access-key-id and --root-secret-access-key, or neither", code=2)


def listed(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the values of a list option: `none` alone is an empty list."""
    return () if values == (NONE,) else values


def choices(options: Options) -> dict[str, Any]:
    """Return the explicit choices of the command line, as fields of Config."""
    said = {
        "host": options.host,
        "port": options.port,
        "region": options.region,
        "engine": options.engine,
        "allow_egress": listed(options.allow_egress),
        "host_names": listed(options.host_names),
        "public_buckets": listed(options.public_buckets),
        "pass_foreign_keys": options.pass_foreign_keys,
        "gpu_instances": options.gpu_instances,
    }
    return {name: value for name, value in said.items() if value is not None}


def warn_of_open_home(home: Home) -> None:
    """Close a home folder that others could read until now, and say what that means."""
    had = homes.secure_if_made(home)
    if had is not None:
        err.print(
            f"{home.path} was open to other users of this machine (mode {had:04o}); it is closed "
            "now. Whoever read it knows root's key. To change the key: cloche down, then cloche "
            "up --root-access-key-id … --root-secret-access-key …",
            markup=False,
        )


def is_up_already(options: Options) -> bool:
    """Say so and return True when this home's server is up; Stop when it was asked for another."""
    server = homes.read_server(options.home)
    if server is None:
        return False
    where = f"Cloche is already up at {server.address} (pid {server.pid})"
    home = home_option(options.home)
    if options.port is not None and not server.address.endswith(f":{options.port}"):
        raise Stop(
            f"{where}, with this home folder. To move it: cloche down{home}, "
            f"then cloche up --port {options.port}{home}"
        )
    kept = homes.read_choices(options.home)
    for name, value in choices(options).items():
        if name in kept and kept[name] != value:
            raise Stop(
                f"{where}, with another {FLAGS.get(name, f'--{name}')}. To change it: cloche "
                f"down{home}, then this `cloche up` again"
            )
    out.print(f"{where}.", markup=False)
    return True


def settings_of(options: Options) -> dict[str, Any]:
    """Return the server's settings: these options, over those of the last start, over the home
    folder's own.
    """
    made = homes.read_settings(options.home)
    if made is not None and options.account_id not in (None, made.account):
        raise Stop(
            f"{options.home.path} is the home of account {made.account}; --account-id can't change "
            "it. Choose another --home for another account."
        )
    generated = f"{secrets.randbelow(9 * 10**11) + 10**11}"
    return {
        "home": str(options.home.path),
        "region": made.region if made else DEFAULT_REGION,
        **homes.read_choices(options.home),
        **choices(options),
        "account": made.account if made else options.account_id or generated,
        "root_access_key_id": options.root_access_key_id,
        "root_secret_access_key": options.root_secret_access_key,
        "token": ids.secret_access_key(),
    }


def server_command(
    asked: Mapping[str, Any], held: Held, log: str | None
) -> tuple[list[str], dict[str, str]]:
    """Return the parent's command line, which names the home alone, and its environment.

    The settings are in the environment: every user may read a process's command line, and root's
    secret can be among them.
    """
    settings = json.dumps({**asked, "log": log, "held": held.descriptors()})
    kept = {name: value for name, value in os.environ.items() if name not in USERS_PYTHON}
    return [*SERVER, asked["home"]], kept | {"CLOCHE_SERVER": settings}


def start_detached(options: Options, asked: Mapping[str, Any], held: Held) -> None:
    """Start a server in the background; return once it answers, Stop with its error if it fails."""
    log = options.home.path / "server.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name("server.log.1"))
    with log.open("ab") as file:
        begin = file.tell()
        command, variables = server_command(asked, held, str(log))
        child = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=tuple(held.descriptors().values()),
            cwd="/",
        )
    held.close()
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            child.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            server = homes.read_server(options.home)
            if server is not None and server.parent == child.pid:
                client = AwsClient(options.home, server)
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
