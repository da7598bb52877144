"""A server as small as can be, under a real parent; it answers each connection with its pid.

    python small_server.py parent HOME PORT      the parent
    python small_server.py HOME                  the server, as the parent starts it

A file in HOME says how the server is: `fails` before it is up, `dies` as soon as it is, `lingers`
when it is asked to end, until it is asked again. With `waits` the second start is long after.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

from cloche.server import log, restarts
from cloche.server.parent import SETTINGS, Parent
from cloche.server.start import die_with


def main() -> None:
    if sys.argv[1] == "parent":
        parent(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        serve(Path(sys.argv[1]))


def parent(home: Path, port: int) -> None:
    log.configure()
    restarts.FIRST_PAUSE_S = 0.01
    if (home / "waits").exists():
        restarts.FIRST_PAUSE_S = restarts.LONGEST_PAUSE_S = 600.0
    listening = socket.create_server(("127.0.0.1", port))
    lock = (home / "lock").open("a")
    held = {"lock": lock.fileno(), "gateway": listening.detach()}
    for descriptor in held.values():
        os.set_inheritable(descriptor, True)
    command = [sys.executable, __file__, str(home)]
    sys.exit(Parent(command, {"home": str(home), "held": held}).keep_up())


def serve(home: Path) -> None:
    settings = json.loads(os.environ[SETTINGS])
    die_with(settings["parent"])
    with (home / "lives").open("a") as file:
        file.write(f"{os.getpid()} {settings['restarts']} {settings['ended']}\n")
    if (home / "fails").exists():
        sys.exit("This is why.")
    listening = socket.socket(fileno=settings["held"]["gateway"])
    (home / "server.json").write_text(json.dumps({"pid": os.getpid()}))
    if (home / "dies").exists():
        os.kill(os.getpid(), signal.SIGSEGV)

    def asked(*_: object) -> None:
        listening.close()
        if (home / "lingers").exists() and not (home / "asked").exists():
            (home / "asked").touch()
            signal.pause()
        sys.exit(0)

    signal.signal(signal.SIGTERM, asked)
    (home / "ready").touch()
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(str(os.getpid()).encode())


if __name__ == "__main__":
    main()
