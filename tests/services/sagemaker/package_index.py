"""A package index on this machine, which tells how often it was asked."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cloche.testing.wheel import write_wheel

HOST = "127.0.0.2"  # not in NO_PROXY: pip goes through the platform's proxy


class Index:
    """A package index with one wheel; it answers when `open` is set."""

    def __init__(self, folder: Path) -> None:
        wheel = write_wheel(folder, "clochetestwheel", "1.0", "VALUE = 42\n")
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                index.open.wait(60)
                page = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
                body = wheel.read_bytes() if self.path.startswith("/files/") else page
                known = self.path.startswith(("/files/", "/simple/clochetestwheel/"))
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def settings(self) -> dict[str, str]:
        url = f"http://{HOST}:{self.server.server_port}/simple/"
        return {"PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": HOST, "PIP_RETRIES": "0"}

    @property
    def downloads(self) -> int:
        return sum(path.startswith("/files/") for path in self.asked)
