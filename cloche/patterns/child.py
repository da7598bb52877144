"""The parent's side of `worker`: a process that is started when it is needed, and again."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

WORKER = Path(__file__).with_name("worker.py")
SLOWER = 20.0  # times of the processor's time that a busy machine may need
START_S = 20.0
LARGEST_ANSWER = 64 << 20


class Exceeded(Exception):
    """A pattern used more than it may: time, or memory."""


class Child:
    """One worker. Not for several threads at once; blocks: call it from a thread."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any], cpu_s: float) -> dict[str, Any]:
        """Return the worker's answer; Exceeded when the request took longer than `cpu_s`."""
        line = json.dumps({**request, "cpu_s": cpu_s}).encode() + b"\n"
        until = time.monotonic() + START_S + SLOWER * cpu_s
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            said = converse(process.stdin, process.stdout, line, until)
        except BaseException:
            self.close()
            raise
        if not said.endswith(b"\n"):
            code = self._ended()
            if code == -signal.SIGPROF:
                raise Exceeded(f"took longer than {cpu_s:.1f} s")
            raise Exceeded(f"ended its worker ({code})")
        answer: dict[str, Any] = json.loads(said)
        if answer.get("memory"):
            self.close()
            raise Exceeded("took too much memory")
        return answer

    def close(self) -> None:
        """End the worker, if there is one; the next request starts another."""
        if self.process is not None:
            self.process.kill()
            self._ended()

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ},
                bufsize=0,
            )
        return self.process

    def _ended(self) -> int:
        process, self.process = self.process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return process.wait()


def converse(requests: IO[bytes], answers: IO[bytes], line: bytes, until: float) -> bytes:
    """Send a line and return the answer's, cut short where the worker ended; Exceeded."""
    os.set_blocking(requests.fileno(), False)
    said, rest = bytearray(), memoryview(line)
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_WRITE)
        ready.register(answers, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise Exceeded("took too long")
            for key, _ in ready.select(left_s):
                if key.fileobj is requests:
                    try:
                        rest = rest[os.write(requests.fileno(), rest) :]
                    except BrokenPipeError:
                        rest = rest[len(rest) :]
                    if not rest:
                        ready.unregister(requests)
                    continue
                data = os.read(answers.fileno(), 1 << 20)
                if not data:
                    return bytes(said)
                said += data
                if len(said) > LARGEST_ANSWER:
                    raise Exceeded("found too much")
    return bytes(said)
