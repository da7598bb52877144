"""The one exception a client sees."""

from collections.abc import Mapping


class AwsError(Exception):
    """An error the caller can act on; boto3 shows `code` and `message`, `status` is HTTP's.

    `fields` are further members of the error on the wire (`OriginalMessage` of a ModelError);
    `headers` are further headers of the response.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        fields: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})


def unsupported(what: str, instead: str = "") -> AwsError:
    """Return the refusal of something that AWS has and Cloche has not; `what` names it."""
    hint = f" {instead}" if instead else ""
    return AwsError("ValidationException", f"Cloche does not support {what}.{hint}")
