"""S3's `aws-chunked` payloads: signed chunk by chunk, or unsigned, with or without trailers.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping

from cloche.core.errors import AwsError
from cloche.gateway.body import RawBody
from cloche.gateway.identify import EMPTY, Signer
from cloche.gateway.limits import TRAILER_BYTES
from cloche.gateway.message import Request
from cloche.gateway.refusals import S3
from cloche.gateway.signature import signing_key

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
LONGEST_LINE = 16 * 1024  # of a chunk's head or a trailer
CHUNK_SIZE = re.compile(r"[0-9A-Fa-f]{1,10}")
LENGTH = re.compile(r"[0-9]{1,18}")
MALFORMED_TRAILER = (
    "The request contained trailing data that was not well-formed or did not conform to our "
    "published schema."
)


class ChunkSigner:
    """Computes the signatures of a request's chunks, each from the one before."""

    def __init__(self, signer: Signer) -> None:
        claim = signer.claim
        self.key = signing_key(
            signer.credential.secret_access_key, claim.date, claim.region, claim.service
        )
        self.stamp, self.scope, self.previous = claim.stamp, claim.scope, claim.signature

    def check(self, kind: str, digests: str, sent: str) -> None:
        """Raise when `sent` is not the next signature of that kind over those digests."""
        lines = f"AWS4-HMAC-SHA256-{kind}\n{self.stamp}\n{self.scope}\n{self.previous}\n{digests}"
        expected = hmac.digest(self.key, lines.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), sent.encode()):
            raise S3.refuse_signature(StringToSign=lines, SignatureProvided=sent)
        self.previous = expected


class ChunkedBody:
    """The payload of an `aws-chunked` request. `length` is the decoded one, as announced."""

    def __init__(self, raw: RawBody, request: Request, payload: str, signer: Signer) -> None:
        if payload not in (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER):
            text = f"Cloche does not support the payload {payload}."
            raise AwsError("NotImplemented", text, 501)
        decoded = request.headers.get("x-amz-decoded-content-length", "")
        if not LENGTH.fullmatch(decoded):
            text = "You must provide the Content-Length HTTP header."
            raise AwsError("MissingContentLength", text, 411)
        self.length: int | None = int(decoded)
        self.trailers: Mapping[str, str] = {}
        self.signer = None if payload == UNSIGNED_TRAILER else ChunkSigner(signer)
        self.expects_trailers = payload != SIGNED
        # The header is signed; of an unsigned trailer it is all that the signature tells.
        self.announced = {
            name.strip().lower() for name in request.headers.get("x-amz-trailer", "").split(",")
        }
        self.pieces = aiter(raw)
        self.buffer = b""
        self.at = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        while True:
            size, sent = chunk_head(await self.line())
            total += size
            digest = hashlib.sha256() if self.signer is not None else None
            left = size
            while left:
                piece = await self.take(left)
                left -= len(piece)
                if digest is not None:
                    digest.update(piece)
                yield piece
            if self.signer is not None and digest is not None:
                self.signer.check("PAYLOAD", f"{EMPTY}\n{digest.hexdigest()}", sent)
            if not size:
                break
            if await self.line():
                raise incomplete()
        await self.read_trailers()
        if total != self.length:
            raise incomplete()

    async def take(self, most: int) -> bytes:
        """Return some bytes, at most that many; IncompleteBody when there are none."""
        if self.at == len(self.buffer) and not await self.fill():
            raise incomplete()
        start, self.at = self.at, min(len(self.buffer), self.at + most)
        return self.buffer[start : self.at]

    async def line(self) -> str:
        """Return the text up to the next line end; IncompleteBody when there is none."""
        while (end := self.buffer.find(b"\r\n", self.at)) < 0:
            if len(self.buffer) - self.at > LONGEST_LINE or not await self.fill():
                raise incomplete()
        text = self.buffer[self.at : end].decode("latin-1")
        self.at = end + 2
        return text

    async def fill(self) -> bool:
        """Read one more piece of the request; False at its end."""
        piece = await anext(self.pieces, None)
        if piece is None:
            return False
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return True

    async def read_trailers(self) -> None:
        """Read what follows the last chunk, and check that it is signed where it must be."""
        trailers: dict[str, str] = {}
        signature, size = None, 0
        while line := await self.last_line():
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            size += len(line)
            if size > TRAILER_BYTES:
                raise AwsError("MalformedTrailerError", MALFORMED_TRAILER)
            if name == "x-amz-trailer-signature":
                signature = value
            elif name in trailers:
                raise AwsError("MalformedTrailerError", MALFORMED_TRAILER)
            else:
                trailers[name] = value
        if self.signer is not None and self.expects_trailers:
            signed = "".join(f"{name}:{value}\n" for name, value in trailers.items())
            digest = hashlib.sha256(signed.encode("latin-1")).hexdigest()
            self.signer.check("TRAILER", digest, signature or "")
        # What no signature covers is not handed on.
        announced = self.announced if self.expects_trailers else ()
        self.trailers = {name: trailers[name] for name in trailers if name in announced}

    async def last_line(self) -> str:
        """Return a trailer; empty at the end, which some clients leave without a line end."""
        if self.at == len(self.buffer) and not await self.fill():
            return ""
        return await self.line()


def chunk_head(line: str) -> tuple[int, str]:
    """Return a chunk's size and its signature where it has one; IncompleteBody if it is none."""
    digits, _, extension = line.partition(";")
    if not CHUNK_SIZE.fullmatch(digits):
        raise incomplete()
    size = int(digits, 16)
    name, _, signature = extension.partition("=")
    return size, signature if name.strip() == "chunk-signature" else ""


def incomplete() -> AwsError:
    """Return S3's refusal of a body that is not what its headers announce."""
    text = "You did not provide the number of bytes specified by the Content-Length HTTP header."
    return AwsError("IncompleteBody", text)
