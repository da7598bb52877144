"""MFA codes that come with a request for a session."""

from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.services.iam import Identity

BOTH = (
    "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."
)
NOT_THEIRS = (
    "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA "
    "serial number is valid and associated with this user."
)
WRONG = "MultiFactorAuthentication failed with invalid MFA one time pass code. "


async def prove_mfa(
    call: Call[Identity], serial_number: str | None, code: str | None
) -> int | None:
    """Return when a right code was given, milliseconds since 1970; None: none was given."""
    if serial_number is None and code is None:
        return None
    if serial_number is None or code is None:
        raise AwsError("AccessDenied", BOTH, 403)
    right = await call.service.prove_mfa(call.principal, serial_number, code, call.now)
    if right is None:
        raise AwsError("AccessDenied", NOT_THEIRS, 403)
    if not right:
        raise AwsError("AccessDenied", WRONG, 403)
    return to_ms(call.now)
