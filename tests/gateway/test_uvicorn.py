"""uvicorn's insides that the gateway uses: what another release may change without saying so.

It is pinned to one minor version. A newer one is taken when these tests hold with it, and those
of this folder that speak to the listener by real clients.
"""

import ast
from importlib.metadata import requires, version
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn
from packaging.requirements import Requirement
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from cloche.gateway import listener, mounted_apps

# Of a connection: what it holds, and what uvicorn calls or we call.
HELD = {
    *("app_state", "config", "cycle", "headers", "logger", "loop", "parser"),
    *("timeout_keep_alive_task", "transport", "url", "ws_protocol_class"),
}
CALLED = {
    *("_should_upgrade", "connection_lost", "connection_made", "data_received"),
    *("handle_websocket_upgrade", "on_body", "on_header", "on_headers_complete"),
    *("on_message_begin", "on_message_complete", "on_response_complete", "send_400_response"),
}
OWN = {"allowed", "crowd", "deadline", "heading", "mounts", "overhead", "refused", "socket"}
LIFESPAN = {"should_exit", "shutdown", "startup", "startup_event", "state"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


def attributes(module: ModuleType, inside: str, of: str) -> set[str]:
    """Return the attributes that a class, or all of a module, takes from what is named `of`."""
    tree: ast.AST = ast.parse(Path(str(module.__file__)).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == inside:
            tree = node
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == of
    }


def test_the_release_is_the_one_that_was_looked_at() -> None:
    asked = [Requirement(line) for line in requires("cloche") or ()]
    (pin,) = (one.specifier for one in asked if one.name == "uvicorn")
    major, minor, *_ = map(int, version("uvicorn").split("."))
    allowed = [pin.contains(f"{major}.{minor + step}.0") for step in (-1, 0, 1)]
    assert allowed == [False, True, False]


def test_what_is_used_is_listed() -> None:
    """A new use of an inside is added to the lists, or this fails."""
    ours = {name for name in vars(listener.HttpConnection) if name not in CALLED}
    assert attributes(listener, "HttpConnection", "self") - ours == HELD | OWN
    overridden = vars(listener.HttpConnection).keys() & vars(HttpToolsProtocol).keys()
    assert {name for name in overridden if not name.startswith("__")} == CALLED
    assert attributes(mounted_apps, "", "lifespan") == LIFESPAN


async def test_each_is_there() -> None:
    config, state = uvicorn.Config(app, log_config=None), ServerState()
    connection = HttpToolsProtocol(config=config, server_state=state, app_state={})
    connection.on_message_begin()
    assert vars(connection).keys() >= HELD and vars(HttpToolsProtocol).keys() >= CALLED
    assert not vars(connection).keys() & OWN  # none of ours is one of uvicorn's
    assert vars(state).keys() >= {"connections", "default_headers", "tasks"}
    assert {*vars(LifespanOn(config)), *vars(LifespanOn)} >= LIFESPAN
    websocket = WebSocketsSansIOProtocol(config=config, server_state=state, app_state={})
    assert vars(websocket).keys() >= {"handshake_initiated", "transport"}
    assert callable(WebSocketsSansIOProtocol.shutdown)
