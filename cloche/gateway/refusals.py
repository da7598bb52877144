"""How each family of AWS services words its refusals: codes, texts and statuses, verbatim.

The texts are what AWS's services answer; S3 has its own for everything
(https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), the others share theirs
(https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html) and differ in
the codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cloche.core.authorization import Refused
from cloche.core.errors import AwsError
from cloche.gateway.shapes import Api

INVALID_TOKEN = "The security token included in the request is invalid."
EXPIRED_TOKEN = "The security token included in the request is expired"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)
S3_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "key and signing method."
)
UNAVAILABLE = "The request processing has failed because of an unknown error, exception or failure."


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Codes and statuses of one family's refusals."""

    status: int
    missing: str
    missing_text: str
    unknown_key: str
    unknown_key_text: str = INVALID_TOKEN
    invalid_token: str
    invalid_token_text: str = INVALID_TOKEN
    mismatch: str
    mismatch_text: str = MISMATCH
    expired: str
    expired_text: str = EXPIRED_TOKEN
    token_status: int  # of the two refusals of a token
    incomplete: str
    incomplete_status: int = 400
    validation: str
    denied: str
    denied_status: int = 403
    denied_text: str = "{}"
    unknown_action: str
    internal: str = "InternalFailure"
    internal_text: str = UNAVAILABLE
    too_large: str = "RequestEntityTooLargeException"

    def refuse_missing(self) -> AwsError:
        """Return the refusal of a request that nobody signed."""
        return AwsError(self.missing, self.missing_text, self.status)

    def refuse_key(self, access_key_id: str) -> AwsError:
        """Return the refusal of a key that was not issued."""
        fields = {"AWSAccessKeyId": access_key_id} if self is S3 else {}
        return AwsError(self.unknown_key, self.unknown_key_text, self.status, fields=fields)

    def refuse_token(self, token: str) -> AwsError:
        """Return the refusal of a wrong session token."""
        fields = {"Token-0": token} if self is S3 else {}
        return AwsError(
            self.invalid_token, self.invalid_token_text, self.token_status, fields=fields
        )

    def refuse_expired(self, token: str) -> AwsError:
        """Return the refusal of a session that is over."""
        fields = {"Token-0": token} if self is S3 else {}
        return AwsError(self.expired, self.expired_text, self.token_status, fields=fields)

    def refuse_signature(self, text: str | None = None, **fields: str) -> AwsError:
        """Return the refusal of a signature; `text` where it is not simply wrong."""
        return AwsError(
            self.mismatch,
            text or self.mismatch_text,
            self.status,
            fields=fields if self is S3 else {},
        )

    def refuse_denied(self, api: Api, refused: Refused) -> AwsError:
        """Return the refusal of what the caller may not do."""
        code, status = DENIED.get(api.name, (self.denied, self.denied_status))
        return AwsError(code, self.denied_text.format(refused.message), status)

    def refuse_incomplete(self, text: str) -> AwsError:
        """Return the refusal of authentication that lacks a part."""
        return AwsError(self.incomplete, text, self.incomplete_status)


JSON = Family(
    status=400,
    missing="MissingAuthenticationTokenException",
    missing_text="Missing Authentication Token",
    unknown_key="UnrecognizedClientException",
    invalid_token="UnrecognizedClientException",
    mismatch="InvalidSignatureException",
    expired="ExpiredTokenException",
    token_status=400,
    incomplete="IncompleteSignatureException",
    validation="ValidationException",
    denied="AccessDeniedException",
    denied_status=400,
    unknown_action="UnknownOperationException",
)
REST_JSON = Family(
    status=403,
    missing="MissingAuthenticationTokenException",
    missing_text="Missing Authentication Token",
    unknown_key="UnrecognizedClientException",
    invalid_token="UnrecognizedClientException",
    mismatch="InvalidSignatureException",
    expired="ExpiredTokenException",
    token_status=403,
    incomplete="IncompleteSignatureException",
    incomplete_status=403,
    validation="ValidationException",
    denied="AccessDeniedException",
    unknown_action="UnknownOperationException",
)
QUERY = Family(
    status=403,
    missing="MissingAuthenticationToken",
    missing_text="Request is missing Authentication Token",
    unknown_key="InvalidClientTokenId",
    invalid_token="InvalidClientTokenId",
    mismatch="SignatureDoesNotMatch",
    expired="ExpiredToken",
    token_status=403,
    incomplete="IncompleteSignature",
    validation="ValidationError",
    denied="AccessDenied",
    unknown_action="InvalidAction",
)
EC2 = Family(
    status=401,
    missing="AuthFailure",
    missing_text="AWS was not able to validate the provided access credentials",
    unknown_key="AuthFailure",
    unknown_key_text="AWS was not able to validate the provided access credentials",
    invalid_token="AuthFailure",
    invalid_token_text="AWS was not able to validate the provided access credentials",
    mismatch="AuthFailure",
    mismatch_text="AWS was not able to validate the provided access credentials",
    expired="RequestExpired",
    expired_text="Request has expired.",
    token_status=400,
    incomplete="AuthFailure",
    validation="InvalidParameterValue",
    denied="UnauthorizedOperation",
    denied_text="You are not authorized to perform this operation. {}",
    unknown_action="InvalidAction",
)
S3 = Family(
    status=403,
    missing="AccessDenied",
    missing_text="Access Denied",
    unknown_key="InvalidAccessKeyId",
    unknown_key_text="The AWS Access Key Id you provided does not exist in our records.",
    invalid_token="InvalidToken",
    invalid_token_text="The provided token is malformed or otherwise invalid.",
    mismatch="SignatureDoesNotMatch",
    mismatch_text=S3_MISMATCH,
    expired="ExpiredToken",
    expired_text="The provided token has expired.",
    token_status=400,
    incomplete="AuthorizationHeaderMalformed",
    validation="NotImplemented",
    denied="AccessDenied",
    unknown_action="NotImplemented",
    internal="InternalError",
    internal_text="We encountered an internal error. Please try again.",
    too_large="MaxMessageLengthExceeded",
)
BY_PROTOCOL: Mapping[str, Family] = {
    "json": JSON,
    "smithy-rpc-v2-cbor": JSON,
    "rest-json": REST_JSON,
    "query": QUERY,
    "ec2": EC2,
    "rest-xml": S3,
}
# Where a service's validation goes by another name than its family's.
VALIDATION: Mapping[str, str] = {
    "logs": "InvalidParameterException",
    "sagemaker-runtime": "ValidationError",
    "cloudwatch": "ValidationError",
}
# Where a service that speaks several protocols refuses as it did in its first.
DENIED: Mapping[str, tuple[str, int]] = {
    "cloudwatch": ("AccessDenied", 403),
}


def family_of(protocol: str) -> Family:
    """Return the family of a protocol."""
    return BY_PROTOCOL[protocol]


def validation_code(api: Api, protocol: str) -> str:
    """Return the code of a service's refusal of parameters."""
    return VALIDATION.get(api.name) or BY_PROTOCOL[protocol].validation
