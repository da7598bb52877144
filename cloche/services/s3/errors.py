"""S3's errors, with its own codes, texts and statuses.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; texts as S3 answers them.
"""

from cloche.core.errors import AwsError


def no_such_bucket(bucket: str) -> AwsError:
    """Return the error for a bucket that is not there."""
    text = "The specified bucket does not exist"
    return AwsError("NoSuchBucket", text, 404, fields={"BucketName": bucket})


def no_such_key(key: str) -> AwsError:
    """Return the error for an object that is not there."""
    return AwsError("NoSuchKey", "The specified key does not exist.", 404, fields={"Key": key})


def no_such_upload(upload: str) -> AwsError:
    """Return the error for a multipart upload that is not there."""
    text = (
        "The specified upload does not exist. The upload ID may be invalid, "
        "or the upload may have been aborted or completed."
    )
    return AwsError("NoSuchUpload", text, 404, fields={"UploadId": upload})


def access_denied() -> AwsError:
    """Return the refusal to who may not."""
    return AwsError("AccessDenied", "Access Denied", 403)


def precondition_failed(condition: str) -> AwsError:
    """Return the error for a condition header that does not hold."""
    text = "At least one of the pre-conditions you specified did not hold"
    return AwsError("PreconditionFailed", text, 412, fields={"Condition": condition})


def invalid_argument(message: str, name: str, value: object) -> AwsError:
    """Return the error for an argument out of its range."""
    fields = {"ArgumentName": name, "ArgumentValue": str(value)}
    return AwsError("InvalidArgument", message, 400, fields=fields)


def invalid_request(message: str) -> AwsError:
    """Return the error for a request that makes no sense."""
    return AwsError("InvalidRequest", message, 400)


def not_implemented(header: str) -> AwsError:
    """Return the refusal of a header that implies what is not there."""
    text = "A header you provided implies functionality that is not implemented"
    return AwsError("NotImplemented", text, 501, fields={"Header": header})


def bad_digest(algorithm: str) -> AwsError:
    """Return the error for a checksum that is not that of what was received."""
    text = f"The {algorithm} you specified did not match the calculated checksum."
    return AwsError("BadDigest", text, 400)


def malformed_xml() -> AwsError:
    """Return the error for a body that says something impossible."""
    text = (
        "The XML you provided was not well-formed or did not validate against our published schema"
    )
    return AwsError("MalformedXML", text, 400)


def entity_too_large(size: int, limit: int) -> AwsError:
    """Return the error for a payload above the limit."""
    text = "Your proposed upload exceeds the maximum allowed size"
    fields = {"ProposedSize": str(size), "MaxSizeAllowed": str(limit)}
    return AwsError("EntityTooLarge", text, 400, fields=fields)
