"""`cloche up`: the server, in this process or in one of its own."""

import asyncio
import ipaddress
import logging
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from cloche.app import Busy, Platform, PortTaken, RootKeys
from cloche.cli.client import Client, answers, home_option
from cloche.cli.failures import explained
from cloche.cli.output import Stop, err, out
from cloche.core import home as homes
from cloche.core.config import Config, Home

DEFAULT_PORT, DEFAULT_REGION = 4599, "us-east-1"
ENGINES = ("local",)
ANSWERS_WITHIN_S = 120.0
LOG_LIMIT = 10 * 2**20
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asked for."""

    home: Home
    host: str
    port: int | None
    engine: str
    allow_egress: tuple[str, ...]
    region: str | None
    account_id: str | None
    root_access_key_id: str | None
    root_secret_access_key: str | None
    log: Path | None  # set for the server of `--detach`


def up(wish: Wish, *, detach: bool) -> None:
    """Start the platform; with `detach`, in a process that outlives this one."""
    check(wish)
    if said_up_already(wish):
        return
    try:
        config = config_of(wish)
        if detach:
            start_detached(wish)
        else:
            serve(wish, config)
    except homes.HomeError as error:
        raise Stop(str(error)) from None
    except Busy:
        raise Stop(
            f"Another `cloche up` is starting or stopping in {wish.home.path}. Try again, or "
            "choose another --home."
        ) from None
    except PortTaken as taken:
        raise Stop(port_taken(taken)) from None


def check(wish: Wish) -> None:
    """Raise Stop for what can't be meant."""
    if wish.engine not in ENGINES:
        raise Stop(f"There is no engine {wish.engine!r}. There is: {', '.join(ENGINES)}", code=2)
    for cidr in wish.allow_egress:
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise Stop(
                f"--allow-egress takes a network such as 192.168.1.0/24, not {cidr!r}", code=2
            ) from None
    if wish.account_id is not None and not re.fullmatch(r"\d{12}", wish.account_id):
        raise Stop(f"--account-id takes 12 digits, not {wish.account_id!r}", code=2)
    if wish.region is not None and not REGION.fullmatch(wish.region):
        raise Stop(f"--region takes a name such as us-east-1, not {wish.region!r}", code=2)
    if (wish.root_access_key_id is None) != (wish.root_secret_access_key is None):
        raise Stop("Give --root-access-key-id and --root-secret-access-key, or neither", code=2)


def said_up_already(wish: Wish) -> bool:
    """Say so and return True when this home's server is up; Stop when it is up elsewhere."""
    server = homes.read_server(wish.home)
    if server is None:
        return False
    where = f"Cloche is already up at {server.address} (pid {server.pid})"
    if wish.port is not None and not server.address.endswith(f":{wish.port}"):
        raise Stop(
            f"{where}, with this home folder. To move it: cloche down{home_option(wish.home)}, "
            f"then cloche up --port {wish.port}{home_option(wish.home)}"
        )
    out.print(f"{where}.", markup=False)
    return True


def config_of(wish: Wish) -> Config:
    """Return the settings: what was asked for, over what the home folder was made with."""
    kept = homes.read_settings(wish.home)
    if kept is not None and wish.account_id not in (None, kept.account):
        raise Stop(
            f"{wish.home.path} is the home of account {kept.account}; --account-id can't change "
            "it. Choose another --home for another account."
        )
    drawn = f"{secrets.randbelow(9 * 10**11) + 10**11}"
    return Config(
        home=wish.home,
        host=wish.host,
        port=wish.port or DEFAULT_PORT,
        region=wish.region or (kept.region if kept else DEFAULT_REGION),
        account=kept.account if kept else wish.account_id or drawn,
        allow_egress=wish.allow_egress,
    )


def serve(wish: Wish, config: Config) -> None:
    """Serve until a signal ends it; Stop says why it could not."""
    configure_log()
    root = RootKeys(wish.root_access_key_id, wish.root_secret_access_key)
    platform = Platform(config, root=root)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve_until_told(platform, wish))
        except (homes.HomeError, Busy, PortTaken):
            raise
        except Exception as error:
            logging.getLogger("cloche").debug("the server could not start", exc_info=True)
            raise Stop(explained(error, wish.home)) from error


async def serve_until_told(platform: Platform, wish: Wish) -> None:
    """Start, say where, wait for a signal, stop. A second signal does not wait."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)
    await platform.start(str(wish.log) if wish.log else None)
    try:
        client = Client.of(wish.home)
        if not await asyncio.to_thread(answers, client):
            raise OSError(f"{client.server.address} was opened and does not answer")
        announce(client, platform.engine.isolation, detached=wish.log is not None)
        await told.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        if wish.log is None:
            err.print("Stopping; what runs goes on, and `cloche up` picks it up.")
        await platform.stop()


def start_detached(wish: Wish) -> None:
    """Start a server of its own and return once it answers; Stop with its words if it fails."""
    homes.prepare(wish.home)
    log = wish.home.path / "server.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name("server.log.1"))
    with log.open("ab") as file:
        begin = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "cloche", *arguments(wish, log)],
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
                    announce(client, client.get("/_cloche/status")["isolation"], detached=True)
                    out.print(f"  log        {log}", markup=False)
                    return
            continue
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode(errors="replace").strip()
        raise Stop(said or f"The server ended with code {child.returncode}; see {log}")
    child.terminate()
    raise Stop(f"The server gave no answer in {ANSWERS_WITHIN_S:.0f} seconds; see {log}")


def arguments(wish: Wish, log: Path) -> Sequence[str]:
    """Return the command line of the detached server."""
    options: dict[str, Any] = {
        "--home": wish.home.path,
        "--host": wish.host,
        "--port": wish.port,
        "--engine": wish.engine,
        "--region": wish.region,
        "--account-id": wish.account_id,
        "--root-access-key-id": wish.root_access_key_id,
        "--root-secret-access-key": wish.root_secret_access_key,
        "--log": log,
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return ["up", *given, *(f"--allow-egress={cidr}" for cidr in wish.allow_egress)]


def announce(client: Client, isolation: str, *, detached: bool) -> None:
    """Print where the platform is and what to do next."""
    keys, home = client.credentials(), home_option(client.home)
    lines = [
        f"[bold green]Cloche is up at {client.server.address}[/]",
        f"  home       {client.home.path} (account {keys.account}, region {keys.region})",
        f"  isolation  {isolation}",
        f"  next       cloche run{home} -- python your_script.py",
        f'             eval "$(cloche env{home})"    sets this kind of shell up',
        f"  stop       {f'cloche down{home}' if detached else f'Ctrl-C, or cloche down{home}'}",
    ]
    out.print("\n".join(lines))


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


def configure_log() -> None:
    """Log to stderr: a terminal, or the file that `--detach` opened."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("cloche").setLevel(logging.INFO)
