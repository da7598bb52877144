"""The parts of a policy, each checked by itself: actions, resources, principals, dates."""

import re

PARTITIONS = frozenset(
    {
        "aws",
        "aws-cn",
        "aws-us-gov",
        "aws-iso",
        "aws-iso-b",
        "aws-iso-e",
        "aws-iso-f",
        "aws-eusc",
        "*",
    }
)
VENDOR = re.compile(r"[A-Za-z0-9.-]+")
# What neither XML nor UTF-8 can carry: an error that repeats it could not be sent.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
IAM_FOLDERS = (
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
)
# Resources of S3 that lie in a region (Service Authorization Reference).
S3_REGIONAL = (
    "*",
    "access-grants/",
    "accesspoint/",
    "async-request/",
    "job/",
    "storage-lens-group/",
    "storage-lens/",
)
DATE = re.compile(
    r"(?P<year>-?[0-9]{1,9})(-(?P<month>[0-9]{1,2})(-(?P<day>[0-9]{1,2}))?)?"
    r"(t((?P<hour>[0-9]{1,2})(:(?P<minute>[0-9]{1,2})(:(?P<second>[0-9]{1,2})(\.[0-9]{1,9})?"
    r"(z|[+-](?P<zone_hour>[0-9]{2})(:(?P<zone_minute>[0-9]{2}))?)?)?)?)?)?",
    re.IGNORECASE,
)
RANGES = {
    "year": (-292275054, 292278993),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
    "zone_hour": (0, 23),
    "zone_minute": (0, 59),
}
SECONDS = re.compile(r"[0-9]{1,19}")
MOST_SECONDS = 2**63 - 1


def action_fault(action: str) -> str | None:
    """Return what is wrong with an action, in AWS's words; None: it is `*` or `vendor:Action`."""
    if action == "*":
        return None
    colons = action.count(":")
    if not colons:
        return "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
    if colons > 1:
        return "Actions/Condition can contain only one colon."
    vendor = action.partition(":")[0]
    if vendor != "*" and not VENDOR.fullmatch(vendor):
        return f"Vendor {vendor} is not valid"
    return None


def resource_fault(resource: str) -> str | None:
    """Return what is wrong with a resource, in AWS's words; None: it is `*` or like an ARN."""
    if resource == "*":
        return None
    parts = resource.split(":", 5)
    if len(parts) < 2:
        return f'Resource {resource} must be in ARN format or "*".'
    if parts[1] not in PARTITIONS:
        shown = ":".join([*parts[1:], *"****"][:5])
        return f'Partition "{parts[1]}" is not valid for resource "arn:{shown}".'
    if len(parts) < 3 or re.search(r"[*?]", parts[2]):
        return "Resource vendor must be fully qualified and cannot contain regexes."
    service, region = parts[2], parts[3] if len(parts) > 3 else ""
    tail = parts[5] if len(parts) > 5 else ""
    if service == "iam":
        if region:
            return f"IAM resource {resource} cannot contain region information."
        if len(parts) > 5 and tail != "*" and not tail.startswith(IAM_FOLDERS):
            return f'IAM resource path must either be "*" or start with {", ".join(IAM_FOLDERS)}.'
    if service == "s3" and region and not tail.startswith(S3_REGIONAL):
        return f"Resource {resource} can not contain region information."
    return None


def legacy_arn(resource: str) -> bool:
    """Tell whether AWS's older parser reads a resource: a service, and all six parts or no gap."""
    if resource == "*":
        return True
    return (resource.count(":") >= 5 or "::" not in resource) and resource.split(":")[2] != ""


def is_date(value: object) -> bool:
    """Tell whether a value is a date that conditions compare: ISO 8601, or seconds since 1970."""
    text = str(value)
    if SECONDS.fullmatch(text):
        return int(text) <= MOST_SECONDS
    found = DATE.fullmatch(text)
    if found is None:
        return False
    return all(
        low <= int(found[name]) <= high
        for name, (low, high) in RANGES.items()
        if found[name] is not None
    )


def plausible_principal(kind: str, name: str) -> bool:
    """Tell whether a principal has the form of its kind."""
    if kind == "AWS":
        account = name.split(":")[4:5] if name.startswith("arn:") else [name]
        return name == "*" or (bool(account) and len(account[0]) == 12 and account[0].isdigit())
    if kind == "Service":
        return name == "*" or name.endswith(
            (".amazonaws.com", ".amazonaws.com.cn", ".aws.internal")
        )
    return bool(name)


def unprintable(text: str) -> bool:
    """Tell whether a text has characters that no answer can carry."""
    return UNPRINTABLE.search(text) is not None
