"""Signatures: what a request says of its signer, and whether its signature is right.

SigV4 in the Authorization header and in the query, SigV2 in the query (which boto3 still makes
for S3 in us-east-1).
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from posixpath import normpath
from typing import Literal
from urllib.parse import quote, unquote

from cloche.core.errors import AwsError
from cloche.gateway.families import S3, Family
from cloche.gateway.message import Request

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW = timedelta(minutes=15)
LONGEST_PRESIGN_S = 604800
DATE = "%Y%m%dT%H%M%SZ"
STAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
REGION = re.compile(r"[a-z][a-z0-9-]{1,40}")
SCOPE = re.compile(r"Credential=[^/,]*/[^/,]*/[^/,]*/([^/,]*)/")
UNRESERVED = "-_.~"
# The query parameters that a SigV2 signature covers.
SIGNED_V2 = frozenset(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says of its signer."""

    kind: Literal["header", "presigned", "v2"]
    access_key_id: str
    signature: str
    token: str | None
    stamp: str  # X-Amz-Date as sent
    moment: datetime
    expires_s: int | None = None  # of a presigned request
    date: str = ""  # the credential scope
    region: str = "us-east-1"
    service: str = "s3"
    signed_headers: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def service_claimed(request: Request) -> str | None:
    """Return the service that a request is signed for, read leniently; None when unsigned."""
    header = authorization(request)
    found = SCOPE.search(header)
    if found is not None:
        return found.group(1)
    names = dict(request.query)
    if "X-Amz-Credential" in names:
        parts = names["X-Amz-Credential"].split("/")
        return parts[-2] if len(parts) > 3 else None
    if ("Signature" in names and "AWSAccessKeyId" in names) or header.startswith("AWS "):
        return "s3"
    return None


def authorization(request: Request) -> str:
    """Return the Authorization header."""
    return request.headers.get("authorization", "")


def read_claim(request: Request, family: Family) -> Claim | None:
    """Return who claims to have signed; None when nobody does, AwsError when it is malformed."""
    header = authorization(request)
    query = dict(request.query) if request.query else {}
    signed = "X-Amz-Signature" in query or "X-Amz-Algorithm" in query
    v2 = "Signature" in query and "AWSAccessKeyId" in query
    if header and (signed or v2) and family is S3:
        text = (
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature "
            "query string parameter or the Authorization header should be specified"
        )
        raise AwsError("InvalidArgument", text)
    if header:
        return read_header(request, header, family)
    if signed:
        return read_presigned(query, family)
    if v2 and family is S3:
        return read_v2(query)
    return None


