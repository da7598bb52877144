"""A small real application, mounted in a gateway that listens as the platform does."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from fake_services import ACCOUNT, Keys
from recorder import Anything
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.responses import Response as Answer
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from cloche.core.clock import SystemClock
from cloche.core.config import Config, Home
from cloche.core.held import bind
from cloche.gateway.asgi import Gateway
from cloche.gateway.crowd import Crowd
from cloche.gateway.listener import Listener
from cloche.records.store import Store

PREFIX = "/_cloche/app"


@dataclass
class App:
    """What the application saw, and what it waits for."""

    events: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[dict[str, str]]:
        self.events.append("started")
        yield {"word": "kept since the start"}
        self.events.append("ended")

    async def where(self, request: Request) -> Answer:
        return JSONResponse(
            {
                "root_path": request.scope["root_path"],
                "path": request.scope["path"],
                "query": request.url.query,
                "url": str(request.url_for("item", name="a")),
                "word": request.state.word,
            }
        )

    async def item(self, request: Request) -> Answer:
        return PlainTextResponse(request.path_params["name"])

    async def echo(self, request: Request) -> Answer:
        pieces = [piece async for piece in request.stream()]
        return Answer(b"".join(pieces), media_type="application/octet-stream")

    async def slow(self, request: Request) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await self.go_on.wait()
            yield b"second"

        return StreamingResponse(pieces(), media_type="text/plain")

    async def release(self, request: Request) -> Answer:
        self.go_on.set()
        return PlainTextResponse("released")

    async def page(self, request: Request) -> Answer:
        own = (
            {"content-security-policy": "default-src 'self'"} if "own" in request.url.query else {}
        )
        return HTMLResponse("<script>alert(1)</script>", headers=own)

    async def refuses(self, request: Request) -> Answer:
        return PlainTextResponse("No.", 403)

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=next(iter(websocket.scope["subprotocols"]), None))
        try:
            while True:
                event = await websocket.receive()
                if event["type"] == "websocket.disconnect":
                    self.events.append(f"closed {event['code']}")
                    return
                if (text := event.get("text")) is not None:
                    await websocket.send_text(f"{websocket.scope['root_path']} {text}")
                else:
                    await websocket.send_bytes(event["bytes"][::-1])
        except WebSocketDisconnect as end:
            self.events.append(f"closed {end.code}")

    async def closed(self, websocket: WebSocket) -> None:
        await websocket.close()

    def build(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/where", self.where),
                Route("/items/{name}", self.item, name="item"),
                Route("/echo", self.echo, methods=["PUT"]),
                Route("/slow", self.slow),
                Route("/release", self.release),
                Route("/page", self.page),
                Route("/refuses", self.refuses, methods=["PUT"]),
                WebSocketRoute("/socket", self.socket),
                WebSocketRoute("/closed", self.closed),
            ],
            lifespan=self.lifespan,
        )


@dataclass
class Mounted:
    """A gateway that listens, with the application at PREFIX."""

    app: App
    gateway: Gateway
    listener: Listener
    loop: asyncio.AbstractEventLoop
    port: int
    door: int  # a gang's

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{PREFIX}{path}"

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


@contextmanager
def mounted(folder: Path, listening: socket.socket | None = None) -> Iterator[Mounted]:
    """Serve until the block ends, on that socket or on a new one."""
    clock = SystemClock()
    store = Store.open(folder / "cloche.db", clock)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    sockets = [listening or bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    ports = [one.getsockname()[1] for one in sockets]

    async def begin() -> tuple[App, Gateway, Listener, Listener]:
        app = App()
        config = Config(home=Home(folder), port=ports[0], account=ACCOUNT)
        gateway = Gateway(
            {}, Keys(), store=store, clock=clock, config=config, authorizer=Anything()
        )
        gateway.mounts.add(PREFIX, app.build())
        await gateway.mounts.start()
        listener = Listener(gateway, Crowd(), gateway.mounts)
        await listener.listen(sockets[0])
        door = Listener(gateway.for_gang("gang"))
        await door.listen(sockets[1])
        return app, gateway, listener, door

    app, gateway, listener, door = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    served = Mounted(app, gateway, listener, loop, *ports)
    try:
        yield served
    finally:
        served.call(door.close())
        served.call(listener.close())
        served.call(gateway.mounts.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
        store.close()
