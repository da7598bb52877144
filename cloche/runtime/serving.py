"""The model server of one replica: `GET /ping` and `POST /invocations` on a socket given to it.

User code runs in the main thread, one request at a time; a second thread speaks HTTP, so that
pings are answered while a prediction runs. Prints and tracebacks go to the replica's log. SIGTERM
finishes what was accepted, then ends. When the model can't be loaded, the traceback is left in a
file for the platform and the process ends with 1.

Environment: CLOCHE_SOCKET_FD (the descriptor of the socket), CLOCHE_FAILURE (where the traceback
is left), SAGEMAKER_MODEL_SERVER_TIMEOUT (seconds for one prediction, 60 by default: then the
process ends and is replaced, as AWS's model servers do with their workers), and what
`serving_handlers` reads.
"""

import asyncio
import json
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cloche.runtime import serving_handlers as handlers
from cloche.runtime import serving_toolkits as toolkits
from cloche.runtime.missing_modules import advice_for
from cloche.runtime.user_trace import summary, user_trace

MAX_HEAD = 65_536  # bytes of a request's first line and headers
UNRESPONSIVE = 70  # exit code when a prediction took too long
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    phrase: str = ""

    def encode(self, keep_alive: bool) -> bytes:
        """Return the response as it goes over the wire."""
        phrase = self.phrase or REASONS.get(self.status, "Status")
        lines = [
            f"HTTP/1.1 {self.status} {one_line(phrase)}",
            f"Content-Length: {len(self.body)}",
            *(
                f"{one_line(name)}: {one_line(value)}"
                for name, value in (("Content-Type", self.content_type), *self.headers)
            ),
        ]
        if not keep_alive:
            lines.append("Connection: close")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Work:
    """A request that waits for the main thread."""

    headers: Mapping[str, str]  # named as they were sent
    body: bytes
    done: "asyncio.Future[Answer]"


def one_line(value: str) -> str:
    """Return a header's value without line breaks: user code sets it."""
    return str(value).replace("\r", " ").replace("\n", " ")


def error(status: int, kind: str, message: str) -> Answer:
    """Return an error as AWS's model servers word them."""
    document = {"code": status, "type": kind, "message": message}
    return Answer(status, json.dumps(document, indent=2).encode())


