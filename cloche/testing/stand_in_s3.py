"""A stand-in for the real S3 on loopback: TLS under Amazon's names, by an authority of its own.

    with stand_in(tmp_path) as real, start(home, s3_address=real.address) as platform: …

While it runs, $SSL_CERT_FILE names its authority, so that a platform that is started then trusts
it as it would trust the public ones.
"""

import hashlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cloche.gateway.authority import private_pem, public_pem, self_signed
from cloche.outside.real_s3 import endpoint

NAMES = (
    *("s3.amazonaws.com", "*.s3.amazonaws.com", "*.amazonaws.com"),
    *("*.us-east-1.amazonaws.com", "*.us-west-2.amazonaws.com"),
)
HOME_REGION = "us-east-1"


@dataclass
class Bucket:
    """A bucket: who may read it, where it is, what is in it."""

    region: str = HOME_REGION
    public: bool = True
    objects: dict[str, bytes] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # of each answer


@dataclass(frozen=True)
class SeenRequest:
    """A request that arrived."""

    method: str
    host: str
    target: str
    headers: Mapping[str, str]


@dataclass
class StandInS3:
    """What stands in: its buckets, and the requests that it has seen."""

    address: str
    authority: Path
    buckets: dict[str, Bucket] = field(default_factory=dict)
    seen: list[SeenRequest] = field(default_factory=list)
    # Answers a request by itself when it returns True.
    instead: Callable[[BaseHTTPRequestHandler], bool] | None = None


@contextmanager
def stand_in(folder: Path, names: tuple[str, ...] = NAMES) -> Iterator[StandInS3]:
    """Serve on a free port of loopback until the block ends."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    root = self_signed(key, now)
    (folder / "real-authority.pem").write_bytes(public_pem(root))
    chain = folder / "real-s3.pem"
    leaf = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(leaf.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain.write_bytes(private_pem(leaf) + public_pem(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = TlsServer(("127.0.0.1", 0), Handler)
    server.context = context
    server.real = StandInS3(f"127.0.0.1:{server.server_port}", folder / "real-authority.pem")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(server.real.authority)
    try:
        yield server.real
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before
        server.shutdown()
        server.server_close()


class TlsServer(ThreadingHTTPServer):
    """Ends TLS on the thread of the connection."""

    daemon_threads = True
    context: ssl.SSLContext
    real: StandInS3

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Serve one connection."""
        with self.context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Say nothing: a client that does not trust us, or goes, is a test's own doing."""


class Handler(BaseHTTPRequestHandler):
    """S3's answers to reads."""

    protocol_version = "HTTP/1.1"
    server: TlsServer

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Answer."""
        real, host = self.server.real, self.headers["Host"]
        headers = {name.lower(): value for name, value in self.headers.items()}
        real.seen.append(SeenRequest(self.command, host, self.path, headers))
        if real.instead is not None and real.instead(self):
            return
        place = endpoint(host)
        if place is None:
            return self.fail(400, "InvalidURI")
        url = urlsplit(self.path)
        path = f"/{place.bucket}{url.path}" if place.bucket else url.path
        _, name, *rest = unquote(path).split("/", 2)
        bucket = real.buckets.get(name)
        if bucket is None:
            return self.fail(404, "NoSuchBucket")
        if (place.region or HOME_REGION) != bucket.region:
            return self.fail(301, "PermanentRedirect", {"x-amz-bucket-region": bucket.region})
        if not bucket.public and "authorization" not in headers:
            return self.fail(403, "AccessDenied")
        key = rest[0] if rest else ""
        if not key:
            return self.list(bucket, parse_qs(url.query, keep_blank_values=True))
        content = bucket.objects.get(key)
        if content is None:
            return self.fail(404, "NoSuchKey")
        return self.content(content, bucket.headers)

    do_HEAD = do_GET

    def content(self, content: bytes, more: Mapping[str, str]) -> None:
        """Answer with an object or a range of it."""
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            return self.answer(304, b"", {"ETag": etag})
        status, headers = 200, {"ETag": etag, "Accept-Ranges": "bytes", **more}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            status, content = 206, content[begin : end + 1]
        self.answer(status, content, {"Content-Type": "binary/octet-stream", **headers})

    def list(self, bucket: Bucket, query: Mapping[str, list[str]]) -> None:
        """Answer with a page of ListObjectsV2."""
        prefix = query.get("prefix", [""])[0]
        most = int(query.get("max-keys", ["1000"])[0])
        after = query.get("continuation-token", [""])[0]
        keys = sorted(k for k in bucket.objects if k.startswith(prefix) and k > after)
        page, more = keys[:most], len(keys) > most
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z"
            f"</LastModified><ETag>&quot;{md5(bucket.objects[key])}&quot;</ETag>"
            f"<Size>{len(bucket.objects[key])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>b</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{entries}</ListBucketResult>"
        )
        self.answer(200, text.encode(), {"Content-Type": "application/xml"})

    def fail(self, status: int, code: str, more: Mapping[str, str] | None = None) -> None:
        """Answer with an error as S3 words it."""
        text = f"<Error><Code>{code}</Code><Message>of the real S3</Message></Error>"
        self.answer(status, text.encode(), {"Content-Type": "application/xml", **(more or {})})

    def answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Send."""
        self.send_response(status)
        for name, value in {"x-amz-request-id": "REAL", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def md5(content: bytes) -> str:
    """Return a content's entity tag."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
