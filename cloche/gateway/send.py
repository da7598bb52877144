"""A response on its way to the client: bytes, a slice of a file, or a stream."""

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from cloche.core import executors
from cloche.gateway.message import Response
from cloche.operation import FileSlice

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# Below this a read from the page cache costs less than handing it to a thread.
INLINE_BYTES = 256 * 1024
# What a header must not hold, though a stored name or a client's parameter may.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
CHUNK_BYTES = 1024 * 1024


async def send_response(send: Send, response: Response, method: str) -> None:
    """Send a response, and let go of what it holds whatever happens."""
    body, headers = response.body, response.headers
    try:
        if isinstance(body, bytes):
            if method != "HEAD" and response.status not in (204, 304):
                headers["content-length"] = str(len(body))
            await start(send, response)
            await send({"type": "http.response.body", "body": body if method != "HEAD" else b""})
        elif isinstance(body, FileSlice):
            headers["content-length"] = str(body.length)
            await start(send, response)
            if method == "HEAD":
                await send({"type": "http.response.body"})
            else:
                await send_slice(send, body)
        else:
            await start(send, response)
            async for chunk in body:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})
    finally:
        await discard(response)


async def discard(response: Response) -> None:
    """Let go of what a response holds: the file of a slice, a stream's generator."""
    if isinstance(response.body, FileSlice):
        os.close(response.body.fd)
    elif isinstance(response.body, AsyncGenerator):
        await response.body.aclose()


async def start(send: Send, response: Response) -> None:
    """Send status and headers."""
    headers = [
        (name.encode("latin-1"), CONTROL.sub(" ", value).encode("latin-1", "replace"))
        for name, value in response.headers.items()
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


def in_memory(part: FileSlice) -> bool:
    """Tell whether the ends of a part are in memory: then so is what lies between, most likely."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    byte = bytearray(1)
    try:
        for at in (part.offset, part.offset + part.length - 1):
            os.preadv(part.fd, [byte], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that can't tell
        return True
    return True


async def send_slice(send: Send, part: FileSlice) -> None:
    """Send a part of a file; read on a thread where it is big or takes the disk."""
    at, left = part.offset, part.length
    if left <= INLINE_BYTES and in_memory(part):
        await send({"type": "http.response.body", "body": os.pread(part.fd, left, at)})
        return
    while left:
        chunk = await executors.S3_READ.run(os.pread, part.fd, min(left, CHUNK_BYTES), at)
        if not chunk:
            raise OSError(f"the file ended {left} bytes before the slice")
        at, left = at + len(chunk), left - len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
    if not part.length:
        await send({"type": "http.response.body"})
