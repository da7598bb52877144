"""HTTP bytes <-> Call: identify, parse, validate, authorize, handle, serialize."""

from cloche.gateway.asgi import Asgi, Gateway
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest

__all__ = ["Asgi", "Gateway", "LocalRequest", "Response"]