def read_header(request: Request, header: str, family: Family) -> Claim:
    """Return the claim of an Authorization header."""
    method, _, rest = header.partition(" ")
    if method != ALGORITHM:
        if family is S3:
            text = (
                "The authorization mechanism you have provided is not supported. Please use "
                "AWS4-HMAC-SHA256."
            )
            raise AwsError("InvalidRequest", text)
        raise family.refuse_incomplete(
            f"Authorization header requires '{ALGORITHM}'. Authorization={header}"
        )
    parts = dict(p.strip().partition("=")[::2] for p in rest.split(","))
    wanted = ("Credential", "Signature", "SignedHeaders")
    missing = [f"Authorization header requires '{n}' parameter." for n in wanted if n not in parts]
    stamp = request.headers.get("x-amz-date") or http_date(request)
    if not stamp:
        missing.append(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
    if missing:
        raise family.refuse_incomplete(malformed(family, " ".join(missing), header))
    assert stamp is not None
    return claim_of(
        "header",
        family,
        credential=parts["Credential"],
        signature=parts["Signature"],
        signed_headers=parts["SignedHeaders"],
        stamp=stamp,
        token=request.headers.get("x-amz-security-token"),
        expires_s=None,
    )


def malformed(family: Family, reason: str, header: str) -> str:
    """Return the text about an Authorization header, as S3 or as the others put it."""
    if family is S3:
        return f"The authorization header is malformed; {reason}"
    return f"{reason} Authorization={header}"


def http_date(request: Request) -> str | None:
    """Return the Date header in the form of X-Amz-Date."""
    try:
        return parsedate_to_datetime(request.headers["date"]).astimezone(UTC).strftime(DATE)
    except (KeyError, ValueError):
        return None


def read_presigned(query: dict[str, str], family: Family) -> Claim:
    """Return the claim of a presigned URL."""
    wanted = ("Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires")
    names = [f"X-Amz-{name}" for name in wanted]
    if any(name not in query for name in names) and (family is S3 or "X-Amz-Date" not in query):
        raise refuse_query(
            family,
            "Query-string authentication version 4 requires the X-Amz-Algorithm, "
            "X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and "
            "X-Amz-Expires parameters.",
        )
    expires = query.get("X-Amz-Expires", "900")
    if not re.fullmatch(r"-?\d{1,18}", expires):
        raise refuse_query(family, "X-Amz-Expires should be a number")
    if int(expires) < 0:
        raise refuse_query(family, "X-Amz-Expires must be non-negative")
    if int(expires) > LONGEST_PRESIGN_S:
        raise refuse_query(
            family,
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            "X-Amz-Expires must be less than 604800 seconds",
        )
    return claim_of(
        "presigned",
        family,
        credential=query.get("X-Amz-Credential", ""),
        signature=query.get("X-Amz-Signature", ""),
        signed_headers=query.get("X-Amz-SignedHeaders", ""),
        stamp=query["X-Amz-Date"],
        token=query.get("X-Amz-Security-Token"),
        expires_s=int(expires),
    )


def refuse_query(family: Family, text: str) -> AwsError:
    """Return the refusal of a presigned URL that is not well-formed."""
    if family is S3:
        return AwsError("AuthorizationQueryParametersError", text)
    return family.refuse_incomplete(text)


def claim_of(
    kind: Literal["header", "presigned"],
    family: Family,
    *,
    credential: str,
    signature: str,
    signed_headers: str,
    stamp: str,
    token: str | None,
    expires_s: int | None,
) -> Claim:
    """Return a SigV4 claim from its parts as sent."""
    scope = credential.rsplit("/", 4)
    if len(scope) != 5 or scope[4] != "aws4_request":
        text = (
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            f"keyid/date/region/service/term, got '{credential}'"
        )
        if family is S3:
            where = "the Credential is mal-formed; expecting "
            sample = '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
            if kind == "header":
                text = f"The authorization header is malformed; {where}{sample}"
            else:
                text = f"Error parsing the X-Amz-Credential parameter; {where}{sample}"
                raise refuse_query(family, text)
        raise family.refuse_incomplete(text)
    try:
        moment = read_stamp(stamp)
    except ValueError as error:
        if family is S3:
            text = "AWS authentication requires a valid Date or x-amz-date header"
            raise AwsError("AccessDenied", text, 403) from error
        raise family.refuse_incomplete(
            f"Date must be in ISO-8601 'basic format'. Got '{stamp}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601"
        ) from error
    return Claim(
        kind=kind,
        access_key_id=scope[0],
        signature=signature,
        token=token,
        stamp=stamp,
        moment=moment,
        expires_s=expires_s,
        date=scope[1],
        region=scope[2],
        service=scope[3],
        signed_headers=tuple(signed_headers.split(";")),
    )


def read_stamp(stamp: str) -> datetime:
    """Return the moment of an X-Amz-Date (a tenth of strptime's time); ValueError if none."""
    if not STAMP.fullmatch(stamp):
        raise ValueError(stamp)
    return datetime(
        int(stamp[:4]),
        int(stamp[4:6]),
        int(stamp[6:8]),
        int(stamp[9:11]),
        int(stamp[11:13]),
        int(stamp[13:15]),
        tzinfo=UTC,
    )


def read_v2(query: dict[str, str]) -> Claim:
    """Return the claim of a SigV2 presigned URL; `moment` is when it expires."""
    expires = query.get("Expires", "")
    if not re.fullmatch(r"\d{1,11}", expires):
        text = (
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId "
            "parameters"
        )
        raise AwsError("AccessDenied", text, 403)
    return Claim(
        kind="v2",
        access_key_id=query["AWSAccessKeyId"],
        signature=query["Signature"],
        token=query.get("x-amz-security-token"),
        stamp=expires,
        moment=datetime.fromtimestamp(int(expires), UTC),
        expires_s=0,
    )


# ---------------------------------------------------------------------- time


def check_time(claim: Claim, now: datetime, family: Family) -> None:
    """Raise when a request is too old or from the future."""
    if claim.expires_s is not None and family is S3:
        end = claim.moment + timedelta(seconds=claim.expires_s)
        if now > end:
            fields = {"Expires": iso(end), "ServerTime": iso(now)}
            if claim.kind == "presigned":
                fields = {"X-Amz-Expires": str(claim.expires_s), **fields}
            raise AwsError("AccessDenied", "Request has expired", 403, fields=fields)
        if claim.kind == "presigned" and claim.moment > now + SKEW:
            raise AwsError("AccessDenied", "Request is not yet valid", 403)
        return
    if family is S3:
        if abs(now - claim.moment) > SKEW:
            raise AwsError(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                403,
                fields={
                    "RequestTime": claim.stamp,
                    "ServerTime": iso(now),
                    "MaxAllowedSkewMilliseconds": "900000",
                },
            )
        return
    late = timedelta(seconds=claim.expires_s) if claim.expires_s is not None else SKEW
    stamp = claim.stamp
    if claim.moment < now - late:
        edge, server = (now - late).strftime(DATE), now.strftime(DATE)
        minutes = int(late.total_seconds() // 60)
        raise family.refuse_signature(
            f"Signature expired: {stamp} is now earlier than {edge} ({server} - {minutes} min.)"
        )
    if claim.moment > now + SKEW:
        edge, server = (now + SKEW).strftime(DATE), now.strftime(DATE)
        raise family.refuse_signature(
            f"Signature not yet current: {stamp} is still later than {edge} ({server} + 15 min.)"
        )


def iso(moment: datetime) -> str:
    """Return a time as S3's error fields have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------------- signatures


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the derived key; the same for a day of one key's requests to a service."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def check_scope(claim: Claim, family: Family) -> None:
    """Raise when a credential's scope names no region or another day than the request's."""
    if not REGION.fullmatch(claim.region):
        if family is S3:
            text = f"The authorization header is malformed; the region '{claim.region}' is wrong"
            raise AwsError("AuthorizationHeaderMalformed", text)
        raise family.refuse_signature("Credential should be scoped to a valid region.")
    if claim.stamp[:8] != claim.date:
        raise family.refuse_signature(
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
            f"from HTTP: '{claim.date}' != '{claim.stamp[:8]}', from '{claim.stamp}'."
        )


def check_v4(claim: Claim, request: Request, secret: str, payload: str, family: Family) -> None:
    """Raise when a SigV4 signature is not that of `secret`; `payload` is the hash it covers."""
    check_scope(claim, family)
    if "host" not in claim.signed_headers:
        raise family.refuse_signature(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        )
    canonical = canonical_request(claim, request, payload, family)
    # Latin-1 gives the bytes that came: headers were read so, all else is ASCII.
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    to_sign = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}"
    key = signing_key(secret, claim.date, claim.region, claim.service)
    expected = hmac.digest(key, to_sign.encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise refuse(claim, family, to_sign, canonical)


def canonical_request(claim: Claim, request: Request, payload: str, family: Family) -> str:
    """Return what a SigV4 signature is made of."""
    headers = request.headers
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in claim.signed_headers]
    path = s3_path(request.path) if family is S3 else service_path(request.path)
    return "\n".join(
        (
            request.method,
            path,
            canonical_query(request.query, claim.kind == "presigned"),
            *lines,
            "",
            ";".join(claim.signed_headers),
            payload,
        )
    )


def s3_path(path: str) -> str:
    """Return a path as S3 signs it: percent-encoded once, not normalized."""
    return quote(unquote(path), safe="/" + UNRESERVED)


def service_path(path: str) -> str:
    """Return a path as all others sign it: normalized, and percent-encoded once more."""
    if path == "/":
        return path
    normal = normpath(path)
    if normal.startswith("//"):
        normal = normal[1:]
    if path.endswith("/") and not normal.endswith("/"):
        normal += "/"
    return quote(normal, safe="/" + UNRESERVED)


def canonical_query(query: tuple[tuple[str, str], ...], presigned: bool) -> str:
    """Return the query in the order and encoding that signatures cover."""
    if not query:
        return ""
    pairs = [
        (quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED))
        for name, value in query
        if not (presigned and name == "X-Amz-Signature")
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def refuse(claim: Claim, family: Family, to_sign: str, canonical: str) -> AwsError:
    """Return the refusal of a signature; S3 shows what it computed from."""
    return family.refuse_signature(
        AWSAccessKeyId=claim.access_key_id,
        StringToSign=to_sign,
        SignatureProvided=claim.signature,
        StringToSignBytes=to_sign.encode().hex(" "),
        CanonicalRequest=canonical,
        CanonicalRequestBytes=canonical.encode().hex(" "),
    )


def check_v2(claim: Claim, request: Request, path: str, secret: str) -> None:
    """Raise when a SigV2 signature is not that of `secret`; `path` begins with the bucket."""
    query = dict(request.query)
    amz = {k: v for k, v in request.headers.items() if k.startswith("x-amz-")}
    amz |= {k.lower(): v for k, v in query.items() if k.lower().startswith("x-amz-")}
    # Of a bucket alone S3 signs `/bucket/`, however it was written.
    resource = path if "/" in path[1:] or path == "/" else f"{path}/"
    signed = sorted(pair for pair in request.query if pair[0] in SIGNED_V2)
    if signed:
        resource += "?" + "&".join(f"{k}={v}" if v else k for k, v in signed)
    lines = [
        request.method,
        query.get("content-md5") or request.headers.get("content-md5", ""),
        query.get("content-type") or request.headers.get("content-type", ""),
        claim.stamp,
        *(f"{name}:{amz[name].strip()}" for name in sorted(amz)),
        resource,
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
