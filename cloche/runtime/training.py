"""Runs a training script as AWS's framework containers do.

`python training.py [ARCHIVE [REQUIREMENTS]]`; REQUIREMENTS: what has been installed before.

Reads `/opt/ml/input/config`, unpacks the script's archive to `/opt/ml/code`, installs its
requirements, sets the `SM_*` variables, runs it with the hyperparameters as arguments, and writes
`/opt/ml/output/success` or `failure`. The rules are those of the public sagemaker-training toolkit.

Only `cloche.runtime` lies in the sandbox: standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where `cloche.runtime` is found

from cloche.runtime import gpu_words, mpi, pip_words
from cloche.runtime import signals as ends
from cloche.runtime.missing_modules import advice_for
from cloche.runtime.shell_words import by_shell
from cloche.runtime.training_env import BASE, Layout, arguments, training_env, variables
from cloche.runtime.understudy import Understudy, hired

logger = logging.getLogger("sagemaker-training-toolkit")
TORCHRUN = "sagemaker_torch_distributed_enabled"
MASTER_PORT = "7777"
SHELL = "CLOCHE_SHELL"  # set: the command goes to a shell, as in some of AWS's images
SH = "/bin/sh"
INSTALLS = ("InstallModuleError", "InstallRequirementsError")
TAIL_BYTES = 65_536  # of stderr, kept to tell why a script failed
MESSAGE_LIMIT = 2000  # characters of ErrorMessage
DRAIN_S = 5.0  # for the rest of stderr, which a left-over child may hold open
TRACEBACK = "Traceback (most recent call last):"


class ScriptError(Exception):
    """A command of the user's failed; the text is what goes to the failure file."""

    def __init__(
        self, kind: str, command: Sequence[str], code: int, message: str, hint: str = ""
    ) -> None:
        shown = " ".join(command)
        text = f'{kind}:\nExitCode {code}\nErrorMessage "{message}"\nCommand "{shown}"'
        super().__init__(f"{text}\n{hint}" if hint else text)
        self.code = code


def unpack(archive: Path | None, submitted: str, code: Path) -> None:
    """Fill the code folder: from the archive beside us, or from a path that the job names."""
    source = archive
    if source is None and submitted and "://" not in submitted:
        source = Path(submitted)
    if source is None or source == code:
        return
    if source.is_dir():
        shutil.copytree(source, code, dirs_exist_ok=True)
        return
    with tarfile.open(source) as tar:
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(code, filter="tar")
        else:
            tar.extractall(code)


def entry_kind(code: Path, program: str) -> str:
    """Return `command`, `package` or `program`, as the toolkit tells them apart."""
    if program.endswith(".sh"):
        return "command"
    if (code / "setup.py").exists():
        return "package"
    return "program" if program.endswith(".py") else "command"


def install(layout: Layout, kind: str, program: str, provided: Path | None) -> bool:
    """Install the package, or the requirements, before the script runs; return whether it did.

    provided: the requirements that the environment was given before.
    """
    code = layout.code
    if kind == "command":
        (code / program).chmod(0o777)
        return False
    requirements = code / "requirements.txt"
    listed = requirements.exists()
    target = [] if layout.packages is None else ["--target", str(layout.packages)]
    pip = [sys.executable, "-m", "pip", "install", *target]
    if kind == "package":
        command = [*pip, ".", *(["-r", requirements.name] if listed else [])]
        logger.info("Installing module with the following command:\n%s", " ".join(command))
        run(command, code, "InstallModuleError")
        return True
    if not listed:
        return False
    if provided is not None and provided.read_bytes() == requirements.read_bytes():
        logger.info("The dependencies from requirements.txt are installed.")
        return False
    command = [*pip, "-r", requirements.name]
    logger.info("Installing dependencies from requirements.txt:\n%s", " ".join(command))
    run(command, code, "InstallRequirementsError")
    return True


def master_address(env: Mapping[str, Any], given: str | None) -> str:
    """Return where rank 0 is: the master's name, unless the container's MASTER_ADDR is no host's.

    (Outside a sandbox no host has a name, and the platform gives the machine's address.)
    """
    return given if given and given not in env["hosts"] else str(env["master_hostname"])


def torchrun(kind: str, env: Mapping[str, Any], master: str, args: Sequence[str]) -> list[str]:
    """Return how torchrun starts the script here: one process a host, as there are no GPUs."""
    if kind == "package":
        raise ValueError(
            "Python packages are not supported for torch_distributed. "
            "Please use a python script as the entry-point"
        )
    if kind != "program":
        raise ValueError("Unsupported entry point type for torch_distributed")
    hosts = env["distribution_hosts"]
    command = ["torchrun", "--nnodes", str(len(hosts)), "--nproc_per_node", "1"]
    if len(hosts) > 1:
        rank = str(hosts.index(env["current_host"]))
        command += ["--master_addr", master, "--master_port", MASTER_PORT]
        command += ["--node_rank", rank]
    return [*command, env["user_entry_point"], *args]


