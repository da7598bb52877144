"""Signatures: what a request says of its signer, and whether its signature is right.

SigV4 in the Authorization header and in the query, SigV2 in the query (which boto3 still makes
for S3 in us-east-1).
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import hashlib
import hmac
import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from posixpath import normpath
from typing import Literal
from urllib.parse import quote, unquote

from cloche.core.errors import AwsError
from cloche.gateway.message import Request
from cloche.gateway.refusals import S3, Family

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
LONGEST_PRESIGN_S = 604800
DATE = "%Y%m%dT%H%M%SZ"
STAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
REGION = re.compile(r"[a-z][a-z0-9-]{1,40}")
UNRESERVED = "-_.~"
LONGEST_DATE = 64  # characters of a Date header
WANTED = ("Credential", "Signature", "SignedHeaders")
UNSUPPORTED = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
NOT_SIGNED = "There were headers present in the request which were not signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureClaim:
    """What a request says of its signer."""

    kind: Literal["header", "presigned", "v2", "anonymous"]
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
    for part in header.partition(" ")[2].split(","):
        name, _, credential = part.strip().partition("=")
        if name == "Credential":
            return service_of(credential)
    names = dict(request.query)
    if "X-Amz-Credential" in names:
        return service_of(names["X-Amz-Credential"])
    if ("Signature" in names and "AWSAccessKeyId" in names) or header.startswith("AWS "):
        return "s3"
    return None


def service_of(credential: str) -> str | None:
    """Return the service of a credential's scope; None when it has none."""
    parts = credential.rsplit("/", 4)
    return parts[3] if len(parts) == 5 else None


def authorization(request: Request) -> str:
    """Return the Authorization header; several are joined, which no reading of it accepts."""
    return request.headers.get("authorization", "")


def read_claim(request: Request, family: Family) -> SignatureClaim | None:
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


def read_header(request: Request, header: str, family: Family) -> SignatureClaim:
    """Return the claim of an Authorization header."""
    method, _, rest = header.partition(" ")
    if method != ALGORITHM:
        if family is S3:
            raise AwsError("InvalidRequest", UNSUPPORTED)
        raise family.refuse_incomplete(
            f"Authorization header requires '{ALGORITHM}'. Authorization={header}"
        )
    parts = header_parts(rest, header, family)
    missing = [f"Authorization header requires '{n}' parameter." for n in WANTED if n not in parts]
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


def header_parts(rest: str, header: str, family: Family) -> dict[str, str]:
    """Return the parts of an Authorization header: each once, and no others.

    A second Authorization header would be read as more of them.
    """
    parts: dict[str, str] = {}
    for part in rest.split(",") if rest.strip() else ():
        name, equal, value = part.strip().partition("=")
        if equal and name in WANTED and name not in parts:
            parts[name] = value
            continue
        if family is S3:
            components = "Credential, SignedHeaders, and Signature"
            reason = f"the authorization header requires three components: {components}."
            raise family.refuse_incomplete(malformed(family, reason, header))
        if not equal:
            raise family.refuse_incomplete(
                f"'{part.strip()}' not a valid key=value pair (missing equal-sign) in "
                f"Authorization header: '{header}'."
            )
        reason = f"Authorization header has '{name}' twice, or no such parameter exists."
        raise family.refuse_incomplete(malformed(family, reason, header))
    return parts


def malformed(family: Family, reason: str, header: str) -> str:
    """Return the text about an Authorization header, as S3 or as the others put it."""
    if family is S3:
        return f"The authorization header is malformed; {reason}"
    return f"{reason} Authorization={header}"


def http_date(request: Request) -> str | None:
    """Return the Date header in the form of X-Amz-Date."""
    text = request.headers.get("date", "")
    if not 0 < len(text) <= LONGEST_DATE:
        return None
    try:
        return parsedate_to_datetime(text).astimezone(UTC).strftime(DATE)
    except (ValueError, OverflowError):
        return None


