"""Who may reach what through the proxy.

The user's own clients reach everything, as they would without a proxy. User code inside a sandbox
reaches public addresses only: not the machine, not its network, unless `--allow-egress` names them.
Names are resolved here and the connection goes to an address that was checked, so that a name
which changes its address in between gains nothing.
"""

import asyncio
import base64
import ipaddress
import os
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

import psutil

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# An IPv4 address inside an IPv6 one, for a gateway to translate (RFC 6052).
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """The proxy does not connect; `status` and the text are the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client wants to go."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """The proxy that this machine itself must use for the outside."""

    host: str
    port: int
    authorization: str | None = None  # the value of Proxy-Authorization


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the server's own environment says of proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY."""

    https: Route | None = None
    http: Route | None = None
    no_proxy: str = ""

    def route(self, target: Target, *, secure: bool) -> Route | None:
        """Return the proxy to use for the target; None: straight."""
        proxies = {"no": self.no_proxy}
        if urllib.request.proxy_bypass_environment(str(target), proxies):  # type: ignore[attr-defined]
            return None
        return self.https if secure else self.http


class Egress(Protocol):
    """What a listening socket of the proxy lets its clients reach."""

    def is_platform(self, target: Target) -> bool:
        """Return whether the target is the platform's own address."""

    async def resolve(
        self, target: Target, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return the addresses to connect to, best first; Refused when there is none.

        `client` is the caller's address; not `straight`: the machine's own proxy will connect.
        """

    def upstream_for(self, target: Target, *, secure: bool) -> Route | None:
        """Return the machine's own proxy for this target; None: connect straight."""


@dataclass(frozen=True, slots=True)
class Open:
    """For the user's own clients: everything, from this machine."""

    upstream: Upstream

    def is_platform(self, target: Target) -> bool:
        """Return False: such requests are passed on and arrive."""
        return False

    async def resolve(
        self, target: Target, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return all addresses of the target; Refused for clients elsewhere."""
        if client is not None:
            caller = unwrapped(ipaddress.ip_address(client.split("%")[0]))
            if not caller.is_loopback and caller not in own_addresses():
                text = f"This proxy connects other machines to *.amazonaws.com only, not {target}"
                raise Refused(403, text)
        if not straight:
            return []
        return [(str(address), target.port) for address in await looked_up(target)]

    def upstream_for(self, target: Target, *, secure: bool) -> Route | None:
        """Return the machine's own proxy for the target."""
        return self.upstream.route(target, secure=secure)


@dataclass(frozen=True, slots=True)
class Fenced:
    """For user code in a sandbox: public addresses, and the networks that are allowed."""

    upstream: Upstream
    allowed: tuple[Network, ...]
    platform_port: int

    def is_platform(self, target: Target) -> bool:
        """Return whether a client sent a request for its platform door through the proxy."""
        return target.port == self.platform_port and target.host in ("127.0.0.1", "localhost")

    async def resolve(
        self, target: Target, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return the target's addresses that are allowed; Refused when there is none."""
        try:
            found = await looked_up(target)
        except Refused:
            # Behind a proxy a machine may know no outside names: that proxy looks them up.
            if straight:
                raise
            return []
        own = own_addresses()
        good = [address for address in found if may_reach(address, self.allowed, own)]
        if not good:
            raise Refused(
                403,
                f"Cloche does not let user code reach {target}: {found[0]} is not a public "
                "address. `cloche up --allow-egress CIDR` allows a network.",
            )
        return [(str(address), target.port) for address in good]

    def upstream_for(self, target: Target, *, secure: bool) -> Route | None:
        """Return the machine's own proxy; None for networks that were allowed by name."""
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            return self.upstream.route(target, secure=secure)
        if any(address in network for network in self.allowed):
            return None
        return self.upstream.route(target, secure=secure)


def may_reach(address: Address, allowed: Sequence[Network], own: frozenset[Address]) -> bool:
    """Return whether user code may connect to an address. `own` are the machine's."""
    plain = unwrapped(address)
    if any(plain in network for network in allowed if network.version == plain.version):
        return True
    return plain.is_global and not plain.is_multicast and plain not in own


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    return inner or address


def own_addresses() -> frozenset[Address]:
    """Return the machine's own addresses: its services are not for user code to reach."""
    texts = [
        entry.address.split("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return frozenset(ipaddress.ip_address(text) for text in texts)


async def looked_up(target: Target) -> list[Address]:
    """Return the target's addresses in the system's order of preference."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(502, f"{target.host} has no address: {reason}") from error
    texts = dict.fromkeys(str(entry[4][0]).split("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


def networks(cidrs: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks; ValueError names what is none."""
    return tuple(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


def upstream_of(environment: Mapping[str, str] | None = None) -> Upstream:
    """Return the proxies that an environment (the server's own) names."""
    variables = os.environ if environment is None else environment

    def value(name: str) -> str:
        return variables.get(name.lower()) or variables.get(name, "")

    return Upstream(
        https=route_of(value("HTTPS_PROXY")),
        http=route_of(value("HTTP_PROXY")),
        no_proxy=value("NO_PROXY"),
    )


def route_of(url: str) -> Route | None:
    """Return the proxy that a URL names; None for an empty one."""
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not a proxy that Cloche can use: give http://HOST:PORT")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Route(parts.hostname, parts.port or 80, authorization)
