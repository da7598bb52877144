"""What a sandbox and a supervisor cost: start, output, look-ups, each beside the bare process."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.harness import compare, interleave, title
from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.local.engine import LocalEngine

PYTHON = f"{sys.prefix}/bin/python" if sys.prefix != sys.base_prefix else sys.executable
SHELL = ("/bin/sh", "-c", "echo hello")
BARE_PYTHON = (PYTHON, "-c", "print('hello')")
TORCH = (PYTHON, "-c", "import torch; print('hello')")
LINES = 500_000
TALK = ("/bin/sh", "-c", f"seq {LINES}")
ROUNDS = 9


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as folder:
        lab = Bench(Path(folder))
        print(lab.engine.isolation)
        for what, argv, rounds in (
            ("sh", SHELL, ROUNDS),
            ("python", BARE_PYTHON, ROUNDS),
            ("python, import torch", TORCH, 5),
        ):
            subjects = {"bare Popen": bare(argv), "launched": lab.first_line(argv)}
            runs = interleave(rounds, subjects)
            compare(f"First line of {what}", "s", runs, against="bare Popen")
        subjects = {"to a pipe": bare(TALK, whole=True), "to its log": lab.to_the_end(TALK)}
        runs = interleave(5, subjects)
        compare(f"{LINES} short lines, start to end", "s", runs, against="to a pipe")
        lab.looks()


def bare(argv: tuple[str, ...], *, whole: bool = False) -> Callable[[], float]:
    """Return a measurement of the plain process: seconds to its first line, or to its end."""

    def run() -> float:
        start = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if whole:
                process.stdout.read()
            else:
                process.stdout.readline()
            return time.perf_counter() - start

    return run


class Bench:
    """An engine, and gangs of one process in the interpreter's own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = LocalEngine(folder / "runs")
        self.numbers = count()
        prefixes = dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix)))
        self.mounts = tuple(
            Mount(self.engine.stage(path), str(path), "overlay") for path in prefixes
        )

    def launch(self, argv: tuple[str, ...], hosts: int = 1) -> tuple[str, Path]:
        """Launch a gang of hosts; return its name and the first one's log."""
        name = f"gang-{next(self.numbers)}"
        processes = tuple(
            ProcessSpec(
                name=f"algo-{host}",
                argv=argv,
                mounts=self.mounts,
                log=self.engine.stage(self.folder / f"{name}-{host}.log"),
            )
            for host in range(hosts)
        )
        self.engine.launch(GangSpec(name=name, processes=processes, background=True))
        return name, self.folder / f"{name}-0.log"

    def end(self, name: str) -> None:
        """Wait for a gang's end and forget it."""
        while any(one.state == "running" for one in (self.engine.see(name) or {}).values()):
            time.sleep(0.001)
        self.engine.forget(name)

    def first_line(self, argv: tuple[str, ...]) -> Callable[[], float]:
        """Return a measurement: seconds from `launch` until the log has a line."""

        def run() -> float:
            start = time.perf_counter()
            name, log = self.launch(argv)
            while log.stat().st_size == 0:
                time.sleep(0.0005)
            took = time.perf_counter() - start
            self.end(name)
            return took

        return run

    def to_the_end(self, argv: tuple[str, ...]) -> Callable[[], float]:
        """Return a measurement: seconds from `launch` until the log is complete."""

        def run() -> float:
            start = time.perf_counter()
            name, log = self.launch(argv)
            self.end(name)
            took = time.perf_counter() - start
            assert log.read_bytes().count(b"\n") == LINES
            os.unlink(log)
            return took

        return run

    def looks(self) -> None:
        """Print what it takes to ask about a gang of four."""
        name, _log = self.launch(("/bin/sleep", "60"), hosts=4)
        for what, ask in (
            ("see", self.engine.see),
            ("usage", self.engine.usage),
            ("doors", self.open_and_close),
        ):
            times = []
            for _ in range(200):
                start = time.perf_counter()
                ask(name)
                times.append(time.perf_counter() - start)
            title(f"{what} of 4 processes: {sorted(times)[100] * 1e6:.0f} µs (median)")
        self.engine.stop(name)
        self.end(name)

    def open_and_close(self, gang: str) -> None:
        """Take a gang's doors, and put them back."""
        doors = self.engine.doors(gang)
        assert doors is not None and doors.proxy is not None
        doors.platform.close()
        doors.proxy.close()


if __name__ == "__main__":
    main()
