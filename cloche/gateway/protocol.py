"""What every wire protocol offers the gateway: three pure functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.message import Request, Response
from cloche.gateway.shapes import Action, Api


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's result on its way out."""

    result: Mapping[str, Any]
    status: int | None
    headers: Mapping[str, str]
    request_id: str


Parse = Callable[[Action, Request, Mapping[str, str]], dict[str, Any]]
Serialize = Callable[[Api, Action, Answer], Response]
Refuse = Callable[[Api, AwsError, str], Response]


@dataclass(frozen=True, slots=True)
class Protocol:
    """parse: a request (and the labels of its path) -> parameters, AwsError when malformed;
    serialize: an answer -> response; refuse: an error and the request id -> response.
    """

    parse: Parse
    serialize: Serialize
    refuse: Refuse


def status_of(api: Api, error: AwsError) -> int:
    """Return the HTTP status of an error: the model's, unless the handler chose another."""
    fault = api.fault(error.code)
    if error.status == 400 and fault is not None and fault.status is not None:
        return fault.status
    return error.status
