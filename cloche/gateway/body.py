"""A request's payload, read from the ASGI server as it arrives."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from cloche.core.errors import AwsError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
SHA_MISMATCH = "The provided 'x-amz-content-sha256' header does not match what was computed."


class Disconnected(Exception):
    """The client went away in the middle of its request."""


class RawBody:
    """The bytes as sent. Nothing is read, nor `100 Continue` sent, before it is iterated."""

    def __init__(self, receive: Receive, length: int | None, chunked: bool) -> None:
        self.receive = receive
        self.length = length
        self.finished = not chunked and not length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.finished:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            self.finished = not event.get("more_body", False)
            if event.get("body"):
                yield event["body"]

    async def whole(self, limit: int, code: str) -> bytes:
        """Return all of it; AwsError 413 with that code when it is longer than `limit`."""
        if self.finished:
            return b""
        if self.length is not None and self.length > limit:
            raise too_large(limit, code)
        chunks, size = [], 0
        async for chunk in self:
            size += len(chunk)
            if size > limit:
                raise too_large(limit, code)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def skip(self, limit: int) -> bool:
        """Read and drop what is left; False when there is more than `limit`."""
        if self.length is not None and self.length > limit:
            return self.finished
        size = 0
        async for chunk in self:
            size += len(chunk)
            if size > limit:
                return False
        return True


def too_large(limit: int, code: str) -> AwsError:
    """Return the refusal of a body that an operation does not stream."""
    return AwsError(code, f"The request body is longer than {limit} bytes.", 413)


class PlainBody:
    """A payload as it is; where its SHA-256 was signed, the end of reading checks it."""

    trailers: Mapping[str, str] = {}

    def __init__(self, raw: RawBody, sha256: str | None) -> None:
        self.raw, self.sha256, self.length = raw, sha256, raw.length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.sha256 is None:
            async for chunk in self.raw:
                yield chunk
            return
        digest = hashlib.sha256()
        async for chunk in self.raw:
            digest.update(chunk)
            yield chunk
        computed = digest.hexdigest()
        if not hmac.compare_digest(computed.encode(), self.sha256.encode()):
            raise sha_mismatch(self.sha256, computed)


def sha_mismatch(sent: str, computed: str) -> AwsError:
    """Return S3's refusal of a payload that is not the signed one."""
    fields = {"ClientComputedContentSHA256": sent, "S3ComputedContentSHA256": computed}
    return AwsError("XAmzContentSHA256Mismatch", SHA_MISMATCH, fields=fields)
