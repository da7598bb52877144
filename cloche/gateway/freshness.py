"""When a signed request is too old, too early, or its link has expired."""

from datetime import datetime, timedelta

from cloche.core.errors import AwsError
from cloche.gateway.refusals import S3, Family
from cloche.gateway.signature import DATE, SignatureClaim

SKEW = timedelta(minutes=15)


def check_time(claim: SignatureClaim, now: datetime, family: Family) -> None:
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
