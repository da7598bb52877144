"""A ledger outside the platform: what jobs say that they did, kept while servers come and go."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.0.0.2"


class Ledger:
    """Hears of each job by HTTP: `/JOB/EVENT/RUN`, where RUN is drawn anew by each run."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], set[str]] = defaultdict(set)
        entries = self.entries

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, job, event, run = self.path.split("/")
                entries[job, event].add(run)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((ADDRESS, 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.server_port

    def runs(self, job: str, event: str) -> set[str]:
        """Return which runs of a job have told of the event."""
        return self.entries.get((job, event), set())

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
