"""Flask's application, request and response of a model server."""

import warnings
from collections.abc import Callable
from typing import Any

import flask
from sagemaker_training import content_types

from ._env import ServingEnv


class Response(flask.Response):
    """An answer; JSON unless a type is named."""

    default_mimetype = content_types.JSON

    def __init__(
        self,
        response: Any = None,
        accept: str | None = None,
        status: Any = 200,
        headers: Any = None,
        mimetype: str | None = None,
        direct_passthrough: bool = False,
    ) -> None:
        if accept:
            text = 'ignoring deprecated "accept" argument to Response.__init__'
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        super().__init__(response, status, headers, mimetype, None, direct_passthrough)


class Request(flask.Request):
    """A request, by the names that the toolkit's transformer uses."""

    default_mimetype = content_types.JSON

    def __init__(
        self, environ: dict[str, Any] | None = None, serving_env: ServingEnv | None = None
    ) -> None:
        super().__init__(environ or flask.request.environ)
        self._default_accept = (serving_env or ServingEnv()).default_accept

    @property
    def content_type(self) -> str:
        """The type that the client names; JSON by default."""
        named = self.headers.get("ContentType") or self.headers.get("Content-Type")
        return named or str(content_types.JSON)

    @property
    def accept(self) -> str:
        """The type that the client wants."""
        accept = self.headers.get("Accept")
        return self._default_accept if not accept or accept == content_types.ANY else accept

    @property
    def content(self) -> str | bytes:
        """The body: text where its type is a text."""
        return self.get_data(as_text=self.content_type in content_types.UTF8_TYPES)


def default_healthcheck_fn() -> Response:
    """Answer a ping."""
    return Response(status=200)


class Worker(flask.Flask):
    """An application that answers /ping and /invocations."""

    request_class = Request

    def __init__(
        self,
        transform_fn: Callable[..., Any],
        initialize_fn: Callable[[], None] | None = None,
        module_name: str | None = None,
        healthcheck_fn: Callable[..., Any] | None = None,
        execution_parameters_fn: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(module_name or ServingEnv().module_name)
        self._initialize_fn = initialize_fn
        self.before_request(self._initialize)
        self.add_url_rule("/invocations", "invocations", transform_fn, methods=["POST"])
        self.add_url_rule("/ping", "ping", healthcheck_fn or default_healthcheck_fn)
        if execution_parameters_fn:
            rule = "/execution-parameters"
            self.add_url_rule(rule, rule[1:], execution_parameters_fn, methods=["GET"])

    def _initialize(self) -> None:
        wanted, self._initialize_fn = self._initialize_fn, None
        if wanted is not None:
            wanted()
