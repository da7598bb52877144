"""Taking a payload in: into a blob, checked against what the client says of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.operation import Body, FormFile, Http
from cloche.services.s3.blobs import BlobWriter
from cloche.services.s3.checksums import DEFAULT, SUMS, encode, valid
from cloche.services.s3.errors import bad_digest, entity_too_large, invalid_request
from cloche.services.s3.storage import S3

BATCH = 1 << 20  # bytes that are collected before a thread writes them
LARGEST = 5 << 30  # bytes of one PutObject, UploadPart or CopyObject
TRAILER = "x-amz-checksum-"


@dataclass(frozen=True, slots=True)
class ChecksumClaim:
    """What a request says of its payload: the algorithm to use, and values to compare with.

    `value` is None where the value comes in the trailer (`trailer`), or not at all.
    """

    algorithm: str
    value: str | None
    trailer: bool
    md5: bytes | None


@dataclass(frozen=True, slots=True)
class Ingested:
    """A payload that is kept: a durable blob that no row names yet."""

    blob: str
    size: int  # bytes
    md5: str  # hexadecimal
    checksums: Mapping[str, str]


def claim(
    http: Http,
    given: Mapping[str, str],
    algorithm: str | None,
    content_md5: str | None,
    default: str = DEFAULT,
) -> ChecksumClaim:
    """Return what the request says of its payload; AwsError where it contradicts itself.

    `given` are the checksums in headers, `algorithm` is `x-amz-sdk-checksum-algorithm`.
    """
    if len(given) > 1:
        raise invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    for name, value in given.items():
        if not valid(name, value):
            header = TRAILER + name.lower()
            raise invalid_request(f"Value for {header} header is invalid.")
    announced = http.headers.get("x-amz-trailer", "").strip().lower()
    in_trailer = announced.startswith(TRAILER)
    named = next(iter(given), announced[len(TRAILER) :].upper() if in_trailer else None)
    if named is not None and named not in SUMS:
        raise invalid_request("The value specified in the x-amz-trailer header is not supported")
    if algorithm is not None:
        if named is None:
            raise invalid_request(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* "
                "or x-amz-trailer headers were found."
            )
        if algorithm != named:
            raise invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return ChecksumClaim(
        algorithm=named or default,
        value=next(iter(given.values()), None),
        trailer=in_trailer,
        md5=decoded_md5(content_md5),
    )


def decoded_md5(content_md5: str | None) -> bytes | None:
    """Return the digest of a Content-MD5 header; AwsError InvalidDigest."""
    if content_md5 is None:
        return None
    try:
        digest = base64.b64decode(content_md5, validate=True)
    except ValueError:  # not ASCII, or not base64
        digest = b""
    if len(digest) != 16:
        text = "The Content-MD5 you specified was invalid."
        raise AwsError("InvalidDigest", text, 400, fields={"Content-MD5": content_md5})
    return digest


class Digests:
    """The MD5, which is the entity tag, and the checksums of what is taken in."""

    def __init__(self, *algorithms: str) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sums = {name: SUMS[name]() for name in algorithms}

    def update(self, piece: bytes) -> None:
        """Take in more."""
        self.md5.update(piece)
        for one in self.sums.values():
            one.update(piece)

    def checksums(self) -> dict[str, str]:
        """Return the checksums by algorithm, in base64."""
        return {name: encode(one.digest()) for name, one in self.sums.items()}


class Intake:
    """Hashes and writes pieces. Blocking; used by one thread at a time."""

    def __init__(self, writer: BlobWriter, claim: ChecksumClaim, extra: Sequence[str] = ()) -> None:
        self.writer, self.claim = writer, claim
        self.digests = Digests(claim.algorithm, *extra)

    def take(self, pieces: Iterable[bytes]) -> None:
        """Hash and write."""
        for piece in pieces:
            self.digests.update(piece)
        self.writer.write(pieces)

    def finish(
        self, pieces: Iterable[bytes], length: int | None, trailers: Mapping[str, str]
    ) -> Ingested:
        """Take the last pieces, compare with the claim, make the blob durable."""
        self.take(pieces)
        if length is not None and self.writer.size != length:
            text = (
                "You did not provide the number of bytes specified by the Content-Length "
                "HTTP header"
            )
            raise AwsError("IncompleteBody", text, 400)
        md5, claim = self.digests.md5.digest(), self.claim
        checksums = self.digests.checksums()
        value = trailers.get(TRAILER + claim.algorithm.lower()) if claim.trailer else claim.value
        if claim.trailer and value is None:
            raise AwsError(
                "MalformedTrailerError",
                "The request contained trailing data that was not well-formed or did not conform "
                "to our published schema.",
                400,
            )
        if value is not None and value != checksums[claim.algorithm]:
            raise bad_digest(claim.algorithm)
        if claim.md5 is not None and claim.md5 != md5:
            text = "The Content-MD5 you specified did not match what we received."
            fields = {"ExpectedDigest": encode(claim.md5), "CalculatedDigest": encode(md5)}
            raise AwsError("BadDigest", text, 400, fields=fields)
        self.writer.keep()
        return Ingested(self.writer.blob, self.writer.size, md5.hex(), checksums)


async def ingest(s3: S3, body: Body, claim: ChecksumClaim, extra: Sequence[str] = ()) -> Ingested:
    """Keep a payload, piece by piece as it arrives; never more than two batches in memory.

    `extra` are algorithms to use besides the claim's.

    While a thread hashes and writes one batch the next is received. AwsError: MissingContentLength,
    EntityTooLarge, IncompleteBody, BadDigest, StorageFull, and what reading the body raises.
    """
    length = body.length
    if length is None and not isinstance(body, FormFile):
        text = "You must provide the Content-Length HTTP header."
        raise AwsError("MissingContentLength", text, 411)
    if length is not None and length > LARGEST:
        raise entity_too_large(length, LARGEST)
    intake = Intake(s3.blobs.create(), claim, extra)
    pending: asyncio.Future[Any] | None = None  # what a thread is doing
    pieces, waiting, size = list[bytes](), 0, 0
    try:
        async for piece in body:
            pieces.append(piece)
            waiting += len(piece)
            size += len(piece)
            if size > LARGEST:  # of a body that did not say how long it is
                raise entity_too_large(size, LARGEST)
            if waiting >= BATCH:
                if pending is not None:
                    await pending
                pending = asyncio.ensure_future(executors.S3_WRITE.run(intake.take, pieces))
                pieces, waiting = [], 0
        if pending is not None:
            await pending
        finish = executors.S3_WRITE.run(intake.finish, pieces, length, body.trailers)
        pending = asyncio.ensure_future(finish)
        ingested: Ingested = await asyncio.shield(pending)
        return ingested
    except BaseException:
        if pending is not None:
            await asyncio.wait([pending])
        intake.writer.discard()
        raise
