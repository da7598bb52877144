"""One request and one response as the protocols see them: HTTP taken apart, nothing more."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from cloche.operation import Body, FileSlice


@dataclass(slots=True, kw_only=True)
class Request:
    """A request. `path` and `query_string` as sent; header names in lower case.

    `body` is set when the whole payload was read, `stream` where the operation streams it, `form`
    when the body was first read as a form.
    """

    method: str
    path: str
    query_string: str = ""
    query: tuple[tuple[str, str], ...] = ()  # decoded
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    client: str | None = None  # the address that it came from
    tls: str | None = None  # the version, "1.3", of a connection that has TLS
    body: bytes = b""
    stream: Body | None = None
    form: tuple[tuple[str, str], ...] | None = None


Payload = bytes | FileSlice | AsyncIterator[bytes]


@dataclass(slots=True)
class Response:
    """A response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: Payload = b""
