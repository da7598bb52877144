"""Reads of the real S3: TLS to Amazon's own names, certificates checked, everything bounded.

Where a request goes is made from a bucket's name and a region that is known, never from what a
client or an answer says. Blocking: called from threads.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cloche.core.trust import client_context
from cloche.outside.buckets import REGIONS

GLOBAL = "s3.amazonaws.com"
# Every name under which S3's REST API answers: `bucket.` in front or not, a region or not.
ENDPOINT = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.)?"
    r"s3(?:[.-](?:dualstack\.)?(?P<region>[a-z0-9-]+))?\.amazonaws\.com"
)
WITHOUT_REGION = ("accelerate", "external-1")
PORT = 443
WITHIN_S = 30.0  # to connect, and between two pieces
LEAST_RATE = 50_000  # bytes a second, on the whole: who is slower gives the place up
SPARE_S = 120.0
MOST_BYTES = 5 << 40  # an object's size on S3
MOST_UNTOLD = 64 << 20  # of an answer that does not say its length: a list, an error
HOPS = 3
KNOWN_REGIONS = 1000
MOVED = (301, 307)


class OutsideError(Exception):
    """The real S3 can't be read; the text says why."""


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """The proxy that this machine itself must use for the outside."""

    host: str
    port: int
    authorization: str | None = None  # the value of Proxy-Authorization


@dataclass(frozen=True, slots=True)
class BucketHost:
    """What one of S3's names says."""

    bucket: str | None
    region: str | None


def endpoint(host: str) -> BucketHost | None:
    """Return what a host's name says; None when S3's REST API does not answer under it."""
    match = ENDPOINT.fullmatch(host)
    if match is None:
        return None
    region = match["region"]
    if region is not None and region not in (*REGIONS, *WITHOUT_REGION):
        return None
    return BucketHost(match["bucket"], region if region in REGIONS else None)


