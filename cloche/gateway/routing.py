"""Which service, protocol and operation a request means."""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl, unquote

from cloche.gateway.message import Request
from cloche.gateway.shapes import Action, Api, api
from cloche.gateway.signature import service_claimed

LABEL = re.compile(r"\{([^}+]+)(\+?)\}")
# Hosts whose first label is a bucket: S3's own, and S3 on this machine.
BUCKET_HOST = re.compile(
    r"^(?P<bucket>.+)\.s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.(?:amazonaws\.com|localhost)$"
)
SERVICE_HOST = re.compile(r"^(?P<first>[a-z0-9-]+)\.(?:[a-z0-9-]+\.)*amazonaws\.com$")
# Services that are signed for under the name of one that is here: a refusal names the right one.
NEIGHBOURS: Mapping[str, tuple[str, ...]] = {
    "sagemaker": (
        *("sagemaker-featurestore-runtime", "sagemaker-metrics", "sagemaker-a2i-runtime"),
        "sagemaker-edge",
    ),
}
CBOR = "smithy-rpc-v2-cbor"
CBOR_PATH = re.compile(r"^/service/(?P<service>[^/]+)/operation/(?P<operation>[^/]+)$")


@dataclass(frozen=True, slots=True)
class OperationRoute:
    """One operation of a REST service, and what a request must have to mean it."""

    action: str
    constants: tuple[tuple[str, str], ...]  # of the query; an empty value matches any
    query: frozenset[str]
    headers: frozenset[str]
    deprecated: bool

    def matches(self, query: Mapping[str, str], headers: Container[str]) -> bool:
        """Return whether a request that fits the path means this operation."""
        return (
            all(k in query and (not v or query[k] == v) for k, v in self.constants)
            and all(name in query for name in self.query)
            and all(name in headers for name in self.headers)
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A method and path with places; its routes, the most demanding first."""

    method: str
    pattern: re.Pattern[str]
    labels: tuple[str, ...]
    routes: tuple[OperationRoute, ...]
    bare: tuple[OperationRoute, ...]  # those that ask nothing of the query
    names: frozenset[str]  # of the query, that any route asks for


class RestRouter:
    """Finds the operation of a REST request."""

    def __init__(self, api: Api) -> None:
        self.templates = templates(api)
        every = [template for these in self.templates.values() for template in these]
        routes = [route for template in every for route in template.routes]
        shared = [
            route for template in every if len(template.routes) > 1 for route in template.routes
        ]
        # Names in the query that choose between the operations of a path; those with a value.
        self.selectors = frozenset(k for route in routes for k, _ in route.constants).union(
            *(route.query for route in shared if not route.constants)
        )
        self.valued = frozenset(k for route in routes for k, v in route.constants if v)

    def lacking(
        self, method: str, path: str, names: Iterable[str], headers: Container[str]
    ) -> str | None:
        """Return the header that an operation lacks whose names are all in the query."""
        for template in self.templates.get(method, ()):
            if template.pattern.match(path):
                for route in template.routes:
                    if route.constants and {k for k, _ in route.constants} <= set(names):
                        return next((h for h in route.headers if h not in headers), None)
        return None

    def methods_of(self, path: str, name: str | None) -> tuple[str, ...]:
        """Return the methods that a path takes with one name in the query (None: with none)."""
        return tuple(
            method
            for method, these in self.templates.items()
            if any(
                {k for k, _ in route.constants} | route.query == ({name} if name else set())
                for template in these
                if template.pattern.match(path)
                for route in template.routes
            )
        )

    def find(
        self, method: str, path: str, query: Mapping[str, str], headers: Container[str]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the operations that a request may mean (deprecated twins last) and the labels."""
        for template in self.templates.get(method, ()):
            match = template.pattern.match(path)
            if match is None:
                continue
            asked = template.names.isdisjoint(query)
            found = [
                r
                for r in (template.bare if asked else template.routes)
                if r.matches(query, headers)
            ]
            if not found:
                continue
            first = found[0]
            same = [r for r in found if (r.constants, r.query) == (first.constants, first.query)]
            same = [r for r in same if r.headers == first.headers]
            same.sort(key=lambda route: route.deprecated)
            values = (unquote(v) for v in match.groups())
            labels = dict(zip(template.labels, values, strict=True))
            return tuple(r.action for r in same), labels
        return (), {}


def templates(api: Api) -> dict[str, tuple[Template, ...]]:
    """Return a service's templates by method, those with most fixed text first."""
    grouped: dict[tuple[str, str], list[OperationRoute]] = {}
    for name in api.operations:
        action = api.action(name)
        assert action is not None
        path, _, _ = action.uri.partition("?")
        shape_of_path = LABEL.sub(r"{\2}", path.rstrip("/") or "/")
        grouped.setdefault((action.method, shape_of_path), []).append(route_of(action))
    found: dict[str, list[tuple[tuple[int, int], Template]]] = {}
    for (method, _), routes in grouped.items():
        action = api.action(routes[0].action)
        assert action is not None
        template, rank = template_of(method, action.uri, routes)
        found.setdefault(method, []).append((rank, template))
    return {
        method: tuple(template for _, template in sorted(these, key=lambda pair: pair[0]))
        for method, these in found.items()
    }


def route_of(action: Action) -> OperationRoute:
    """Return the route of an operation."""
    query, headers = set(), set()
    if action.input is not None:
        for name in action.input.required:
            field = action.input.by_name[name]
            if field.shape.location == "querystring":
                query.add(field.wire)
            elif field.shape.location == "header":
                headers.add(field.wire.lower())
    return OperationRoute(
        action.name,
        tuple(action.constants.items()),
        frozenset(query),
        frozenset(headers),
        action.deprecated,
    )


def template_of(
    method: str, uri: str, routes: Iterable[OperationRoute]
) -> tuple[Template, tuple[int, int]]:
    """Return a template of routes that share a path, and its rank among others."""
    path = uri.partition("?")[0].rstrip("/") or "/"
    pattern, at, labels, greedy = "", 0, [], 0
    for match in LABEL.finditer(path):
        pattern += re.escape(path[at : match.start()])
        pattern += "(.+)" if match.group(2) else "([^/]+)"
        labels.append(match.group(1))
        greedy += bool(match.group(2))
        at = match.end()
    pattern += re.escape(path[at:])
    end = "" if greedy else "/?"
    ordered = sorted(
        routes, key=lambda r: (-len(r.constants), -len(r.query), -len(r.headers), r.action)
    )
    names = {k for r in ordered for k, _ in r.constants} | {k for r in ordered for k in r.query}
    template = Template(
        method,
        re.compile(f"^{pattern}{end}$", re.DOTALL),
        tuple(labels),
        tuple(ordered),
        tuple(r for r in ordered if not r.constants and not r.query),
        frozenset(names),
    )
    # More fixed segments win over labels; labels within a segment over greedy ones.
    return template, (greedy, -len(LABEL.sub("", path)))


@cache
def router_of(service: str) -> RestRouter:
    """Return the router of a service that is not here."""
    return RestRouter(api(service))


def elsewhere(signing_name: str, request: Request) -> tuple[str, str] | None:
    """Return the service that is not here, and its operation, that a REST request is for."""
    for service in NEIGHBOURS.get(signing_name, ()):
        router = router_of(service)
        found, _ = router.find(request.method, request.path, dict(request.query), request.headers)
        if found:
            return service, found[0]
        paths = (template for these in router.templates.values() for template in these)
        if any(template.pattern.match(request.path) for template in paths):
            return service, f"{request.method} {request.path}"
    return None


@dataclass(frozen=True, slots=True)
class Meaning:
    """The service and protocol of a request; `path` has the bucket in front (S3)."""

    service: str
    protocol: str
    path: str


class Directory:
    """Knows the services by everything that a request may name them by."""

    def __init__(self, apis: Mapping[str, Api]) -> None:
        self.apis = apis
        self.by_target = {
            a.target_prefix: name for name, a in apis.items() if a.target_prefix is not None
        }
        self.by_signing: dict[str, list[str]] = {}
        for name, found in apis.items():
            self.by_signing.setdefault(found.signing_name, []).append(name)
        self.by_version = {a.version: name for name, a in apis.items() if "query" in a.protocols}
        self.routers = {
            name: RestRouter(a) for name, a in apis.items() if a.protocols[0].startswith("rest-")
        }

    def meaning(self, request: Request) -> Meaning | str:
        """Return what a request means, or the name of the service it means and we have not."""
        claimed = service_claimed(request)
        target = request.headers.get("x-amz-target")
        if target is not None:
            name = self.by_target.get(target.rpartition(".")[0])
            if name is not None and (claimed is None or claimed == self.apis[name].signing_name):
                return Meaning(name, "json", request.path)
            return claimed or target.partition(".")[0]
        if claimed is None:
            claimed = self.named_by_host(request)
        rpc = CBOR_PATH.match(request.path)
        if rpc is not None and request.headers.get("smithy-protocol") == "rpc-v2-cbor":
            name = self.by_target.get(rpc["service"])
            if name is not None and claimed == self.apis[name].signing_name:
                return Meaning(name, CBOR, request.path)
            return claimed
        candidates = self.by_signing.get(claimed, [])
        for name in candidates:
            protocol = self.protocol(self.apis[name], request)
            if protocol is None:
                continue
            path = bucket_path(request) if name == "s3" else request.path
            return Meaning(name, protocol, path)
        return claimed

    def protocol(self, api: Api, request: Request) -> str | None:
        """Return the protocol in which a request speaks to a service; None: it does not."""
        for protocol in ("rest-xml", "rest-json", "query", "ec2"):
            if protocol in api.protocols:
                if protocol == "rest-json" and request.path == "/":
                    return None
                return protocol
        return "json" if len(self.by_signing.get(api.signing_name, ())) == 1 else None

    def named_by_host(self, request: Request) -> str:
        """Return the signing name that an unsigned request's host or form tells; else s3."""
        host = host_of(request)
        match = SERVICE_HOST.match(host)
        if match is not None and match["first"] in self.by_signing:
            return match["first"]
        form = request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        )
        if form or "Action" in dict(request.query):
            names = dict(parse_qsl(request.body.decode("latin-1"))) | dict(request.query)
            service = self.by_version.get(names.get("Version", ""))
            if service is not None:
                return self.apis[service].signing_name
        return "s3"


def host_of(request: Request) -> str:
    """Return the host that the client named, without port."""
    return request.headers.get("host", "").partition(":")[0].lower()


def bucket_path(request: Request) -> str:
    """Return the path with the bucket in front, where the host names it."""
    match = BUCKET_HOST.match(host_of(request))
    return f"/{match['bucket']}{request.path}" if match is not None else request.path
