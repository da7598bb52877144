"""A transport that sends what is written in one turn of the event loop together.

uvicorn writes a response's head, then its body: two packets. A server killed in between would
leave the client with a head alone, which botocore takes for an empty answer; and each packet is a
call of the system.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

AT_ONCE_BYTES = 64 * 1024  # more is not held back: it has to be sent in pieces anyway


class Corked:
    """Stands for an asyncio transport; what it does not know, the transport does."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport, self.loop = transport, loop
        self.held: list[bytes] = []
        self.size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Send with whatever else is written in this turn of the loop."""
        if not self.held:
            self.loop.call_soon(self.flush)
        self.held.append(data)
        self.size += len(data)
        if self.size > AT_ONCE_BYTES:
            self.flush()

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces."""
        self.write(b"".join(pieces))

    def flush(self) -> None:
        """Send what is held."""
        if not self.held:
            return
        held, size, self.held, self.size = self.held, self.size, [], 0
        if self.transport.is_closing():
            return
        if size > AT_ONCE_BYTES:  # not copied for the sake of one packet
            self.transport.writelines(held)
        else:
            self.transport.write(b"".join(held))

    def close(self) -> None:
        """Close once what was written is sent."""
        self.flush()
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.held.clear()
        self.transport.abort()
