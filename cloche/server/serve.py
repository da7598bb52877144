"""The server's process, which its parent (`cloche.server.parent`) starts, and starts again.

It is a program of its own so that the commands, which only talk HTTP, start quickly.
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from cloche.announce import announce
from cloche.app import App, RootKeys
from cloche.client import Client, answers
from cloche.core import executors
from cloche.core import home as homes
from cloche.core.config import Config, Home
from cloche.core.held import Handed, Held
from cloche.core.typed import decode
from cloche.engine.local.supervisor import mounts
from cloche.failures import explained
from cloche.outside.real_s3 import address
from cloche.server import log
from cloche.server.restarts import ASKING
from cloche.terminal import Stop, err

logger = logging.getLogger("cloche.server")
FILES = 65_536
SWITCH_S = 0.0005  # that a thread may keep the interpreter while the event loop waits for it
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
KEPT_FREE_BYTES, HEAP_BYTES = 64 << 20, 32 << 20
# Where the real S3's names are reached: a VPC endpoint, a mirror, a stand-in for tests.
S3_ADDRESS = "CLOCHE_S3_ADDRESS"


def main() -> None:
    """Serve as the JSON in $CLOCHE_SERVER says; exit code 1 and a reason when that fails."""
    gc.freeze()  # what is imported stays
    gc.enable()
    try:
        serve(json.loads(os.environ.pop("CLOCHE_SERVER")))
    except Stop as stop:
        err.print(str(stop), markup=False)
        sys.exit(stop.code)


def serve(settings: dict[str, Any]) -> None:
    """Serve until a signal ends it; Stop says why it could not."""
    log.configure()
    logging.getLogger("optuna").setLevel(logging.WARNING)  # it tells of every study it makes
    open_many_files()
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    mounts.own()
    home = Home(Path(settings["home"]))
    given = {name: settings[name] for name in homes.KEPT if name in settings}
    chosen = decode(homes.Choices, given, "the settings").options()
    at = os.environ.get(S3_ADDRESS) or None
    try:
        address(at)
    except ValueError as error:
        raise Stop(f"{S3_ADDRESS}: {error}", code=2) from None
    config = Config(home=home, account=settings["account"], s3_address=at, **chosen)
    root = RootKeys(settings["root_access_key_id"], settings["root_secret_access_key"])
    platform = App(config, root=root, handed=handed(settings, home))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve_until_stopped(platform, settings["log"]))
        except homes.HomeError as error:
            raise Stop(str(error)) from None
        except Exception as error:
            logging.getLogger("cloche").debug("the server could not start", exc_info=True)
            raise Stop(explained(error, home)) from error


def handed(settings: dict[str, Any], home: Home) -> Handed | None:
    """Return what the parent hands to the server; None without a parent."""
    if "held" not in settings:
        return None
    return Handed(
        held=Held.handed(settings["held"], home),
        **{name: settings[name] for name in ("parent", "token", "restarts", "ended")},
    )


def open_many_files() -> None:
    """Allow as many open files as the system lets us: each connection and sandbox needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_freed_memory() -> None:
    """Have glibc keep some of what is freed: a body of 6 MB that is given back to the kernel and
    asked for again costs 12 ms of page faults a request. Other C libraries do as they do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)


async def serve_until_stopped(platform: App, logged: str | None) -> None:
    """Start, say where, wait for a signal, stop. A second signal does not wait."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ASKING:
        loop.add_signal_handler(number, stop.set)
    await platform.start(logged)
    gc.freeze()  # what was loaded stays, too: a look at all of it held the loop up for 50 ms
    try:
        client = Client.of(platform.config.home)
        if not await executors.MESSAGES.run(answers, client):
            raise OSError(f"{client.server.address} was opened and does not answer")
        if logged is None and not client.server.restarts:
            announce(client, platform.engine.isolation)
        else:
            logger.info("Cloche %s serves at %s", version("cloche"), client.server.address)
        await stop.wait()
    finally:
        for number in ASKING:
            loop.remove_signal_handler(number)
        if logged is None:
            err.print(
                "Stopping; jobs and endpoints keep running, and the next `cloche up` finds them."
            )
        else:
            logger.info("stopping")
        await platform.stop()


if __name__ == "__main__":
    main()
