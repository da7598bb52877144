"""HTTP bytes <-> Call: identify, parse, validate, authorize, handle, serialize."""

from cloche.gateway.asgi import Gateway
from cloche.gateway.message import Response
from cloche.gateway.mounted_apps import Asgi
from cloche.gateway.own_paths import LocalRequest

__all__ = ["Asgi", "Gateway", "LocalRequest", "Response"]
