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

from cloche.outside import UpstreamProxy

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# What IANA's registries of special-purpose addresses have, and what is no one host's. Python's
# own `is_global` knows what they had when it was released.
# https://www.iana.org/assignments/iana-ipv4-special-registry
# https://www.iana.org/assignments/iana-ipv6-special-registry
SPECIAL_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
# All that is not within belongs to no host that others may reach: loopback, fc00::/7, fe80::/10,
# fec0::/10, multicast, 64:ff9b:1::/48, 100::/64, what is not given out yet.
UNICAST = ipaddress.IPv6Network("2000::/3")
SPECIAL_IPV6 = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
# IPv4 addresses inside IPv6 ones, and how far from the end: mapped, compatible, translated
# (RFC 4291, 2765), for a gateway to translate (RFC 6052), 6to4 (RFC 3056).
EMBEDDING = {
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("::/96"): 0,
    ipaddress.IPv6Network("::ffff:0:0:0/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}


class ConnectRefused(Exception):
    """The proxy does not connect; `status` and the text are the answer.

    phrase: HTTP's reason phrase, where it is to say more than the status does: of what answers a
    CONNECT that is all that most clients show.
    """

    def __init__(self, status: int, message: str, phrase: str = "") -> None:
        super().__init__(message)
        self.status, self.phrase = status, phrase


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a client wants to go."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the server's own environment says of proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY."""

    https: UpstreamProxy | None = None
    http: UpstreamProxy | None = None
    no_proxy: str = ""

    def route(self, target: Destination, *, secure: bool) -> UpstreamProxy | None:
        """Return the proxy to use for the target; None: straight."""
        proxies = {"no": self.no_proxy}
        if urllib.request.proxy_bypass_environment(str(target), proxies):  # type: ignore[attr-defined]
            return None
        return self.https if secure else self.http


class Egress(Protocol):
    """What a listening socket of the proxy lets its clients reach."""

    def is_platform(self, target: Destination) -> bool:
        """Return whether the target is the platform's own address."""

    async def resolve(
        self, target: Destination, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return the addresses to connect to, best first; ConnectRefused when there is none.

        `client` is the caller's address; not `straight`: the machine's own proxy will connect.
        """

    def upstream_for(self, target: Destination, *, secure: bool) -> UpstreamProxy | None:
        """Return the machine's own proxy for this target; None: connect straight."""


@dataclass(frozen=True, slots=True)
class Open:
    """For the user's own clients: everything, from this machine."""

    upstream: Upstream

    def is_platform(self, target: Destination) -> bool:
        """Return False: such requests are passed on and arrive."""
        return False

    async def resolve(
        self, target: Destination, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return all addresses of the target; ConnectRefused for clients elsewhere."""
        if client is not None:
            caller = unwrapped(ipaddress.ip_address(client.split("%")[0]))
            if not caller.is_loopback and caller not in own_addresses():
                text = f"This proxy connects other machines to *.amazonaws.com only, not {target}"
                raise ConnectRefused(403, text)
        if not straight:
            return []
        return [(str(address), target.port) for address in await looked_up(target)]

    def upstream_for(self, target: Destination, *, secure: bool) -> UpstreamProxy | None:
        """Return the machine's own proxy for the target."""
        return self.upstream.route(target, secure=secure)


@dataclass(frozen=True, slots=True)
class Fenced:
    """For user code in a sandbox: public addresses, and the networks that are allowed."""

    upstream: Upstream
    allowed: tuple[Network, ...]
    platform_port: int

    def is_platform(self, target: Destination) -> bool:
        """Return whether a client sent a request for its platform door through the proxy."""
        return target.port == self.platform_port and target.host in ("127.0.0.1", "localhost")

    async def resolve(
        self, target: Destination, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return the target's addresses that are allowed; ConnectRefused when there is none."""
        try:
            found = await looked_up(target)
        except ConnectRefused:
            # Behind a proxy a machine may know no outside names: that proxy looks them up.
            if straight:
                raise
            return []
        own = own_addresses()
        bad = [address for address in found if not may_reach(address, self.allowed, own)]
        good = [address for address in found if address not in bad]
        # The machine's own proxy chooses among a name's addresses by itself.
        if bad and (not good or not straight):
            raise ConnectRefused(
                403,
                f"Cloche does not let user code reach {target}: {bad[0]} is not a public "
                "address. `cloche up --allow-egress CIDR` allows a network.",
                f"Forbidden: {bad[0]} is not public, cloche up --allow-egress {bad[0]} allows it",
            )
        return [(str(address), target.port) for address in good]

    def upstream_for(self, target: Destination, *, secure: bool) -> UpstreamProxy | None:
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
    return is_public(plain) and plain not in own and address not in own


def is_public(address: Address) -> bool:
    """Return whether an address is one host's somewhere on the Internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in SPECIAL_IPV4)
    inside = any(address in network for network in SPECIAL_IPV6)
    return address in UNICAST and not inside and not is_isatap(address)


def is_isatap(address: ipaddress.IPv6Address) -> bool:
    """Return whether an address is that of a tunnel to the IPv4 address at its end (RFC 5214)."""
    return (int(address) >> 32) & 0xFCFFFFFF == 0x00005EFE


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback:
        return address
    for network, shift in EMBEDDING.items():
        if address in network:
            return ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def own_addresses() -> frozenset[Address]:
    """Return the machine's own addresses: its services are not for user code to reach."""
    texts = [
        entry.address.split("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return frozenset(ipaddress.ip_address(text) for text in texts)


async def looked_up(target: Destination) -> list[Address]:
    """Return the target's addresses in the system's order of preference."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConnectRefused(502, f"{target.host} has no address: {reason}") from error
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


def route_of(url: str) -> UpstreamProxy | None:
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
    return UpstreamProxy(parts.hostname, parts.port or 80, authorization)
