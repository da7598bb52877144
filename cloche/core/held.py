"""What one `cloche up` holds for as long as it lasts: the home folder, and the listening sockets.

Descriptors that outlive a server: whoever holds them hands them to the next one.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cloche.core import home as homes
from cloche.core.config import Config, Home

BACKLOG = 2048  # connections that wait, as while the server is started again
LOCK = "lock"


class Busy(Exception):
    """Another server uses the home folder."""


class PortTaken(Exception):
    """Something else listens on a port that the platform needs."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"{host}:{port}: {reason}")
        self.host, self.port = host, port


@dataclass
class Held:
    """A home folder's lock and the platform's listening sockets, by name."""

    lock: homes.Lock
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    @classmethod
    def take(cls, config: Config) -> Self:
        """Take what a platform needs; HomeError, Busy, PortTaken and OSError say why not."""
        home = config.home
        homes.prepare(home)
        homes.read_settings(home)  # a newer one is not even locked
        held = cls(homes.Lock(home))
        if not held.lock.take():
            raise Busy(f"another server uses {home.path}")
        try:
            for name, port in (("gateway", config.port), ("proxy", config.proxy_port)):
                held.sockets[name] = bind(config.host, port)
            home.server.unlink(missing_ok=True)  # of one that was killed
        except BaseException:
            held.close()
            raise
        return held

    @classmethod
    def handed(cls, descriptors: Mapping[str, int], home: Home) -> Self:
        """Return what another process handed to this one; no child of ours inherits it."""
        held = cls(homes.Lock(home))
        for name, descriptor in descriptors.items():
            os.set_inheritable(descriptor, False)
            if name == LOCK:
                held.lock.adopt(descriptor)
            else:
                held.sockets[name] = socket.socket(fileno=descriptor)
        return held

    def descriptors(self) -> dict[str, int]:
        """Return the descriptors by name, as another process that inherits them is told them."""
        named = {name: listening.fileno() for name, listening in self.sockets.items()}
        return {LOCK: self.lock.fileno(), **named}

    def close(self) -> None:
        """Let go; the home folder is free, and the ports are, once every process has."""
        for listening in self.sockets.values():
            listening.close()
        self.lock.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What a server gets from the parent that starts it, again and again (`cloche.server`)."""

    held: Held
    parent: int  # its pid
    token: str  # the owner's
    restarts: int = 0  # how often it was started again
    ended: str | None = None  # how the last one ended


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on host and port; PortTaken when that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections are still timing out is free.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise PortTaken(host, port, str(error)) from error
    return listening
