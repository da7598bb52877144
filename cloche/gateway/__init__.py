"""HTTP bytes <-> Call: identify, authorize, parse, handle, serialize."""

from cloche.gateway.asgi import Asgi, Authorize, Gateway, LocalRequest
from cloche.gateway.message import Response

__all__ = ["Asgi", "Authorize", "Gateway", "LocalRequest", "Response"]
