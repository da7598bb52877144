"""An environment with a slow module, whose fork server gives jobs understudies."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cloche.runtime
from cloche.engine import GangSpec, Preload, ProcessSpec
from cloche.engine.local.engine import LocalEngine
from cloche.testing.engine_lab import Lab, outcomes

LOADED = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "UTF-8"}
RUNTIME = Path(cloche.runtime.__path__[0])
# The runner's part, without the rest of training.py.
RUNNER = """
import os, pathlib, signal, subprocess, sys
sys.path.append("/opt")
from cloche.runtime.understudy import hired
command, code = [sys.executable, *sys.argv[1:]], pathlib.Path("/code")
child = hired(command, code, 2, within_s=2.0)
print("hired" if child else "ordinary", flush=True)
child = child or subprocess.Popen(command, cwd=code)
signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
status = child.wait()
print("status", status, flush=True)
sys.exit(128 - status if status < 0 else status)
"""
HEAVY = """
import os
PID_OF_IMPORT = os.getpid()
with open("/tmp/heavy-%s", "a") as file:
    file.write("imported\\n")
"""


class Stage:
    """An environment with a slow module, and jobs whose runner may have an understudy.

    modules: of this Python's own environment, which is then used instead.
    """

    def __init__(self, lab: Lab, modules: tuple[str, ...] = ()) -> None:
        self.lab = lab
        self.engine = lab.engine
        self.folder = lab.folder
        self.modules = modules or ("light", "heavy", "missing")
        self.name = f"{os.getpid()}-{time.monotonic_ns()}"
        self.venv = Path(sys.prefix) if modules else self.folder / "venv"
        self.python = str(self.venv / "bin/python")
        if not modules:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        (self.packages,) = self.venv.glob("lib/python*/site-packages")
        if not modules:
            (self.packages / "heavy.py").write_text(HEAVY % self.name)
        (self.folder / "code").mkdir()
        if not modules:
            (self.folder / "code/uses.py").write_text("import os, heavy\n")
        (self.folder / "runner.py").write_text(RUNNER)

    def spec(self, script: str, name: str, env: dict[str, str] | None = None) -> GangSpec:
        """Return a job that runs a script, in an understudy if it gets one."""
        code = self.folder / "code"
        (code / f"{name}.py").write_text(textwrap.dedent(script))
        prefixes = dict.fromkeys((Path(sys.base_prefix).resolve(), self.venv))
        mount = self.lab.mount
        mounts = [mount(path, str(path), "overlay") for path in prefixes if str(path) != "/usr"]
        process = ProcessSpec(
            name="algo-1",
            argv=(self.python, "/runner.py", f"{name}.py", "--lr", "1"),
            env={**LOADED, **(env or {})},
            mounts=(
                *mounts,
                mount(code, "/code"),
                mount(RUNTIME, "/opt/cloche/runtime"),
                mount(self.folder / "runner.py", "/runner.py"),
            ),
            log=self.lab.log_for(name),
            preload=Preload(self.modules, LOADED),
        )
        return GangSpec(name=name, processes=(process,), stop_grace_s=20, background=True)

    def run(self, script: str, name: str, env: dict[str, str] | None = None) -> list[str]:
        """Run a script to its end; return its log."""
        self.lab.place(self.spec(script, name, env))
        self.ended = outcomes(self.lab.finished(name))["algo-1"]
        return self.log(name)

    def log(self, name: str) -> list[str]:
        """What the runner found first: the script may be quicker to print than the runner."""
        return sorted(self.lab.log(name), key=lambda line: line not in ("hired", "ordinary"))

    def warm(self) -> int:
        """Run a first job, by which the fork server gets to know what to import; return its PID."""
        assert self.run("print('first')", "first")[0] == "ordinary"
        assert isinstance(self.engine, LocalEngine)
        (server,) = self.engine.fork_servers.servers.values()
        return server.process.pid