def wants_torchrun(env: Mapping[str, Any]) -> bool:
    """Return whether this host's group is launched by torchrun."""
    enabled = env["additional_framework_parameters"].get(TORCHRUN)
    return bool(enabled) and env["current_instance_group"] in env["distribution_instance_groups"]


def command_line(kind: str, program: str, args: Sequence[str], *, shell: bool = False) -> list[str]:
    """Return how the entry point is started; `shell`: before it goes to one, joined."""
    if kind == "package":
        return [sys.executable, "-m", re.sub(r"\.py$", "", program), *args]
    if kind == "program":
        return [sys.executable, program, *args]
    text = " ".join([f"./{program}", *map(shlex.quote, args)])
    return [SH, "-c", f'"{text}"' if shell else text]


class Tail(threading.Thread):
    """Passes a stream on as it comes and keeps its end; `ranks` do both for mpirun's."""

    def __init__(self, stream: IO[bytes], ranks: mpi.Ranks | None) -> None:
        super().__init__(daemon=True)
        self.stream, self.ranks, self.kept = stream, ranks, b""

    @property
    def text(self) -> str:
        """The end of what was written."""
        if self.ranks is not None:
            return self.ranks.errors()
        return self.kept.decode("utf-8", "replace")

    def run(self) -> None:
        """Read until the end."""
        if self.ranks is not None:
            self.ranks.pass_on(self.stream, 2)
            return
        while True:
            data = os.read(self.stream.fileno(), 65_536)
            if not data:
                return
            self.kept = (self.kept + data)[-TAIL_BYTES:]
            while data:
                data = data[os.write(2, data) :]


