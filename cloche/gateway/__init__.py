"""HTTP bytes <-> Call: identify, authorize, parse, handle, serialize."""

from cloche.gateway.asgi import Asgi, Gateway
from cloche.gateway.exchange import Authorize
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest

__all__ = ["Asgi", "Authorize", "Gateway", "LocalRequest", "Response"]
