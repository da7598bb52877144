"""Reads of buckets that Cloche lacks, passed on to the real S3.

Three kinds: what nobody signed; what a key of this platform signed, of buckets that everybody may
read (they leave without any signature); and, where `cloche up --pass-foreign-keys` says so, what
another account's key signed, as it was signed. GET and HEAD only. Nothing else leaves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.core.ids import SESSION_TOKEN_MARK
from cloche.gateway.body import Disconnected, RawBody
from cloche.gateway.browser import check_place
from cloche.gateway.egress import own_addresses, unwrapped
from cloche.gateway.message import Request, Response
from cloche.gateway.routing import host_of
from cloche.gateway.signature import SignatureClaim
from cloche.outside import OpenAnswer, OutsideError, PublicBuckets, RealS3
from cloche.outside.buckets import NAME
from cloche.outside.real_s3 import endpoint

logger = logging.getLogger("cloche.gateway.passing")
METHODS = ("GET", "HEAD")
# Operations that, signed by a key of this platform, may be asked of a public bucket.
READS = (
    *("GetObject", "HeadObject", "ListObjects", "ListObjectsV2", "HeadBucket"),
    "GetBucketLocation",
)
COPIES = ("CopyObject", "UploadPartCopy")
NO_COPY = (
    ". Cloche does not have {bucket}, and does not copy from the real S3: download the object, "
    "then upload it."
)
# What leaves of a request without a signature. Never a proof, nor whatever else a client sends.
HEADERS = (
    *("range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
    *("x-amz-checksum-mode", "x-amz-expected-bucket-owner", "x-amz-optional-object-attributes"),
)
QUERY = (
    *("list-type", "prefix", "delimiter", "marker", "max-keys", "continuation-token"),
    *("start-after", "encoding-type", "fetch-owner", "location", "partNumber", "versionId"),
    *("response-cache-control", "response-content-disposition", "response-content-encoding"),
    *("response-content-language", "response-content-type", "response-expires"),
)
# In a query these are parts of a proof, whoever made it.
PROOFS = re.compile(
    r"x-amz-(algorithm|credential|date|expires|security-token|signature|signedheaders)"
    r"|awsaccesskeyid|signature|expires",
    re.IGNORECASE,
)
# Which headers of S3's answers are ours to repeat, besides x-amz-…; no CORS: what a page may read
# at this address is not S3's to say.
ANSWERED = (
    *("accept-ranges", "cache-control", "content-disposition", "content-encoding"),
    *("content-language", "content-length", "content-range", "content-type", "etag", "expires"),
    "last-modified",
)
# Of a connection, not of a request: they mean something to the next hop alone.
HOP_BY_HOP = (
    *("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
)
AT_ONCE, EACH_GANG = executors.OUTSIDE.threads, 4  # none waits for another's
IDLE_S = 60.0  # that a client may take nothing of what has come
PIECE = 256 * 1024
NOTED, NOTE_AGAIN_S = 1000, 3600.0
TOO_MANY = "Please reduce your request rate."
FOREIGN = (
    " Cloche did not issue it. `cloche up --pass-foreign-keys` passes reads on to the real S3 that "
    "keys of other accounts signed."
)
NOT_FOR_S3 = (
    " Cloche did not issue it, and its signature is for the host {host}: what is signed for a "
    "name of S3 itself (without AWS_ENDPOINT_URL) would be passed on."
)


@dataclass
class Passing:
    """Passes reads on; `has_bucket` tells what is here, `names` are this server's own."""

    real: RealS3
    buckets: PublicBuckets
    has_bucket: Callable[[str], bool]
    names: frozenset[str]
    foreign_keys: bool = False
    under_way: Counter[str] = field(default_factory=Counter)  # requests, by the gang that asked
    noted: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)

    def close(self) -> None:
        """End what is under way."""
        self.real.close()

    async def unsigned(
        self, request: Request, path: str, raw: RawBody, gang: str | None
    ) -> Response | None:
        """Return the real S3's answer to a request that nobody signed; None: it is not for it."""
        bucket = self.lacking(request, path)
        proofs = any(PROOFS.fullmatch(name) for name, _ in request.query)
        if bucket is None or proofs or ours_among(request) or not self.from_here(request, gang):
            return None
        place = endpoint(host_of(request))
        region = place.region if place is not None else None
        self.note(bucket, gang, "unsigned, as it came")

        def ask() -> OpenAnswer:
            headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
            return self.real.get(request.method, path, request.query_string, headers, region)

        return await self.passed(ask, bucket, raw, gang)

    async def signed(
        self, request: Request, path: str, raw: RawBody, gang: str | None
    ) -> Response | None:
        """Return the real S3's answer to a read that a key of this platform signed, and proved;
        None: it is not for it. The signature stays here.
        """
        bucket = self.lacking(request, path)
        if bucket is None or not self.offers(request, path):
            return None
        self.note(bucket, gang, "without the signature")
        query = "&".join(
            f"{quote(name, safe='-')}={quote(value, safe='-_.~')}"
            for name, value in request.query
            if name in QUERY
        )

        def ask() -> OpenAnswer:
            headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
            return self.real.get(request.method, path, query, headers)

        return await self.passed(ask, bucket, raw, gang)

    def offers(self, request: Request, path: str) -> bool:
        """Tell whether a read is of a public bucket that is not here."""
        bucket = self.lacking(request, path)
        return bucket is not None and self.buckets.has(bucket)

    def explained(self, name: str, error: AwsError) -> AwsError:
        """Return the refusal of a copy, with what to do where its source is a public bucket."""
        source = str(error.fields.get("BucketName", ""))
        if name not in COPIES or error.code != "NoSuchBucket" or not self.buckets.has(source):
            return error
        text = error.message + NO_COPY.format(bucket=source)
        return AwsError(error.code, text, error.status, fields=error.fields)

    async def foreign(
        self, request: Request, path: str, raw: RawBody, gang: str | None, claim: SignatureClaim
    ) -> Response | None:
        """Return the real S3's answer to a read that another account's key signed; None: it is no
        read of a bucket that is not here. AwsError InvalidAccessKeyId says what would pass it on.
        """
        bucket = self.lacking(request, path)
        if bucket is None:
            return None
        host = host_of(request)
        refusal = None
        if not self.foreign_keys:
            refusal = FOREIGN
        elif endpoint(host) is None or ":" in request.headers.get("host", ""):
            refusal = NOT_FOR_S3.format(host=request.headers.get("host", "") or "none")
        elif ours_among(request) or not self.from_here(request, gang):
            refusal = ""
        if refusal is not None:
            text = "The AWS Access Key Id you provided does not exist in our records."
            fields = {"AWSAccessKeyId": claim.access_key_id}
            raise AwsError("InvalidAccessKeyId", text + refusal, 403, fields=fields)
        self.note(bucket, gang, "as a foreign key signed it")
        target = request.path + (f"?{request.query_string}" if request.query_string else "")
        headers = as_signed(request, claim)
        return await self.passed(
            lambda: self.real.send(request.method, host, target, headers), bucket, raw, gang
        )

    def lacking(self, request: Request, path: str) -> str | None:
        """Return the bucket that a read is of, if Cloche lacks it; None: no such read."""
        if request.method not in METHODS:
            return None
        bucket = path.split("/", 2)[1]
        if NAME.fullmatch(bucket) is None or self.has_bucket(bucket):
            return None
        return bucket

    def from_here(self, request: Request, gang: str | None) -> bool:
        """Tell whether a request that proves nothing comes from this machine, and means S3.

        Neither another machine nor a page in a browser is to read the outside through this one:
        there are buckets that let its address in.
        """
        if endpoint(host_of(request)) is None:
            if host_of(request).endswith(".amazonaws.com"):
                return False  # another service's name
            if "sec-fetch-mode" in request.headers:
                return False  # a browser, which asks for favicon.ico too
            try:
                check_place(request, self.names)
            except AwsError:
                return False
        if gang is not None:
            return True
        try:
            caller = unwrapped(ipaddress.ip_address((request.client or "").split("%")[0]))
        except ValueError:
            return False
        return caller.is_loopback or caller in own_addresses()

    async def passed(
        self, ask: Callable[[], OpenAnswer], bucket: str, raw: RawBody, gang: str | None
    ) -> Response:
        """Return the answer, its body as it comes; AwsError where there is none."""
        who = gang or ""
        if self.under_way.total() >= AT_ONCE or (gang and self.under_way[who] >= EACH_GANG):
            raise AwsError("SlowDown", TOO_MANY, 503)
        self.under_way[who] += 1
        try:
            answer = await self.asked(ask)
        except OutsideError as error:
            self.left(who)
            text = f"Cloche has no bucket {bucket}, and the real S3 can't be read: {error}"
            raise AwsError("ServiceUnavailable", text, 503) from error
        except BaseException:
            self.left(who)
            raise
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name in ANSWERED or name.startswith("x-amz-")
        }
        headers["via"] = f"1.1 cloche ({answer.host})"
        return Response(answer.status, headers, Passed(self, answer, raw, who))

    async def asked(self, ask: Callable[[], OpenAnswer]) -> OpenAnswer:
        """Return the answer; one that nobody waits for any more is let go."""
        work = asyncio.ensure_future(executors.OUTSIDE.run(ask))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(let_go)
            raise

    def left(self, who: str) -> None:
        """Note that a request has ended."""
        self.under_way[who] -= 1
        if not self.under_way[who]:
            del self.under_way[who]

    def note(self, bucket: str, gang: str | None, how: str) -> None:
        """Say in the server's log what leaves, a bucket once an hour."""
        now, key = time.monotonic(), (bucket, how)
        last = self.noted.get(key)
        if last is not None and now - last < NOTE_AGAIN_S:
            return
        self.noted[key] = now
        self.noted.move_to_end(key)
        while len(self.noted) > NOTED:
            self.noted.popitem(last=False)
        whose = "a client" if gang is None else f"the job or endpoint {gang}"
        logger.info("reads of s3://%s by %s go to the real S3, %s", bucket, whose, how)


