"""Signed requests made by hand, for what no client sends."""

from __future__ import annotations

import http.client
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloche.core.identity import Credential


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def xml(self) -> dict[str, str]:
        """The elements of an error document, by name."""
        return {e.tag.rpartition("}")[2]: e.text or "" for e in ET.fromstring(self.body).iter()}


def send(
    url: str,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] = b"",
) -> Answer:
    """Send a request as it is (`path` with its query) and return the answer."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if isinstance(body, bytes) and body and "Content-Length" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        for piece in [body] if isinstance(body, bytes) else body:
            if piece:
                connection.send(piece)
        response = connection.getresponse()
        data = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, data)
    finally:
        connection.close()


def signed(
    url: str,
    service: str,
    method: str,
    path: str,
    credential: Credential,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    token: str | None = None,
) -> dict[str, str]:
    """Return the headers of a request that botocore signed now."""
    request = AWSRequest(method=method, url=url + path, headers=dict(headers or {}), data=body)
    keys = Credentials(
        credential.access_key_id, credential.secret_access_key, token or credential.session_token
    )
    auth: Any = S3SigV4Auth if service == "s3" else SigV4Auth
    signer = auth(keys, service, "us-east-1")
    request.context["payload_signing_enabled"] = True
    signer.add_auth(request)
    return {str(k): str(v) for k, v in request.headers.items()}
