"""Requests as bytes: signed after they were mutated, sent as they are, answers checked strictly."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import socket
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from posixpath import normpath
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SAFE = "-_.~"
TIMEOUT_S = 20.0
UNSIGNED = frozenset(("expect", "transfer-encoding", "content-length", "cookie"))


@dataclass(frozen=True, slots=True)
class Keys:
    """Whose requests they are."""

    access_key_id: str
    secret: str
    token: str | None


@dataclass(slots=True)
class Wire:
    """A request before it is signed. `path` and `query` as they go out (percent-encoded)."""

    service: str  # botocore's name
    signing_name: str
    protocol: str
    operation: str
    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    late: list[tuple[str, str]] = field(default_factory=list)  # headers that nobody signs

    def with_(self, **changes: Any) -> Wire:
        """Return a copy; headers and late ones are its own."""
        return replace(self, headers=dict(self.headers), late=list(self.late))._set(changes)

    def _set(self, changes: dict[str, Any]) -> Wire:
        for name, value in changes.items():
            setattr(self, name, value)
        return self


def signed(wire: Wire, host: str, keys: Keys, now: datetime | None = None) -> bytes:
    """Return the bytes of a signed request (SigV4 in the header)."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(wire.body).hexdigest()
    headers = {"host": host, "x-amz-date": stamp}
    headers |= {name.lower(): value for name, value in wire.headers.items()}
    if wire.service == "s3":
        headers.setdefault("x-amz-content-sha256", digest)
        digest = headers["x-amz-content-sha256"]
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token
    names = sorted(headers.keys() - UNSIGNED)
    pairs = sorted(
        (quote(name, safe=SAFE), quote(value, safe=SAFE))
        for name, value in parse_qsl(wire.query, keep_blank_values=True)
    )
    canonical = "\n".join(
        (
            wire.method,
            signed_path(wire),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            digest,
        )
    )
    scope = f"{stamp[:8]}/us-east-1/{wire.signing_name}/aws4_request"
    signed = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    key = ("AWS4" + keys.secret).encode()
    for part in (stamp[:8], "us-east-1", wire.signing_name, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{signed}"
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(names)}, "
        f"Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"
    )
    if "transfer-encoding" not in headers:
        headers.setdefault("content-length", str(len(wire.body)))
    target = f"{wire.path}?{wire.query}" if wire.query else wire.path
    lines = [f"{name}: {value}" for name, value in [*headers.items(), *wire.late]]
    head = "\r\n".join([f"{wire.method} {target} HTTP/1.1", *lines, "", ""])
    return head.encode("latin-1", "replace") + wire.body


def signed_path(wire: Wire) -> str:
    """Return the path as the signature covers it."""
    if wire.service == "s3":
        return quote(unquote(wire.path), safe="/" + SAFE)
    normal = normpath(wire.path)
    normal = normal[1:] if normal.startswith("//") else normal
    if wire.path.endswith("/") and not normal.endswith("/"):
        normal += "/"
    return quote(normal, safe="/" + SAFE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection, kept while the server keeps it."""

    def __init__(self, address: str) -> None:
        where = urlsplit(address)
        self.where = (where.hostname or "", where.port or 80)
        self.socket: socket.socket | None = None

    def send(self, content: bytes, method: str = "POST") -> Answer:
        """Send bytes and return the answer; ConnectionError or http.client's when none comes."""
        kept = self.socket is not None
        try:
            return self._send(content, method)
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if not kept:
                raise
            return self._send(content, method)  # the server had closed the kept connection

    def _send(self, content: bytes, method: str) -> Answer:
        if self.socket is None:
            self.socket = socket.create_connection(self.where, TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Refused before all of it was sent: the answer may be there.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(content)
        response = http.client.HTTPResponse(self.socket, method=method)
        try:
            response.begin()
            body = response.read()
        except BaseException:
            self.close()
            raise
        headers = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Answer(response.status, headers, body)

    def close(self) -> None:
        """Let go of the connection."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def code_of(answer: Answer, method: str) -> str:
    """Return an error's code, "" of a success or of an answer without a body.

    ValueError or ET.ParseError when the answer does not parse as what it says it is.
    """
    if method == "HEAD" or answer.status in (204, 304):
        if answer.body:
            raise ValueError(f"a body where none may be: {answer.body[:100]!r}")
        return ""
    kind, fine = answer.headers.get("content-type", ""), answer.status < 300
    code: str | None = None
    if "xml" in kind and answer.body:
        code = ET.fromstring(answer.body).findtext(".//{*}Code") or ""
    elif "json" in kind and answer.body:
        value = json.loads(answer.body.decode(), parse_constant=no_constant)
        code = "" if fine else value.get("__type") or answer.headers.get("x-amzn-errortype", "")
    elif kind == "application/cbor":
        code = "none"
    elif kind.startswith("text/plain"):  # before any service is known: a phrase of HTTP
        code = "none" if answer.body.decode() == HTTPStatus(answer.status).phrase else ""
    if not fine and not code:
        raise ValueError(f"an error without a code: {kind} {answer.body[:200]!r}")
    return "" if fine else code or ""


def no_constant(text: str) -> float:
    """Refuse what is no JSON."""
    raise ValueError(f"{text} is no JSON")
