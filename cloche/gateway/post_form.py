"""PutObject as browsers send it: a form whose policy somebody signed, the file at its end.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
"""

import base64
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from cloche.core.errors import AwsError
from cloche.core.identity import CredentialLookup
from cloche.gateway import identify, post_policy, rest_xml, signature
from cloche.gateway.body import RawBody
from cloche.gateway.form_data import FormReader, boundary_of
from cloche.gateway.identify import Signer
from cloche.gateway.message import Request, Response
from cloche.gateway.post_policy import LengthRange
from cloche.gateway.refusals import S3
from cloche.gateway.rest import places
from cloche.gateway.shapes import Action, api
from cloche.gateway.signature import ALGORITHM, SignatureClaim
from cloche.gateway.xml_values import DECLARATION, escaped

V4 = ("X-Amz-Signature", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date")
V2 = ("AWSAccessKeyId", "Signature")
AUTHENTICATION = frozenset(name.lower() for name in (*V4, "X-Amz-Security-Token"))
PROOF = AUTHENTICATION | {name.lower() for name in V2}
# Of the request itself, not of the object.
KEPT_HEADERS = ("host", "user-agent", "referer")
METADATA = "x-amz-meta-"
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,256}")  # of a header
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
UNREADABLE = "The form field {} has a control character or is not UTF-8."


@dataclass(frozen=True, slots=True)
class Form:
    """The fields before the file (names in lower case), `bucket` and the key among them."""

    bucket: str
    fields: Mapping[str, str]
    reader: FormReader

    @property
    def key(self) -> str:
        """The key that the object gets."""
        return self.fields["key"]


class File:
    """The file of a form, as it arrives, within its policy's bounds."""

    length: int | None = None
    trailers: Mapping[str, str] = {}
    ends_marked = True

    def __init__(self, reader: FormReader, bounds: LengthRange) -> None:
        self.reader, self.bounds = reader, bounds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self.reader.file():
            size += len(piece)
            if size > self.bounds.most:
                text = "Your proposed upload exceeds the maximum allowed size"
                fields = {"ProposedSize": str(size), "MaxSizeAllowed": str(self.bounds.most)}
                raise AwsError("EntityTooLarge", text, 400, fields=fields)
            yield piece
        if size < self.bounds.least:
            text = "Your proposed upload is smaller than the minimum allowed size"
            fields = {"ProposedSize": str(size), "MinSizeAllowed": str(self.bounds.least)}
            raise AwsError("EntityTooSmall", text, 400, fields=fields)


def is_form(request: Request, path: str) -> bool:
    """Return whether a request to S3 is a form that uploads; `path` begins with the bucket."""
    bucket = path.strip("/")
    return (
        request.method == "POST"
        and bool(bucket)
        and "/" not in bucket
        and not request.query
        and "authorization" not in request.headers
        and request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    )


async def read(request: Request, raw: RawBody, path: str) -> Form:
    """Return a form, read up to its file."""
    if raw.length is None:
        text = "You must provide the Content-Length HTTP header."
        raise AwsError("MissingContentLength", text, 411)
    boundary = boundary_of(request.headers)
    if boundary is None:
        raise argument("POST requires exactly one file upload per request.", "file", "0")
    reader, fields, filename = FormReader(raw, boundary), dict[str, str](), ""
    await reader.begin()
    while True:
        part = await reader.next_part()
        if part is None:
            raise argument("POST requires exactly one file upload per request.", "file", "0")
        name = part.name.lower()
        if name == "file":
            filename = part.filename or ""
            break
        if name in fields:
            raise argument("A form field is repeated.", part.name, "")
        fields[name] = decoded(part.name, await reader.value())
    if not fields.get("key"):
        raise missing("key")
    bucket = path.strip("/")
    expanded = fields["key"].replace("${filename}", filename)
    return Form(bucket, {**fields, "key": expanded, "bucket": bucket}, reader)


