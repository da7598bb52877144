"""A supervisor from the start of its interpreter until it answers for its gang."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cloche.engine.local.runs import START_WITHIN_S

INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters need it to start
FOLDER = Path(__file__).resolve().parent
SUPERVISOR = (
    "import sys; sys.path[:0] = [sys.argv.pop(1)]; from supervisor.main import main; main()"
)


class Supervising:
    """A supervisor that starts, and waits for the word that its plan is written.

    Without the word, also when this process is killed, it ends and has touched nothing.
    """

    def __init__(self, folder: Path, lock: int, sockets: Mapping[str, int]) -> None:
        """sockets: descriptors by the arguments that tell what they are."""
        self.report, told = os.pipe()
        try:
            arguments = [str(FOLDER), str(folder), str(lock), str(told), *sockets]
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SUPERVISOR, *arguments],
                pass_fds=(lock, told, *sockets.values()),
                stdin=subprocess.PIPE,
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
            )
        except BaseException:
            os.close(self.report)
            raise
        finally:
            os.close(told)

    def __enter__(self) -> "Supervising":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.report)
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(START_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def go(self) -> str:
        """Let it start the gang; return its answer: "ok", or why the gang does not run."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"g")
            self.process.stdin.close()
        except BrokenPipeError:  # it has died
            return ""
        with os.fdopen(self.report, "rb", closefd=False) as answers:
            return answers.read().decode()
