"""A request's payload, read from the ASGI server as it arrives."""

import asyncio
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.limits import BODY_IDLE_S, UNPROVEN_BYTES, UNSIGNED_BYTES
from cloche.operation import Body

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
STALLED = (
    "Your socket connection to the server was not read from or written to within the timeout "
    "period. Idle connections will be closed."
)
SHA_MISMATCH = "The provided 'x-amz-content-sha256' header does not match what was computed."


class Disconnected(Exception):
    """The client went away in the middle of its request."""


class RawBody:
    """The bytes as sent. Nothing is read, nor `100 Continue` sent, before it is iterated."""

    trailers: Mapping[str, str] = {}

    def __init__(self, receive: Receive, length: int | None, chunked: bool) -> None:
        self.receive = receive
        self.length = length
        self.finished = not chunked and not length
        self.stalled = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.finished:
            event = await self.next_event()
            if event["type"] == "http.disconnect":
                raise Disconnected
            self.finished = not event.get("more_body", False)
            if event.get("body"):
                yield event["body"]

    async def next_event(self) -> MutableMapping[str, Any]:
        """Return what comes next; AwsError RequestTimeout when nothing does.

        It is what asyncio.timeout does, in a fifth of the time: each request pays it.
        """
        task = asyncio.current_task()
        assert task is not None
        late = asyncio.get_running_loop().call_later(BODY_IDLE_S, self.give_up, task)
        try:
            return await self.receive()
        except asyncio.CancelledError:
            if not self.stalled or task.uncancel():
                raise
            raise AwsError("RequestTimeout", STALLED) from None
        finally:
            late.cancel()

    def give_up(self, task: "asyncio.Task[Any]") -> None:
        """Wait no longer."""
        self.stalled = True
        task.cancel()

    async def skip(self, limit: int) -> bool:
        """Read and drop what is left; False when there is more than `limit`."""
        if self.stalled or (self.length is not None and self.length > limit):
            return self.finished
        size = 0
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                async for chunk in self:
                    size += len(chunk)
                    if size > limit:
                        return False
        except (TimeoutError, AwsError):
            return False
        return True


class Budget:
    """The memory that bodies may take together whose signature is not proven yet."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, size: int) -> None:
        """Take that much; AwsError 503, which clients retry, when it is not there."""
        if self.taken + size > self.most:
            raise AwsError("SlowDown", "Please reduce your request rate.", 503)
        self.taken += size

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size


UNPROVEN = Budget(UNPROVEN_BYTES)


async def read_unproven(body: Body, limit: int, code: str) -> bytes:
    """Return all of a body that the signature covers: it is proven only once the body is here."""
    if body.length is not None and body.length <= UNSIGNED_BYTES:
        return await read_whole(body, limit, code)
    if body.length is not None and body.length > limit:
        raise too_large(limit, code)
    taken = body.length if body.length is not None else limit
    UNPROVEN.take(taken)
    try:
        return await read_whole(body, limit, code)
    finally:
        UNPROVEN.give_back(taken)


async def read_whole(body: Body, limit: int, code: str) -> bytes:
    """Return all of a body; AwsError 413 with that code when it is longer than `limit`."""
    if body.length is not None and body.length > limit:
        raise too_large(limit, code)
    chunks, size = [], 0
    async for chunk in body:
        size += len(chunk)
        if size > limit:
            raise too_large(limit, code)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def unzip(body: bytes, limit: int, code: str) -> bytes:
    """Return what a gzip body holds (botocore compresses PutMetricData's above 10 KB)."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise AwsError("SerializationException", f"The body is not gzip: {error}") from error
    if len(plain) > limit:
        raise too_large(limit, code)
    if not stream.eof:
        raise AwsError("SerializationException", "The body is not gzip: it is truncated.")
    return plain


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