def decoded(name: str, value: bytes) -> str:
    """Return a field's text."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise argument(UNREADABLE.format(name), name, "") from error


# ------------------------------------------------------------------ who signed it, and what


def prove(form: Form, credentials: CredentialLookup, now: datetime) -> tuple[Signer, LengthRange]:
    """Return who signed the form's policy, and the bounds of the file; else AwsError.

    A form without one is nobody's.

    The form is as its policy demands: what it says and how long it is valid.
    """
    policy = form.fields.get("policy")
    if policy is None and form.fields.keys().isdisjoint(PROOF):
        return identify.anonymous(now), LengthRange()
    if policy is None:
        raise S3.refuse_missing()
    claim = claim_of(form.fields, now)
    signer = identify.issued(claim, S3, credentials, now)
    check_signature(claim, policy, signer.credential.secret_access_key)
    allowed = post_policy.load(policy)
    version = "v2" if claim.kind == "v2" else "v4"
    post_policy.check(allowed, form.fields, version, now)
    return signer, allowed.bounds


def claim_of(fields: Mapping[str, str], now: datetime) -> SignatureClaim:
    """Return what a form says of its signer; AwsError when a part of that is missing."""
    token = fields.get("x-amz-security-token")
    if any(name.lower() in fields for name in V2) and "x-amz-signature" not in fields:
        for name in V2:
            if name.lower() not in fields:
                raise missing(name)
        return SignatureClaim(
            kind="v2",
            access_key_id=fields["awsaccesskeyid"],
            signature=fields["signature"],
            token=token,
            stamp="",
            moment=now,
        )
    for name in V4:
        if name.lower() not in fields:
            raise missing(name)
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise AwsError("InvalidRequest", signature.UNSUPPORTED)
    claim = signature.claim_of(
        "presigned",
        S3,
        credential=fields["x-amz-credential"],
        signature=fields["x-amz-signature"],
        signed_headers="",
        stamp=fields["x-amz-date"],
        token=token,
        expires_s=None,
    )
    if claim.service != "s3":
        text = (
            f'Error parsing the X-Amz-Credential parameter; incorrect service "{claim.service}". '
            'This endpoint belongs to "s3".'
        )
        raise AwsError("AuthorizationQueryParametersError", text)
    signature.check_scope(claim, S3)
    return claim


def check_signature(claim: SignatureClaim, policy: str, secret: str) -> None:
    """Raise unless the policy, as sent, was signed with `secret`."""
    if claim.kind == "v2":
        digest = hmac.digest(secret.encode(), policy.encode(), "sha1")
        expected = base64.b64encode(digest)
    else:
        key = signature.signing_key(secret, claim.date, claim.region, claim.service)
        expected = hmac.digest(key, policy.encode(), "sha256").hex().encode()
    if not hmac.compare_digest(expected, claim.signature.encode()):
        raise S3.refuse_signature(
            AWSAccessKeyId=claim.access_key_id,
            StringToSign=policy,
            SignatureProvided=claim.signature,
            StringToSignBytes=policy.encode().hex(" "),
        )


# ------------------------------------------------------------------ as a PutObject, and back


def as_put(form: Form, request: Request, action: Action, body: File) -> Request:
    """Return the request of the PutObject that the form means: its fields are the headers."""
    assert action.input is not None
    known = {name for name, _ in places(action.input).header} - {"content-length"}
    headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
    for name, value in form.fields.items():
        if name.startswith("x-amz-") and not NAME.fullmatch(name):
            raise argument("The form field's name is not a valid header name.", name, "")
        if name == "acl":
            headers["x-amz-acl"] = header_text(name, value)
        elif name == "tagging":
            headers["x-amz-tagging"] = tags(value)
        elif name in known or name.startswith(METADATA):
            headers[name] = header_text(name, value)
        elif name.startswith("x-amz-") and name not in AUTHENTICATION:
            text = "A header you provided implies functionality that is not implemented"
            raise AwsError("NotImplemented", text, 501, fields={"Header": name})
    return replace(request, headers=headers, stream=body)


def header_text(name: str, value: str) -> str:
    """Return a field's value as a header's would have been read; it can hold no line end."""
    if CONTROL.search(value):
        raise argument(UNREADABLE.format(name), name, "")
    return value.strip().encode().decode("latin-1")


def tags(document: str) -> str:
    """Return the tags, which a form has as XML, as the header has them."""
    action = api("s3").action("PutObjectTagging")
    assert action is not None
    request = Request(method="PUT", path="/", body=document.encode())
    given = rest_xml.parse(action, request, {"Bucket": "b", "Key": "k"})["Tagging"]
    return urlencode([(tag["Key"], tag["Value"]) for tag in given.get("TagSet", ())])


def answer(form: Form, request: Request, made: Response) -> Response:
    """Return the answer that the form asks for, from a PutObject's: 204 when it asks for none."""
    base = f"{request.scheme}://{request.headers.get('host', '')}"
    bucket = "" if request.path.strip("/") == "" else f"/{form.bucket}"  # else the host names it
    location = f"{base}{bucket}/{quote(form.key, safe='')}"
    etag, status = made.headers["etag"], form.fields.get("success_action_status")
    wanted = form.fields.get("success_action_redirect") or form.fields.get("redirect")
    target = redirection(wanted, form, etag) if wanted else None
    if target is not None:
        return Response(303, {**made.headers, "location": target})
    headers = {**made.headers, "location": location}
    if status == "201":
        body = (
            f"{DECLARATION}<PostResponse><Location>{escaped(location)}</Location>"
            f"<Bucket>{escaped(form.bucket)}</Bucket><Key>{escaped(form.key)}</Key>"
            f"<ETag>{escaped(etag)}</ETag></PostResponse>"
        )
        return Response(201, {**headers, "content-type": "application/xml"}, body.encode())
    return Response(200 if status == "200" else 204, headers)


def redirection(wanted: str, form: Form, etag: str) -> str | None:
    """Return where the browser goes next; None, as AWS has it, when that is no address."""
    try:
        parts = urlsplit(wanted)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc or not printable(wanted):
        return None
    query += [("bucket", form.bucket), ("key", form.key), ("etag", etag)]
    return parts._replace(query=urlencode(query)).geturl()


def printable(text: str) -> bool:
    """Return whether a header can hold a text as it is."""
    return text.isascii() and CONTROL.search(text) is None and " " not in text


def missing(name: str) -> AwsError:
    """Return the refusal of a form that lacks a field before its file."""
    text = (
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the "
        "order of the fields."
    )
    return argument(text, name, "")


def argument(text: str, name: str, value: str) -> AwsError:
    """Return the refusal of a field."""
    return AwsError("InvalidArgument", text, fields={"ArgumentName": name, "ArgumentValue": value})
