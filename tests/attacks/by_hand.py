"""Requests made by hand: signed over what the attacker chooses, sent byte by byte."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Keys:
    """What a signer has."""

    address: str
    access: str
    secret: str
    token: str | None
    region: str = "us-east-1"

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def scope(self, service: str, date: str) -> str:
        return f"{date}/{self.region}/{service}/aws4_request"

    def sign(self, service: str, stamp: str, canonical: str) -> str:
        """Return the SigV4 signature of a canonical request."""
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        scope = self.scope(service, stamp[:8])
        key = ("AWS4" + self.secret).encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        return hmac.digest(key, text.encode(), "sha256").hex()


@dataclass
class Answer:
    """What came back; status 0 when the server closed without an answer."""

    status: int
    body: bytes

    def __contains__(self, text: str) -> bool:
        return text in self.body.decode("latin-1")


def keys_of(platform: Any, identity: Any = "role") -> Keys:
    """Return the platform's keys of the role, or of root."""
    exports = platform.environment(identity)
    return Keys(
        platform.address,
        exports["AWS_ACCESS_KEY_ID"],
        exports["AWS_SECRET_ACCESS_KEY"],
        exports.get("AWS_SESSION_TOKEN"),
        exports["AWS_REGION"],
    )


def stamp_now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def in_header(
    keys: Keys,
    service: str,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    payload: str | None = None,
    query: str = "",
) -> list[tuple[str, str]]:
    """Return headers signed now with SigV4, `headers` among them (lower-cased names)."""
    stamp = stamp_now()
    payload = payload or hashlib.sha256(body).hexdigest()
    all_headers = {"host": keys.host, "x-amz-date": stamp, **(headers or {})}
    if service == "s3":
        all_headers["x-amz-content-sha256"] = payload
    if keys.token:
        all_headers["x-amz-security-token"] = keys.token
    names = sorted(all_headers)
    lines = "".join(f"{name}:{all_headers[name]}\n" for name in names)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload}"
    signature = keys.sign(service, stamp, canonical)
    credential = f"{keys.access}/{keys.scope(service, stamp[:8])}"
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(names)}, "
        f"Signature={signature}"
    )
    return [*all_headers.items(), ("authorization", authorization)]


def in_query(keys: Keys, service: str, method: str, path: str, query: str = "") -> str:
    """Return path and query of a URL presigned with SigV4 over the host alone."""
    stamp = stamp_now()
    pairs = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{keys.access}/{keys.scope(service, stamp[:8])}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token:
        pairs["X-Amz-Security-Token"] = keys.token
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        pairs[name] = value
    text = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(pairs.items()))
    payload = UNSIGNED if service == "s3" else EMPTY
    canonical = f"{method}\n{path}\n{text}\nhost:{keys.host}\n\nhost\n{payload}"
    return f"{path}?{text}&X-Amz-Signature={keys.sign(service, stamp, canonical)}"


def in_query_v2(
    keys: Keys, method: str, path: str, amz: Mapping[str, str] | None = None, kind: str = ""
) -> str:
    """Return path and query of a URL presigned with SigV2: signed headers lie in the query too."""
    expires = str(int(datetime.now(UTC).timestamp()) + 900)
    signed = dict(amz or {})
    if keys.token:
        signed["x-amz-security-token"] = keys.token
    lines = [method, "", kind, expires, *(f"{k}:{signed[k]}" for k in sorted(signed)), path]
    digest = hmac.digest(keys.secret.encode(), "\n".join(lines).encode(), "sha1")
    pairs = {"AWSAccessKeyId": keys.access, "Expires": expires, **signed}
    if kind:
        pairs["content-type"] = kind
    pairs["Signature"] = base64.b64encode(digest).decode()
    return path + "?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in pairs.items())


def send(
    keys: Keys, method: str, target: str, headers: Headers = (), body: bytes = b"", **more: Any
) -> Answer:
    """Send a request as it is; `length=False` leaves Content-Length out."""
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.append(f"Host: {keys.host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if more.get("length", True):
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return raw(keys, head + body, more.get("within_s", 30.0))


def raw(keys: Keys, content: bytes, within_s: float = 30.0) -> Answer:
    """Send bytes and return the answer; what the server no longer reads is not sent."""
    where = urlsplit(keys.address)
    with socket.create_connection((where.hostname, where.port), timeout=within_s) as connection:
        # Closed in the middle: the answer may be there all the same.
        with contextlib.suppress(OSError):
            connection.sendall(content)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Return the answer, read until the server closes or its length is reached."""
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
            head, end, body = content.partition(b"\r\n\r\n")
            length = [
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ]
            if end and length and len(body) >= length[0]:
                break
    except ConnectionError:
        pass
    head, _, body = content.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]) if head else 0, body)
