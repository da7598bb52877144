"""The condition keys that a request itself has, whatever it asks for.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
https://docs.aws.amazon.com/AmazonS3/latest/API/bucket-policy-s3-sigv4-conditions.html
"""

from datetime import datetime

from cloche.core.authorization import Values
from cloche.core.clock import to_ms
from cloche.gateway.identify import Signer
from cloche.gateway.message import Request
from cloche.gateway.refusals import S3, Family

HEADERS = (("user-agent", "aws:useragent"), ("referer", "aws:referer"))
AUTH_TYPES = {"header": "REST-HEADER", "presigned": "REST-QUERY-STRING", "v2": "REST-QUERY-STRING"}


def request_keys(
    name: str, request: Request, signer: Signer, family: Family, now: datetime
) -> dict[str, Values]:
    """Return the keys' values, by their names in lower case; `name` is the operation's."""
    keys: dict[str, Values] = {
        "aws:requestedregion": signer.claim.region,
        "aws:securetransport": "true" if request.scheme == "https" else "false",
        "aws:viaawsservice": "false",
    }
    if request.client is not None:
        keys["aws:sourceip"] = request.client.partition("%")[0]
    if signer.credential.session_token is not None:  # long-term keys have no such key
        keys["aws:multifactorauthpresent"] = "false"
    for header, name in HEADERS:
        if header in request.headers:
            keys[name] = request.headers[header]
    return {**keys, **s3_keys(name, request, signer, now)} if family is S3 else keys


def s3_keys(name: str, request: Request, signer: Signer, now: datetime) -> dict[str, Values]:
    """Return what S3's own keys say of a signature."""
    claim = signer.claim
    is_form = name == "PutObject" and request.method == "POST"
    keys: dict[str, Values] = {}
    if claim.kind != "anonymous":
        age_ms = to_ms(now) - to_ms(claim.moment)
        keys = {
            "s3:authtype": "POST" if is_form else AUTH_TYPES[claim.kind],
            "s3:signatureversion": "AWS" if claim.kind == "v2" else "AWS4-HMAC-SHA256",
            "s3:signatureage": str(max(age_ms, 0)),
        }
    if request.tls:
        keys["s3:tlsversion"] = request.tls
    if "x-amz-content-sha256" in request.headers:
        keys["s3:x-amz-content-sha256"] = request.headers["x-amz-content-sha256"]
    return keys