def read_presigned(query: dict[str, str], family: Family) -> SignatureClaim:
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
) -> SignatureClaim:
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
    return SignatureClaim(
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


def read_v2(query: dict[str, str]) -> SignatureClaim:
    """Return the claim of a SigV2 presigned URL; `moment` is when it expires."""
    expires = query.get("Expires", "")
    if not re.fullmatch(r"\d{1,11}", expires):
        text = (
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId "
            "parameters"
        )
        raise AwsError("AccessDenied", text, 403)
    return SignatureClaim(
        kind="v2",
        access_key_id=query["AWSAccessKeyId"],
        signature=query["Signature"],
        token=query.get("x-amz-security-token"),
        stamp=expires,
        moment=datetime.fromtimestamp(int(expires), UTC),
        expires_s=0,
    )


# ---------------------------------------------------------------------- signatures


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the derived key; the same for a day of one key's requests to a service."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def check_scope(claim: SignatureClaim, family: Family) -> None:
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


def check_v4(
    claim: SignatureClaim, request: Request, secret: str, payload: str, family: Family
) -> None:
    """Raise when a SigV4 signature is not that of `secret`; `payload` is the hash it covers."""
    check_scope(claim, family)
    check_covered(claim, request, family)
    canonical = canonical_request(claim, request, payload, family)
    # Latin-1 gives the bytes that came: headers were read so, all else is ASCII.
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    to_sign = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}"
    key = signing_key(secret, claim.date, claim.region, claim.service)
    expected = hmac.digest(key, to_sign.encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise refuse(claim, family, to_sign, canonical)


def check_covered(claim: SignatureClaim, request: Request, family: Family) -> None:
    """Raise when a header that means something was not signed: anybody may have added it."""
    signed = set(claim.signed_headers)
    if len(signed) < len(claim.signed_headers):
        raise family.refuse_signature()  # a name a thousand times is a value a thousand times
    must = must_be_signed if family is not S3 else s3_must_be_signed
    unsigned = [n for n in request.headers if n not in signed and must(n, signed)]
    if "host" not in signed and "host" not in unsigned:
        unsigned.append("host")
    if not unsigned:
        return
    if family is S3:
        fields = {"HeadersNotSigned": ", ".join(unsigned)}
        raise AwsError("AccessDenied", NOT_SIGNED, 403, fields=fields)
    names = ["Host' or ':authority" if name == "host" else name.title() for name in unsigned]
    raise family.refuse_signature(
        " ".join(f"'{name}' must be a 'SignedHeader' in the AWS Authorization." for name in names)
    )


def s3_must_be_signed(name: str, signed: Container[str]) -> bool:
    """Return whether S3 wants a header signed that came; the payload's hash is signed anyway."""
    if name == "if-range":
        return "range" in signed
    amz = name.startswith("x-amz-") and name != "x-amz-content-sha256"
    return amz or name in ("host", "content-md5")


def must_be_signed(name: str, signed: Container[str]) -> bool:
    """Return whether the other services want a header signed that came.

    Content-Type is not among them: there are SDKs of AWS that leave it out, and AWS takes that.
    """
    free = ("x-amz-content-sha256", "x-amzn-trace-id")
    amz = name.startswith(("x-amz-", "x-amzn-")) and name not in free
    return amz or name in ("host", "content-encoding")


def canonical_request(claim: SignatureClaim, request: Request, payload: str, family: Family) -> str:
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


def refuse(claim: SignatureClaim, family: Family, to_sign: str, canonical: str) -> AwsError:
    """Return the refusal of a signature; S3 shows what it computed from."""
    return family.refuse_signature(
        AWSAccessKeyId=claim.access_key_id,
        StringToSign=to_sign,
        SignatureProvided=claim.signature,
        StringToSignBytes=to_sign.encode().hex(" "),
        CanonicalRequest=canonical,
        CanonicalRequestBytes=canonical.encode().hex(" "),
    )
