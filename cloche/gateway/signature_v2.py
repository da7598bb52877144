"""SigV2 in the query: what its signature covers, and what must not stand beside it.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import base64
import hmac
from functools import cache
from urllib.parse import parse_qsl

from cloche.core.errors import AwsError
from cloche.gateway.message import Request
from cloche.gateway.refusals import S3
from cloche.gateway.shapes import api
from cloche.gateway.signature import UNSUPPORTED, SignatureClaim

# The query parameters that a SigV2 signature covers, beside `x-amz-…`.
SIGNED = frozenset(
    (
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory"),
        *("lifecycle", "location", "logging", "metrics", "notification", "object-lock"),
        *("partNumber", "policy", "replication", "requestPayment", "restore", "select"),
        *("select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads"),
        *("versionId", "versioning", "versions", "website", "response-cache-control"),
        *("response-content-disposition", "response-content-encoding"),
        *("response-content-language", "response-content-type", "response-expires"),
    )
)
# Those that it leaves open, here as on AWS: they only choose what of a listing is shown.
OPEN = frozenset(
    (
        *("prefix", "delimiter", "marker", "max-keys", "encoding-type", "list-type", "x-id"),
        *("continuation-token", "start-after", "fetch-owner", "key-marker", "version-id-marker"),
        *("upload-id-marker", "max-uploads", "max-parts", "part-number-marker"),
    )
)


def check_v2(claim: SignatureClaim, request: Request, path: str, secret: str) -> None:
    """Raise when a SigV2 signature is not that of `secret`; `path` begins with the bucket."""
    refuse_uncovered(request)
    lines = [
        request.method,
        one_value(request, "content-md5"),
        one_value(request, "content-type"),
        claim.stamp,
        *amz_lines(request),
        resource(request, path),
    ]
    to_sign = "\n".join(lines)
    expected = base64.b64encode(hmac.digest(secret.encode(), to_sign.encode(), "sha1"))
    if not hmac.compare_digest(expected, claim.signature.encode()):
        raise S3.refuse_signature(
            AWSAccessKeyId=claim.access_key_id,
            StringToSign=to_sign,
            SignatureProvided=claim.signature,
            StringToSignBytes=to_sign.encode().hex(" "),
        )


def refuse_uncovered(request: Request) -> None:
    """Raise when a parameter that means something is none that SigV2 covers: it may be added."""
    for name, _ in request.query:
        if name in meaningful() and name not in SIGNED and name not in OPEN:
            raise AwsError("InvalidRequest", UNSUPPORTED)


@cache
def meaningful() -> frozenset[str]:
    """Return the query parameters that S3's operations know."""
    model = api("s3")
    found: set[str] = set()
    for name in model.operations:
        action = model.action(name)
        assert action is not None
        found |= {k for k, _ in parse_qsl(action.uri.partition("?")[2], keep_blank_values=True)}
        if action.input is not None:
            fields = action.input.fields
            found |= {f.wire for f in fields if f.shape.location == "querystring"}
    return frozenset(found)


def one_value(request: Request, name: str) -> str:
    """Return a header's value, which signers also put into the query; both must be the same."""
    values = {value for key, value in request.query if key.lower() == name}
    if name in request.headers:
        values.add(request.headers[name])
    if len(values) > 1:
        raise S3.refuse_signature()
    return values.pop() if values else ""


def amz_lines(request: Request) -> list[str]:
    """Return the `x-amz-…` headers and parameters; what came several times is signed as such."""
    found: dict[str, list[str]] = {}
    for name, value in (*request.headers.items(), *request.query):
        lowered = name.lower()
        if lowered.startswith("x-amz-"):
            found.setdefault(lowered, []).append(value.strip())
    return [f"{name}:{','.join(found[name])}" for name in sorted(found)]


def resource(request: Request, path: str) -> str:
    """Return the path and the parameters that choose what is done with it."""
    # Of a bucket alone S3 signs `/bucket/`, however it was written.
    where = path if "/" in path[1:] or path == "/" else f"{path}/"
    signed = sorted(pair for pair in request.query if pair[0] in SIGNED)
    if signed:
        where += "?" + "&".join(f"{k}={v}" if v else k for k, v in signed)
    return where