class Passed(AsyncGenerator[bytes, None]):
    """An answer's body as it comes, until its end or the client's; let go in any case.

    No generator function: what such a one holds is not let go when it was never begun.
    """

    def __init__(self, passing: Passing, answer: OpenAnswer, raw: RawBody, who: str) -> None:
        self.passing, self.answer, self.who, self.raw = passing, answer, who, raw
        self.gone: asyncio.Task[None] | None = None
        self.idle: asyncio.TimerHandle | None = None
        self.over = self.given_up = False

    async def asend(self, _value: None) -> bytes:
        """Return the next piece; Disconnected when the client has gone, or S3 broke off."""
        if self.idle is not None:
            self.idle.cancel()
        if self.gone is None:  # not before: until now the request's own body may be read
            self.gone = asyncio.create_task(departure(self.raw))
        if self.given_up or self.gone.done():
            raise Disconnected
        if self.over:
            raise StopAsyncIteration
        try:
            piece = await executors.OUTSIDE.run(self.answer.read, PIECE)
        except OutsideError as error:
            logger.warning("an answer of the real S3 ended early: %s", error)
            raise Disconnected from error  # so that the client does not take it for whole
        if not piece:
            self.finish()
            raise StopAsyncIteration
        self.idle = asyncio.get_running_loop().call_later(IDLE_S, self.give_up)
        return piece

    async def athrow(self, *error: Any) -> bytes:
        """End here."""
        self.finish()
        raise GeneratorExit

    def give_up(self) -> None:
        """Let go of it although the client has not taken it all: it stopped reading."""
        self.given_up = True
        self.finish()

    def finish(self) -> None:
        """Let the connection and the place go."""
        if not self.over:
            self.over = True
            for waiting in (self.gone, self.idle):
                if waiting is not None:
                    waiting.cancel()
            self.answer.close()
            self.passing.left(self.who)


def let_go(work: asyncio.Future[OpenAnswer]) -> None:
    """Close an answer that nobody waits for."""
    if not work.cancelled() and work.exception() is None:
        work.result().close()


async def departure(raw: RawBody) -> None:
    """Return when the client has gone."""
    while (await raw.receive())["type"] != "http.disconnect":
        pass


def as_signed(request: Request, claim: SignatureClaim) -> Mapping[str, str]:
    """Return the headers that another account's key signed, and its proof."""
    wanted = {*HEADERS, *claim.signed_headers, "authorization"}
    return {
        name: value
        for name, value in request.headers.items()
        if (name in wanted or name.startswith("x-amz-")) and name not in HOP_BY_HOP
    }


def ours_among(request: Request) -> bool:
    """Tell whether a session token of this platform is anywhere in a request."""
    said = (request.query_string, *request.headers.values())
    return any(SESSION_TOKEN_MARK in text for text in said)