class PinnedConnection(http.client.HTTPSConnection):
    """TLS as `host`, by a connection to `at`."""

    def __init__(self, host: str, at: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(host, PORT, timeout=WITHIN_S, context=context)
        self.at, self.context = at, context

    def connect(self) -> None:
        """Connect, and make sure who answers."""
        plain = socket.create_connection(self.at, WITHIN_S)
        self.sock = self.context.wrap_socket(plain, server_hostname=self.host)


@dataclass
class OpenAnswer:
    """An answer whose body is still to be read, to its end or to `close`."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    host: str
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    release: Callable[[http.client.HTTPConnection], None]
    length: int | None = None
    taken: int = 0
    begun: float = field(default_factory=time.monotonic)

    def read(self, most: int) -> bytes:
        """Return what has come, at most so many bytes; none at the end. OutsideError."""
        if time.monotonic() - self.begun > SPARE_S + self.taken / LEAST_RATE:
            raise OutsideError(f"{self.host} sends less than {LEAST_RATE // 1000} KB a second")
        try:
            piece = self.response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OutsideError(f"{self.host} broke off: {error}") from error
        self.taken += len(piece)
        if self.taken > (MOST_UNTOLD if self.length is None else self.length):
            raise OutsideError(f"{self.host} sends more than {self.taken:,} bytes, or than it said")
        if not piece and self.length is not None and self.taken < self.length:
            raise OutsideError(f"{self.host} broke off after {self.taken:,} of {self.length:,}")
        return piece

    def whole(self) -> bytes:
        """Return all that is left, and close."""
        try:
            pieces = list[bytes]()
            while piece := self.read(1 << 20):
                pieces.append(piece)
                if self.taken > MOST_UNTOLD:
                    raise OutsideError(f"{self.host} sends more than {MOST_UNTOLD:,} bytes")
            return b"".join(pieces)
        finally:
            self.close()

    def close(self) -> None:
        """Let the connection go; also from another thread, in the middle of a read."""
        self.release(self.connection)


@dataclass
class RealS3:
    """The real S3, read without a key.

    at: where its names are to be reached instead of where they lead (HOST:PORT): a VPC endpoint,
    a mirror. Who answers there must have a certificate for Amazon's names all the same.
    """

    at: str | None = None
    route: Callable[[str, int], UpstreamProxy | None] = lambda _host, _port: None
    context: ssl.SSLContext | None = None  # made when first needed
    regions: OrderedDict[str, str] = field(default_factory=OrderedDict)  # of buckets
    # Sockets as well: a connection forgets its own when it is to be closed after the answer.
    open: dict[http.client.HTTPConnection, socket.socket | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def get(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        region: str | None = None,
    ) -> OpenAnswer:
        """Ask for `/bucket/key`, in the region where the bucket is. OutsideError.

        A bucket that is elsewhere is followed to the region that the answer names, and to none
        but Amazon's names of S3.
        """
        bucket = path.split("/", 2)[1]
        place = self.regions.get(bucket, region)
        for _ in range(HOPS):
            host = GLOBAL if place is None else f"s3.{place}.amazonaws.com"
            answer = self.send(method, host, f"{path}?{query}" if query else path, headers)
            if answer.status not in MOVED:
                return answer
            moved = moved_to(answer)
            if moved is None or moved == place:
                return answer
            answer.close()
            place = moved
            self._remember(bucket, moved)
        raise OutsideError(f"S3 sends {bucket} from region to region")

    def send(self, method: str, host: str, target: str, headers: Mapping[str, str]) -> OpenAnswer:
        """Send one request to one of S3's names, and read the answer's head. OutsideError."""
        connection = self._connection(host)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders()
            self.open[connection] = connection.sock
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._release(connection)
            raise OutsideError(f"{host} can't be reached: {error}") from error
        length = response.length if method != "HEAD" else 0
        answer = OpenAnswer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            host,
            response,
            connection,
            self._release,
            length,
        )
        if length is not None and length > MOST_BYTES:
            answer.close()
            raise OutsideError(f"{host} announces {length:,} bytes")
        return answer

    def close(self) -> None:
        """Break off everything that is under way, whoever reads it; nothing is begun any more."""
        with self.lock:
            self.closed = True
            for connection, sock in self.open.items():
                shut(sock or connection.sock)

    def _connection(self, host: str) -> http.client.HTTPConnection:
        route = None if self.at is not None else self.route(host, PORT)
        connection: http.client.HTTPConnection
        with self.lock:
            context = self.context = self.context or client_context()
        if route is not None:
            connection = http.client.HTTPSConnection(
                route.host, route.port, timeout=WITHIN_S, context=context
            )
            proof = route.authorization
            headers = {"Proxy-Authorization": proof} if proof is not None else {}
            connection.set_tunnel(host, PORT, headers)
        else:
            connection = PinnedConnection(host, address(self.at) or (host, PORT), context)
        with self.lock:
            if self.closed:
                raise OutsideError("Cloche is stopping")
            self.open[connection] = None
        return connection

    def _release(self, connection: http.client.HTTPConnection) -> None:
        with self.lock:
            sock = self.open.pop(connection, None)
        shut(sock or connection.sock)
        connection.close()

    def _remember(self, bucket: str, region: str) -> None:
        with self.lock:
            self.regions[bucket] = region
            while len(self.regions) > KNOWN_REGIONS:
                self.regions.popitem(last=False)


def moved_to(answer: OpenAnswer) -> str | None:
    """Return the region to which an answer sends; None when it names none that S3 has."""
    region = answer.headers.get("x-amz-bucket-region")
    if region is None:
        place = endpoint(urlsplit(answer.headers.get("location", "")).hostname or "")
        region = place.region if place is not None else None
    return region if region in REGIONS else None


def shut(sock: socket.socket | None) -> None:
    """End what waits for a socket, in whatever thread."""
    if sock is not None:
        with contextlib.suppress(OSError):  # the other side has closed it
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def address(text: str | None) -> tuple[str, int] | None:
    """Return HOST:PORT; ValueError when it is none."""
    if text is None:
        return None
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.username:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return parts.hostname, parts.port or PORT
