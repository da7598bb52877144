"""multipart/form-data as it arrives: fields first, then a file, whose length nobody said.

https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from cloche.core.errors import AwsError
from cloche.gateway.body import RawBody
from cloche.gateway.limits import FORM_HEAD_BYTES, FORM_PREFACE_BYTES

KIND = re.compile(r"\s*multipart/form-data\s*;", re.IGNORECASE)
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))\s*(?:;|$)', re.IGNORECASE)
DISPOSITION = re.compile(r"\s*form-data\s*(?:;|$)", re.IGNORECASE)
PARAMETER = re.compile(
    r';\s*(filename\*|filename|name)=(?:"((?:[^"\\]|\\.)*)"|([^\s";]*))', re.IGNORECASE
)
ESCAPED = re.compile(r'\\(["\\])')
EXTENDED = "utf-8''"


@dataclass(frozen=True, slots=True)
class FormPart:
    """What a part of the form says of itself."""

    name: str
    filename: str | None


class FormReader:
    """Reads a form's parts in order. All that comes before the file is bounded."""

    def __init__(self, raw: RawBody, boundary: str) -> None:
        self.pieces = aiter(raw)
        self.delimiter = b"\r\n--" + boundary.encode("latin-1")
        # The first delimiter has no line before it.
        self.buffer = b"\r\n"
        self.preface = 0  # bytes taken so far, save the file's

    async def more(self) -> None:
        """Receive what comes next; AwsError when nothing does."""
        try:
            self.buffer += await anext(self.pieces)
        except StopAsyncIteration:
            raise malformed() from None

    async def take(self, size: int) -> bytes:
        """Return the next bytes."""
        while len(self.buffer) < size:
            await self.more()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def take_until(self, end: bytes, most: int, searched: int = 0) -> bytes:
        """Return the bytes before `end`, which is dropped; AwsError where that is too far."""
        while (at := self.buffer.find(end, searched)) < 0:
            searched = max(len(self.buffer) - len(end) + 1, 0)
            if searched > most:
                raise too_long()
            await self.more()
        if at > most:
            raise too_long()
        taken, self.buffer = self.buffer[:at], self.buffer[at + len(end) :]
        self.preface += at + len(end)
        return taken

    def left(self) -> int:
        """Return how many bytes may still come before the file."""
        return FORM_PREFACE_BYTES - self.preface

    async def begin(self) -> None:
        """Skip what stands before the first part."""
        await self.take_until(self.delimiter, self.left())

    async def next_part(self) -> FormPart | None:
        """Return the part behind the delimiter that was read; None when it was the last."""
        end = await self.take(2)
        if end == b"--":
            return None
        if end != b"\r\n":
            raise malformed()
        self.buffer = end + self.buffer  # a part without headers has its empty line at once
        head = await self.take_until(b"\r\n\r\n", min(self.left(), FORM_HEAD_BYTES))
        return part_of(head)

    async def value(self) -> bytes:
        """Return a field's value."""
        return await self.take_until(self.delimiter, self.left())

    async def file(self) -> AsyncIterator[bytes]:
        """Yield a file's content; AwsError when the form ends within."""
        kept = len(self.delimiter) - 1
        while (at := self.buffer.find(self.delimiter)) < 0:
            if len(self.buffer) > kept:
                yield self.buffer[:-kept]
                self.buffer = self.buffer[-kept:]
            await self.more()
        content, self.buffer = self.buffer[:at], self.buffer[at + len(self.delimiter) :]
        if content:
            yield content
        if await self.take(2) not in (b"--", b"\r\n"):
            raise malformed()


def boundary_of(headers: Mapping[str, str]) -> str | None:
    """Return the boundary of a form's parts; None when the body is no such form."""
    kind = headers.get("content-type", "")
    if not KIND.match(kind):
        return None
    found = BOUNDARY.search(kind)
    if found is None:
        raise malformed()
    return found[1] or found[2]


def part_of(head: bytes) -> FormPart:
    """Return what a part's headers say; AwsError when it has no name."""
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition" and DISPOSITION.match(value):
            given = {
                one[1].lower(): ESCAPED.sub(r"\1", one[2]) if one[2] is not None else one[3]
                for one in PARAMETER.finditer(value)
            }
            if "name" in given:
                return FormPart(given["name"], filename_of(given))
    raise malformed()


def filename_of(given: Mapping[str, str]) -> str | None:
    """Return a file's name, without the folders that some browsers put before it."""
    name = given.get("filename")
    extended = given.get("filename*", "")
    if extended.lower().startswith(EXTENDED):
        name = unquote(extended[len(EXTENDED) :])
    return re.split(r"[/\\]", name)[-1] if name is not None else None


def malformed() -> AwsError:
    """Return S3's refusal of a body that is no form."""
    text = "The body of your POST request is not well-formed multipart/form-data."
    return AwsError("MalformedPOSTRequest", text, 400)


def too_long() -> AwsError:
    """Return S3's refusal of too much before the file."""
    text = "Your POST request fields preceding the upload file were too large."
    return AwsError("MaxPostPreDataLengthExceededError", text, 400)
