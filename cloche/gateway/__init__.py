"""HTTP bytes <-> Call: identify, authorize, parse, handle, serialize."""

from cloche.gateway.asgi import Asgi, Gateway, LocalRequest
from cloche.gateway.exchange import Authorize
from cloche.gateway.message import Response

__all__ = ["Asgi", "Authorize", "Gateway", "LocalRequest", "Response"]
