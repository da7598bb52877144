"""What a service operation is: a function with the same signature as the boto3 method."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ServiceModel, StructureShape

from cloche.core.authorization import NOTHING, Actor, Context, Decision
from cloche.core.errors import AwsError
from cloche.core.executors import Executor
from cloche.core.identity import Principal
from cloche.loop import Loop
from cloche.records.store import Store

S = TypeVar("S", covariant=True)


class Body(Protocol):
    """A request's payload as it arrives: decoded from `aws-chunked`, signatures checked.

    `length` is the decoded length where the client said it; `trailers` (lower-cased names) are
    complete only after the last chunk was read. Reading raises AwsError when a chunk's signature
    or the payload's SHA-256 is wrong.
    """

    length: int | None
    trailers: Mapping[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@runtime_checkable
class FormFile(Body, Protocol):
    """The file of a form: its length is known only when it ends, since the form goes on behind it.

    Its end is marked, so that nobody needs to say the length before.
    """

    ends_marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """The request beneath a call, for the few operations that need it (S3's headers, URLs)."""

    method: str
    path: str  # percent-encoded, as sent
    query: tuple[tuple[str, str], ...]  # decoded, in the order sent
    headers: Mapping[str, str]  # names in lower case
    body: Body
    scheme: str = "http"

    @property
    def base_url(self) -> str:
        """The address that the client used."""
        return f"{self.scheme}://{self.headers.get('host', '')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[S]):
    """One authenticated API call: who asks, where and when, and the service that answers."""

    operation: str  # "DescribeEndpoint"
    account: str
    region: str
    actor: Actor
    now: datetime
    request_id: str
    service: S  # the service's own object: store, engine, neighbours
    store: Store
    http: Http
    gang: str | None = None  # the job or replica that calls from inside its sandbox

    @property
    def principal(self) -> Principal:
        """The caller."""
        return self.actor.principal

    def authorize(self, action: str, resource: str, context: Context = NOTHING) -> Decision:
        """Return what allows the caller to do one thing more; AccessDenied when nothing does.

        For what the operation's `permissions` can't say, since only the handler finds it out.
        """
        return self.actor.authorize(action, resource, context)


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A response payload that lies in a file: `length` bytes from `offset`.

    The handler opened `fd`, so that the bytes stay readable when the name goes; the gateway
    closes it.
    """

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A handler's answer where the HTTP status or a header depends on the case (206, 304)."""

    result: Mapping[str, Any]
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Result = Mapping[str, Any] | Reply | None
Handler = Callable[..., Result | Awaitable[Result]]


Asked = tuple[str, str, Context]  # action, resource, condition keys


class Needed(Protocol):
    """What is asked before an operation runs (`permissions.Permission`)."""

    def asked(self, call: Call[Any], parameters: Mapping[str, Any]) -> Iterable[Asked]:
        """Yield what is asked of a call with these parameters."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler, what IAM is asked about before it runs, and the parameters it takes."""

    handler: Handler
    permissions: tuple[Needed, ...]
    parameters: frozenset[str] = frozenset()
    on: Executor | None = None  # where the handler runs; None: on the event loop
    further: tuple[Needed, ...] = ()  # what the handler asks itself

    def authorize(self, call: Call[Any], parameters: Mapping[str, Any]) -> None:
        """Ask all that is needed; AccessDenied at the first that is not allowed."""
        for needed in self.permissions:
            for action, resource, context in needed.asked(call, parameters):
                call.authorize(action, resource, context)


def operation(
    *,
    permissions: Iterable[Needed],
    further: Iterable[Needed] = (),
    on: Executor | None = None,
) -> Callable[[Handler], Handler]:
    """Mark a function as an API operation that these permissions are needed for, all of them.

    `further` are those that the handler asks by itself (`Permission.authorize`).

    The function takes `call` and, by keyword only, the parameters it supports under the names
    that botocore's model gives them. A parameter that the API has and the function has not is
    refused by the gateway, by name. It may be `async`; one that isn't, and reads more than a few
    rows or a small file, runs `on` the threads for that.
    """

    def mark(handler: Handler) -> Handler:
        if on is not None and inspect.iscoroutinefunction(handler):
            raise TypeError(f"{handler.__name__} is async: it runs on the event loop")
        made = Operation(handler, tuple(permissions), on=on, further=tuple(further))
        handler.__operation__ = made  # type: ignore[attr-defined]
        return handler

    return mark


def refuse(_call: Call[Any], _parameters: Mapping[str, Any], refused: AwsError) -> AwsError:
    """Return a refusal as it is: whether there is what was asked for is not told."""
    return refused


@dataclass(frozen=True, slots=True)
class Service:
    """One AWS service: its botocore name, its operations, its loops, its object for handlers.

    refuse: returns what a caller hears who may not do what it asked for.
    admit: raises what the service answers a caller that it takes no such call of, whatever policies
    say.
    """

    name: str
    operations: Mapping[str, Operation]
    api: Any
    loops: tuple[Loop, ...] = ()
    refuse: Callable[[Call[Any], Mapping[str, Any], AwsError], AwsError] = refuse
    admit: Callable[[Call[Any]], None] | None = None


LOADER = Loader()  # keeps what it has read: SageMaker's model alone takes 0.1 s


@cache
def service_model(name: str) -> ServiceModel:
    """Return botocore's model of a service by its botocore name."""
    return ServiceModel(LOADER.load_service_model(name, "service-2"), name)


def collect(model: ServiceModel, *modules: ModuleType) -> dict[str, Operation]:
    """Map operation names to handlers, refusing any that do not fit the botocore model."""
    names = {xform_name(name): name for name in model.operation_names}
    found: dict[str, Operation] = {}
    for module in modules:
        for function in vars(module).values():
            mark = getattr(function, "__operation__", None)
            if mark is None or function.__module__ != module.__name__:
                continue
            if function.__name__ not in names:
                raise TypeError(f"{model.service_name} has no operation {function.__name__!r}")
            name = names[function.__name__]
            shape = model.operation_model(name).input_shape
            parameters = check_signature(shape, function)
            found[name] = replace(mark, parameters=parameters)
    return found


def check_signature(shape: StructureShape | None, function: Handler) -> frozenset[str]:
    """Return the parameters that `function` takes; TypeError when the API has them not."""
    members = shape.members if shape else {}
    required = shape.required_members if shape else []
    signature = inspect.signature(function)
    taken = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    for parameter in taken:
        name = parameter.name
        if name not in members:
            raise TypeError(
                f"{function.__name__}: the API has no parameter {name!r}; it has {sorted(members)}"
            )
        if parameter.default is parameter.empty and name not in required:
            raise TypeError(f"{function.__name__}: {name} is optional in the API: give a default")
    missing = set(required) - {p.name for p in taken}
    if missing:
        raise TypeError(f"{function.__name__} lacks the required {sorted(missing)}")
    return frozenset(p.name for p in taken)
