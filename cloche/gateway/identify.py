"""Who sent a request: the claim it makes, the credential we issued, the proof."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from cloche.core.errors import AwsError
from cloche.core.identity import ANONYMOUS, Credential, CredentialLookup
from cloche.gateway import signature
from cloche.gateway.freshness import check_time
from cloche.gateway.limits import S3_HEAD_BYTES
from cloche.gateway.message import Request
from cloche.gateway.refusals import S3, Family
from cloche.gateway.signature import UNSIGNED, SignatureClaim
from cloche.gateway.signature_v2 import check_v2

HEX = re.compile(r"[0-9a-f]{64}")
EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
NOBODY = Credential(access_key_id="", secret_access_key="", principal=ANONYMOUS)


class NobodySigned(AwsError):
    """A request claims nobody as its signer."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A claim, and the credential behind it (not proven yet)."""

    claim: SignatureClaim
    credential: Credential


def find_signer(
    request: Request, family: Family, credentials: CredentialLookup, now: datetime
) -> Signer:
    """Return who claims to have signed, with a credential that is valid now; else AwsError."""
    if family is S3:
        check_head(request)
    claim = signature.read_claim(request, family)
    if claim is None:
        missing = family.refuse_missing()
        raise NobodySigned(missing.code, missing.message, missing.status)
    signer = issued(claim, family, credentials, now)
    check_time(claim, now, family)
    return signer


def issued(
    claim: SignatureClaim, family: Family, credentials: CredentialLookup, now: datetime
) -> Signer:
    """Return who a claim names, with a credential that is valid now; else AwsError."""
    credential = credentials.find(claim.access_key_id)
    if credential is None:
        raise family.refuse_key(claim.access_key_id)
    check_token(claim, credential, family, now)
    return Signer(claim, credential)


def anonymous(now: datetime, region: str = "us-east-1") -> Signer:
    """Return who stands for the signer of a request that nobody signed."""
    claim = SignatureClaim(
        kind="anonymous",
        access_key_id="",
        signature="",
        token=None,
        stamp="",
        moment=now,
        region=region,
    )
    return Signer(claim, NOBODY)


def check_head(request: Request) -> None:
    """Raise when a request's line and headers are longer than S3 takes."""
    size = len(request.path) + len(request.query_string)
    size += sum(len(name) + len(value) for name, value in request.headers.items())
    if size > S3_HEAD_BYTES:
        text = "Your request header section exceeds the maximum allowed size."
        fields = {"MaxSizeAllowed": str(S3_HEAD_BYTES)}
        raise AwsError("RequestHeaderSectionTooLarge", text, fields=fields)


def check_token(
    claim: SignatureClaim, credential: Credential, family: Family, now: datetime
) -> None:
    """Raise when the session token is missing, wrong, or its session over."""
    if credential.session_token is None:
        if claim.token is not None:
            raise family.refuse_token(claim.token)
        return
    if claim.token is None:
        raise family.refuse_key(claim.access_key_id)
    if not hmac.compare_digest(claim.token.encode(), credential.session_token.encode()):
        raise family.refuse_token(claim.token)
    if credential.expires is not None and now >= credential.expires:
        raise family.refuse_expired(claim.token)


def payload_hash(request: Request, signer: Signer) -> str:
    """Return the hash that a request outside S3 must have signed: that of its body."""
    declared = request.headers.get("x-amz-content-sha256")
    if declared == UNSIGNED and signer.claim.kind == "presigned":
        return UNSIGNED
    return hashlib.sha256(request.body).hexdigest() if request.body else EMPTY


def s3_payload(request: Request, signer: Signer) -> str:
    """Return the payload part of an S3 signature; AwsError when it is none that S3 knows."""
    declared = request.headers.get("x-amz-content-sha256")
    in_pieces = (declared or "").startswith("STREAMING-")
    if signer.claim.kind == "anonymous" and in_pieces and declared != UNSIGNED_CHUNKS:
        raise S3.refuse_missing()  # its pieces are signed, by nobody
    if signer.claim.kind != "header":
        return declared or UNSIGNED
    if declared is None:
        text = "Missing required header for this request: x-amz-content-sha256"
        raise AwsError("InvalidRequest", text)
    if (
        declared != UNSIGNED
        and not declared.startswith("STREAMING-")
        and not HEX.fullmatch(declared)
    ):
        text = (
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, "
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
        )
        fields = {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": declared}
        raise AwsError("InvalidArgument", text, fields=fields)
    return declared


def prove(request: Request, path: str, signer: Signer, payload: str, family: Family) -> None:
    """Raise when the signature is not the credential's; nobody's has none."""
    if signer.credential is NOBODY:
        return
    claim, secret = signer.claim, signer.credential.secret_access_key
    if claim.kind == "v2":
        check_v2(claim, request, path, secret)
    else:
        signature.check_v4(claim, request, secret, payload, family)