class Server:
    """The HTTP side: runs in its own thread, hands invocations to the main thread's queue."""

    def __init__(self, given: socket.socket, timeout_s: float) -> None:
        self.socket, self.timeout_s = given, timeout_s
        self.work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.ready = False
        self.draining = False
        self.open = 0  # responses that are not written yet
        self.loop = asyncio.new_event_loop()
        self.listening = threading.Event()
        self.stopped, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self.thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Listen; returns once the socket answers."""
        self.thread.start()
        self.listening.wait()

    def stop(self) -> None:
        """Write what is answered, then close."""
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connection, sock=self.socket, limit=MAX_HEAD)
        self.listening.set()
        await self.stopped.wait()
        server.close()
        await self.idle.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.open += 1
                self.idle.clear()
                try:
                    answer, keep_alive = await self._request(head, reader)
                    writer.write(answer.encode(keep_alive))
                    await writer.drain()
                finally:
                    self.open -= 1
                    if not self.open:
                        self.idle.set()
                if not keep_alive:
                    return
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return  # the client went, or speaks no HTTP
        finally:
            writer.close()

    async def _request(self, head: bytes, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        """Return the answer to one request and whether the connection goes on."""
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3:
            return error(400, "BadRequestException", f"not HTTP: {first!r}"), False
        sent = {}
        for line in lines:
            name, _, value = line.partition(":")
            sent[name.strip()] = value.strip()
        headers = {name.lower(): value for name, value in sent.items()}
        keep_alive = headers.get("connection", "").lower() != "close"
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit():
            return error(411, "BadRequestException", "Content-Length is required"), False
        body = await reader.readexactly(int(length))
        method, path = parts[0], parts[1].split("?", 1)[0]
        if path == "/ping":
            return self._ping(), keep_alive
        if path != "/invocations":
            return error(404, "ResourceNotFoundException", f"no such path: {path}"), keep_alive
        if method != "POST":
            return error(405, "MethodNotAllowedException", "POST is required"), keep_alive
        if self.draining or not self.ready:
            return error(503, "ServiceUnavailableException", "the server is not ready"), False
        return await self._invoke(sent, body), keep_alive

    def _ping(self) -> Answer:
        if self.draining or not self.ready:
            state = "draining" if self.draining else "loading"
            return Answer(503, json.dumps({"status": state}).encode())
        return Answer(200, b'{"status": "Healthy"}')

    async def _invoke(self, headers: Mapping[str, str], body: bytes) -> Answer:
        done: asyncio.Future[Answer] = self.loop.create_future()
        self.work.put(Work(headers, body, done))
        try:
            return await asyncio.wait_for(done, self.timeout_s)
        except TimeoutError:
            print(f"Worker unresponsive for {self.timeout_s:g} s: it ends and is replaced")
            sys.stdout.flush()
            os._exit(UNRESPONSIVE)  # the main thread is stuck in user code: nothing else ends it


def serve(server: Server, model: handlers.Model) -> None:
    """Answer invocations in this thread until SIGTERM; what was accepted before is finished."""
    while (work := server.work.get()) is not None:
        answer = invoke(model, work)
        server.loop.call_soon_threadsafe(finish, work.done, answer)


def invoke(model: handlers.Model, work: Work) -> Answer:
    """Return user code's answer, or its exception as AWS's toolkit words it: message, traceback."""
    try:
        made = model.answer(work.headers, work.body)
    except Exception as failure:
        trace = user_trace(failure)
        report(trace)
        if (asked := toolkits.refusal_of(failure)) is not None:
            text = f"{asked.message}\n{trace}".encode()
            return Answer(asked.status, text, "text/plain", phrase=asked.phrase)
        return Answer(500, f"{failure}\n{trace}".encode(), "text/plain")
    return Answer(made.status, made.body, made.content_type, made.headers, made.phrase)


def report(trace: str) -> None:
    """Put a traceback into the log, and what to do about a module that is missing."""
    print(trace, file=sys.stderr, flush=True)
    if advice := advice_for(trace, sys.path):
        print(advice, file=sys.stderr, flush=True)


def finish(done: "asyncio.Future[Answer]", answer: Answer) -> None:
    """Hand an answer over to its connection, unless that went."""
    if not done.done():
        done.set_result(answer)


def main(environment: Mapping[str, str]) -> int:
    """Load the model and serve it; return the exit code."""
    timeout = environment.get("SAGEMAKER_MODEL_SERVER_TIMEOUT", "60")
    given = socket.socket(fileno=int(environment["CLOCHE_SOCKET_FD"]))
    given.set_inheritable(False)  # who connects shall find this process, none that it started
    server = Server(given, float(timeout))

    def drain(_signal: int, _frame: FrameType | None) -> None:
        if not server.ready:
            os._exit(0)
        server.draining = True
        server.work.put(None)

    signal.signal(signal.SIGTERM, drain)
    server.start()
    if environment.get("SAGEMAKER_MODEL_SERVER_WORKERS", "1") != "1":
        print("SAGEMAKER_MODEL_SERVER_WORKERS is not used: an instance is one worker")
    settings = handlers.Settings.read(environment)
    try:
        handlers.install_requirements(settings)
        model = handlers.load(settings)
    except BaseException as failure:
        trace = user_trace(failure)
        report(trace)
        if path := environment.get("CLOCHE_FAILURE"):
            Path(path).write_text(f"{trace}\n{summary(failure, settings.code)}\n")
        return 1
    print("Model server is ready", flush=True)
    server.ready = True
    serve(server, model)
    server.stop()
    return 0


if __name__ == "__main__":
    code = main(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of user code must not keep a drained replica alive
