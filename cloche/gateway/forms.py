"""Whether a request to S3 has the form of one operation, whole.

S3 tells its operations apart by names in the query (`?uploadId`, `?tagging`), most of them of
operations that Cloche has not. A name that the operation of the path has no use for means another
operation: PutObject must not be what is left of an UploadPart without its number. The texts are
S3's, as its answers to such requests show them.
"""

from collections.abc import Iterable
from functools import cache

from cloche.core.errors import AwsError
from cloche.gateway.message import Request
from cloche.gateway.routing import RestRouter
from cloche.gateway.shapes import Action

# What S3 signs among its sub-resources, and the model has no operation for.
UNMODELLED = frozenset(("defaultObjectAcl", "storageClass"))
BUCKET = "/bucket"  # any bucket's path
COPY = "x-amz-copy-source"  # and what begins so: only copies have a source


def check_form(router: RestRouter, action: Action, request: Request, path: str) -> None:
    """Raise when the request names what its operation has no use for."""
    if request.query:
        names = {name for name, _ in request.query}
        others = names & (selectors_of(router) | {"versionId"}) - query_of(action)
        if others:
            raise misfit(router, names, others, request, path)
    for name in request.headers:
        if name.startswith(COPY) and name not in headers_of(action):
            text = "A header you provided implies functionality that is not implemented"
            raise AwsError("NotImplemented", text, 501, fields={"Header": name})


def check_copy(request: Request) -> None:
    """Raise when a request brings content, as PutObject does, and names a source."""
    if request.body and COPY in request.headers:
        raise AwsError("InvalidRequest", "The request body must be empty for a copy.")


def misfit(
    router: RestRouter, names: Iterable[str], others: set[str], request: Request, path: str
) -> AwsError:
    """Return S3's refusal of names in the query that mean another operation."""
    method, selectors = request.method, sorted(selectors_of(router) & set(names))
    if others == {"versionId"}:
        version = dict(request.query)["versionId"]
        return argument("This operation does not accept a version-id.", "versionId", version)
    if len(selectors) > 1:
        text = f"Conflicting query string parameters: {', '.join(selectors)}"
        return argument(text, "ResourceType", selectors[0])
    (name,) = selectors
    if name == "partNumber":
        text = "This operation does not accept partNumber without uploadId"
        return argument(text, name, name)
    if name in router.valued:
        value = dict(request.query)[name]
        return argument(f"Invalid value for {name}", name, value)
    if needed := router.lacking(method, path, names, request.headers):
        return AwsError("InvalidRequest", f"Missing required header for this request: {needed}")
    if not bare(path) and method in router.methods_of(BUCKET, name):
        return AwsError(
            "InvalidRequest",
            "There is no such thing as the ?versions sub-resource for a key"
            if name == "versions"
            else f"Key is not expected for the {method} method ?{name} subresource",
        )
    kind = "UPLOAD" if name == "uploadId" else name.upper()
    return not_allowed(method, kind, router.methods_of(path, name))


def unknown(router: RestRouter, request: Request, path: str) -> AwsError:
    """Return S3's refusal of a method that a path has no operation for."""
    names = {name for name, _ in request.query}
    if others := names & selectors_of(router):
        return misfit(router, names, others, request, path)
    kind = "SERVICE" if path == "/" else "BUCKET" if bare(path) else "OBJECT"
    return not_allowed(request.method, kind, router.methods_of(path, None))


def selectors_of(router: RestRouter) -> frozenset[str]:
    """Return the names in the query that choose between S3's operations."""
    return router.selectors | UNMODELLED


def bare(path: str) -> bool:
    """Return whether a path names no key."""
    return "/" not in path.strip("/")


def not_allowed(method: str, kind: str, allowed: Iterable[str]) -> AwsError:
    """Return the refusal of a method, with those that would do."""
    return AwsError(
        "MethodNotAllowed",
        "The specified method is not allowed against this resource.",
        405,
        fields={"Method": method, "ResourceType": kind},
        headers={"allow": ", ".join(allowed)} if allowed else {},
    )


def argument(text: str, name: str, value: str) -> AwsError:
    """Return the refusal of an argument."""
    return AwsError("InvalidArgument", text, fields={"ArgumentName": name, "ArgumentValue": value})


@cache
def query_of(action: Action) -> frozenset[str]:
    """Return the names in the query that an operation has a use for."""
    return frozenset(action.constants) | wires(action, "querystring")


@cache
def headers_of(action: Action) -> frozenset[str]:
    """Return the headers that an operation has a use for, in lower case."""
    return frozenset(name.lower() for name in wires(action, "header"))


def wires(action: Action, location: str) -> frozenset[str]:
    """Return the names of an operation's parameters in one place of the request."""
    fields = action.input.fields if action.input is not None else ()
    return frozenset(field.wire for field in fields if field.shape.location == location)