class Signals:
    """Passes SIGTERM and SIGINT on to the process that runs; without one, ends this."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | Understudy | mpi.Run | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.pass_on)

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.child is None:
            os._exit(128 + number)
        if self.child.poll() is None:
            self.child.send_signal(number)


signals: Signals | None = None


def run(
    command: Sequence[str],
    code: Path,
    kind: str,
    *,
    warm: bool = False,
    shell: bool = False,
    ranks: mpi.Ranks | None = None,
) -> None:
    """Run a command in the code folder; ScriptError when it fails.

    warm: an interpreter that has imported the environment's packages may run it.
    shell: the command is joined, and a shell splits it.
    ranks: it is mpirun, whose lines they pass on.
    """
    argv = by_shell(command, code) if shell else command
    sys.stdout.flush()
    reading, writing = os.pipe()
    tail = Tail(os.fdopen(reading, "rb"), ranks)
    tail.start()
    child: subprocess.Popen[bytes] | Understudy | None = None
    killed_before = ends.memory_kills()
    try:
        if warm:
            child = hired(argv, code, writing)
        output = None if ranks is None else subprocess.PIPE
        child = child or subprocess.Popen(argv, cwd=code, stderr=writing, stdout=output)
    finally:
        os.close(writing)
    passing: list[threading.Thread] = [tail]
    watched: subprocess.Popen[bytes] | Understudy | mpi.Run = child
    if ranks is not None and isinstance(child, subprocess.Popen) and child.stdout is not None:
        passing.append(ranks.relay(child.stdout, 1))
        watched = mpi.Run(child, ranks.env)
    if signals is not None:
        signals.child = watched
    status = child.wait()
    for thread in passing:
        thread.join(DRAIN_S)  # a left-over child may write on: let it, we have what we need
    if signals is not None:
        signals.child = None
    if status != 0:
        exit_code = 128 - status if status < 0 else status
        message = message_of(tail.text, kind)
        by_shell_or_mpi = argv[0] == SH or ranks is not None
        if status < 0 or (by_shell_or_mpi and exit_code - 128 in signal.valid_signals()):
            message = with_signal(message, exit_code - 128, killed_before)
        elif ranks is not None:
            message += ranks.where()
        hint = gpu_words.hint(tail.text) or advice_for(tail.text, paths(code))
        raise ScriptError(kind, command, exit_code, message, hint)


def paths(code: Path) -> list[str]:
    """Return where a script looks for modules."""
    return [str(code), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]


def with_signal(message: str, number: int, killed_before: int) -> str:
    """Return the message of a script that a signal killed (a shell says so by its exit code)."""
    text = ends.killed_by(number)
    if number == signal.SIGKILL and ends.memory_kills() > killed_before:
        text += f"; {ends.NO_MEMORY}"
    return f"{message}\n{text}" if message else text


def message_of(stderr: str, kind: str) -> str:
    """Return what pip says of its failure, or the last traceback, else the last lines of stderr."""
    if kind in INSTALLS and (errors := pip_words.errors(stderr)):
        return errors[-MESSAGE_LIMIT:]
    lines = stderr.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip() == TRACEBACK]
    if starts:
        after = lines[starts[-1] + 1 :]
        frames = next((n for n, line in enumerate(after) if line[:1].strip()), len(after))
        lines = after[frames:]
    else:
        lines = lines[-10:]
    return "\n".join(lines)[:MESSAGE_LIMIT]


def report_start(env: Mapping[str, Any], exported: Mapping[str, str], command: list[str]) -> None:
    """Print what will run, as the toolkit does."""
    listed = "\n".join(f"{name}={value}" for name, value in exported.items())
    logger.info(
        "Invoking user script\n\nTraining Env:\n\n%s\n\nEnvironment variables:\n\n%s\n\n"
        "Invoking script with the following command:\n\n%s\n\n",
        json.dumps(env, indent=4),
        listed,
        " ".join(command),
    )


def train(layout: Layout, archive: Path | None, provided: Path | None) -> None:
    """Do everything up to the end of the script; ScriptError when it fails."""
    env = training_env(layout, os.environ)
    program = env["user_entry_point"]
    if not program:
        raise ValueError(
            "No entry point: the hyperparameter sagemaker_program (or the variable "
            "SAGEMAKER_PROGRAM) names no script, and there is no ContainerEntrypoint."
        )
    submitted = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", env["module_dir"])
    unpack(archive, submitted, layout.code)
    if not (layout.code / program).exists() and not (layout.code / "setup.py").exists():
        found = ", ".join(sorted(path.name for path in layout.code.iterdir())) or "nothing"
        raise ValueError(f"The entry point {program} is not in {layout.code}, which has: {found}.")
    kind = entry_kind(layout.code, program)
    exported = variables(env, os.environ.get("AWS_REGION", ""))
    exported["MASTER_ADDR"] = master_address(env, os.environ.get("MASTER_ADDR"))
    exported["MASTER_PORT"] = os.environ.get("MASTER_PORT", MASTER_PORT)
    paths = [layout.code, layout.packages, os.environ.get("PYTHONPATH")]
    exported["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if path)
    installed = install(layout, kind, program, provided)
    os.environ.update(exported)
    args = arguments(env["hyperparameters"])
    shell = bool(os.environ.pop(SHELL, ""))
    if mpi.wanted(env):
        script = command_line(kind, program, args, shell=shell)
        script = script if kind == "command" else mpi.by_mpi4py(script)
        run_by_mpi(env, exported, layout, script, shell=shell)
        return
    if wants_torchrun(env):
        command = torchrun(kind, env, exported["MASTER_ADDR"], args)
    else:
        command = command_line(kind, program, args, shell=shell)
    report_start(env, exported, command)
    run(command, layout.code, "ExecuteUserScriptError", warm=not installed, shell=shell)


def run_by_mpi(
    env: Mapping[str, Any],
    exported: dict[str, str],
    layout: Layout,
    script: Sequence[str],
    *,
    shell: bool,
) -> None:
    """Have mpirun run the script on all hosts of the launch, if this is the first of them."""
    if layout.packages is not None and len(env["distribution_hosts"]) > 1:
        # Its hosts would take commands from everybody on this machine.
        raise ValueError("The distribution mpi on several instances needs sandboxes.")
    mpi.set_up(env, exported, layout.packages)
    os.environ.update(exported)
    if not env["is_master"]:
        mpi.serve(env["current_host"], layout.code)
        return
    mpi.await_workers(env)
    command = mpi.command(env, exported, script, mpi.make_agent())
    report_start(env, exported, command)
    try:
        run(command, layout.code, "ExecuteUserScriptError", shell=shell, ranks=mpi.Ranks(env))
    finally:
        mpi.dismiss(env)


def write_failure(layout: Layout, text: str) -> None:
    """Say why, unless the script itself did."""
    failure = layout.output / "failure"
    if not failure.exists():
        with contextlib.suppress(OSError):  # the disk may be why
            failure.write_text(text)


def main(argv: Sequence[str]) -> int:
    """Run the job; return the exit code of the process."""
    global signals
    signals = Signals()
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s %(name)-12s %(levelname)-8s %(message)s",
    )
    layout = Layout(Path(os.environ.get("SAGEMAKER_BASE_DIR", BASE)))
    try:
        archive, provided = (*map(Path, argv), None, None)[:2]
        train(layout, archive, provided)
    except ScriptError as error:
        logger.error("Reporting training FAILURE")
        logger.error("%s", error)
        write_failure(layout, str(error))
        return min(error.code, 255)
    except Exception as error:
        logger.error("Reporting training FAILURE")
        logger.exception("framework error")
        write_failure(layout, f"framework error: \n{type(error).__name__}: {error}")
        return 1
    logger.info("Reporting training SUCCESS")
    (layout.output / "success").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
