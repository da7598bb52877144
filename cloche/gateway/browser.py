"""What a browser must not be talked into: requests that a foreign page sends, answers that run.

A page of any site may have its visitor's browser send simple requests to this machine, may let its
own name lead here (DNS rebinding), and may be an object of S3 that is opened at this address.
"""

import ipaddress
import re
from collections.abc import Collection, MutableMapping

from cloche.core.errors import AwsError
from cloche.gateway.message import Request

HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]+\]|[^\[\]:,/\s]+?)\.?(:\d{1,5})?")
FETCHED_BY_US = ("same-origin", "none")  # `none`: the user typed the address
# Media types that run no script whoever shows them; all others are shown in a sandbox. Browsers
# show a PDF in a viewer apart from the page, which a sandbox would switch off.
PASSIVE_KINDS = ("image", "audio", "video", "font")
PASSIVE = re.compile(
    r"(text/(plain|csv|css|javascript)|binary/octet-stream|application/(json|pdf|octet-stream|cbor"
    r"|zip|gzip|x-gzip|x-tar|x-npy|javascript|x-amz-json-1\.[01]|vnd\.amazon\.eventstream))"
)
MEDIA_TYPE = re.compile(r"\s*([a-z]+)/([a-z0-9.+-]+)\s*(;[^,]*)?", re.IGNORECASE)


def check_place(request: Request, names: Collection[str]) -> None:
    """Raise AccessDenied unless the request is for this machine, and no foreign page sent it.

    The Host must be an IP address, localhost, a name below it, or one of `names`: a name of
    somebody else's may lead here too. An Origin must be this address, with its port.
    """
    host = request.headers.get("host", "").lower()
    match = HOST.fullmatch(host)
    name = match["name"] if match else ""
    if name not in names and not is_local(name):
        text = (
            f"Cloche's own pages are not served under the name {name or host!r}. If it is yours: "
            f"cloche up --host-name NAME"
        )
        raise AwsError("AccessDenied", text, 403)
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise AwsError("AccessDenied", f"The page of {origin!r} may not send this request", 403)
    if request.headers.get("sec-fetch-site", "none") not in FETCHED_BY_US:
        raise AwsError("AccessDenied", "Another site's page may not send this request", 403)


def is_local(name: str) -> bool:
    """Return whether nobody else can let the name lead here: an IP address, localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def guard(headers: MutableMapping[str, str]) -> None:
    """Have a browser take the answer for what it says it is, and run nothing that is in it."""
    headers["x-content-type-options"] = "nosniff"
    if not is_passive(headers.get("content-type", "")):
        headers["content-security-policy"] = "sandbox"


def is_passive(content_type: str) -> bool:
    """Return whether a browser that shows this media type runs no script of it."""
    if not content_type:
        return False
    match = MEDIA_TYPE.fullmatch(content_type)
    if match is None:
        return False  # several, or what browsers and we may read differently
    kind, subtype = match[1].lower(), match[2].lower()
    if kind in PASSIVE_KINDS:
        return not subtype.endswith("xml")
    return PASSIVE.fullmatch(f"{kind}/{subtype}") is not None
