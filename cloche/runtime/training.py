"""Runs a training script as AWS's framework containers do.

`python training.py [ARCHIVE [REQUIREMENTS]]`; REQUIREMENTS: what has been installed before.

Reads `/opt/ml/input/config`, unpacks the script's archive to `/opt/ml/code`, installs its
requirements, sets the `SM_*` variables, runs it with the hyperparameters as arguments, and writes
`/opt/ml/output/success` or `failure`. The rules are those of the public sagemaker-training toolkit.

Only `cloche.runtime` lies in the sandbox: standard library only, Python 3.8 and later.
"""

from __future__ import annotations

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

from cloche.runtime.understudy import Understudy, hired

logger = logging.getLogger("sagemaker-training-toolkit")
PREFIX = "sagemaker_"
WITHHELD = "_tuning_objective_metric"
# Hyperparameters of the toolkit itself; other sagemaker_… ones are framework parameters.
OWN = (
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_region",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "default_user_module_name",
    WITHHELD,
    "sagemaker_s3_output",
)
# By which a job asks for a launcher; where it names no groups, the hosts of its own are meant.
LAUNCHERS = (
    "sagemaker_mpi_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_torch_distributed_enabled",
)
TORCHRUN = "sagemaker_torch_distributed_enabled"
FRAMEWORK = "sagemaker_pytorch_container.training:main"
BASE = Path("/opt/ml")
MASTER_PORT = "7777"
TAIL_BYTES = 65_536  # of stderr, kept to tell why a script failed
MESSAGE_LIMIT = 2000  # characters of ErrorMessage
DRAIN_S = 5.0  # for the rest of stderr, which a left-over child may hold open
TRACEBACK = "Traceback (most recent call last):"


class ScriptError(Exception):
    """A command of the user's failed; the text is what goes to the failure file."""

    def __init__(self, kind: str, command: Sequence[str], code: int, message: str) -> None:
        shown = " ".join(command)
        super().__init__(f'{kind}:\nExitCode {code}\nErrorMessage "{message}"\nCommand "{shown}"')
        self.code = code


class Layout:
    """The folders of `/opt/ml` (SAGEMAKER_BASE_DIR names another base)."""

    def __init__(self, base: Path) -> None:
        self.input, self.output = base / "input", base / "output"
        self.config, self.data = base / "input/config", base / "input/data"
        self.model, self.code = base / "model", base / "code"
        # Outside a sandbox the interpreter is not ours: packages go to a folder of the job.
        self.packages = None if base == BASE else base.parent / "packages"

    def read(self, name: str) -> dict[str, Any]:
        """Return one of the configuration files."""
        content: dict[str, Any] = json.loads((self.config / name).read_text())
        return content


def decoded(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return hyperparameters as the JSON they hold, else as the raw string."""
    found: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        try:
            found[name] = json.loads(value)
        except (ValueError, TypeError):
            found[name] = value
    return found


def withheld(name: str) -> bool:
    """Return whether a hyperparameter is the platform's, and not the script's."""
    return name.startswith(PREFIX) or name in OWN


def arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return `--key value` pairs, sorted; `-k` for one letter; a dict as `a=1,b=2`."""
    found: list[str] = []
    for name in sorted(hyperparameters):
        value = hyperparameters[name]
        if isinstance(value, dict):
            text = ",".join(f"{k}={v}" for k, v in sorted(value.items()))
        else:
            text = "" if value is None else str(value)
        found += [f"--{name}" if len(name) > 1 else f"-{name}", text]
    return found


def as_text(value: Any) -> str:
    """Return a variable's value: strings as they are, nothing for None, else JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def launched_hosts(
    extra: Mapping[str, Any], resources: Mapping[str, Any], group: str
) -> tuple[list[str], list[str]]:
    """Return the groups that a launcher starts together, and all their hosts."""
    own = [group] if any(extra.get(name) for name in LAUNCHERS) else []
    names = extra.get("sagemaker_distribution_instance_groups", own)
    groups = resources.get("instance_groups", [])
    if not groups:
        return names, resources["hosts"]
    return names, [h for g in groups if g["instance_group_name"] in names for h in g["hosts"]]


def training_env(layout: Layout, given: Mapping[str, str]) -> dict[str, Any]:
    """Return what the toolkit's Environment holds, from the configuration files.

    `given` is the process's environment: it says the CPUs, and where a channel really lies.
    """
    resources, channels = layout.read("resourceconfig.json"), layout.read("inputdataconfig.json")
    everything = decoded(layout.read("hyperparameters.json"))
    own = {k: v for k, v in everything.items() if withheld(k)}
    hosts, host = resources["hosts"], resources["current_host"]
    program = given.get("SAGEMAKER_PROGRAM") or own.get("sagemaker_program")
    groups = resources.get("instance_groups", [])
    group = resources.get("current_group_name", "homogeneousCluster")
    extra = {k: v for k, v in own.items() if k not in OWN}
    launched, together = launched_hosts(extra, resources, group)
    master = next(iter(together), hosts[0])
    return {
        "additional_framework_parameters": extra,
        "channel_input_dirs": {
            name: given.get(f"SM_CHANNEL_{name.upper()}", str(layout.data / name))
            for name in channels
        },
        "current_host": host,
        "current_instance_group": group,
        "current_instance_group_hosts": next(
            (g["hosts"] for g in groups if g["instance_group_name"] == group), []
        ),
        "current_instance_type": resources.get("current_instance_type", "local"),
        "distribution_hosts": together,
        "distribution_instance_groups": launched,
        "framework_module": given.get("SAGEMAKER_TRAINING_MODULE", FRAMEWORK),
        "hosts": hosts,
        "hyperparameters": {k: v for k, v in everything.items() if not withheld(k)},
        "input_config_dir": str(layout.config),
        "input_data_config": channels,
        "input_dir": str(layout.input),
        "instance_groups": [g["instance_group_name"] for g in groups],
        "instance_groups_dict": {g["instance_group_name"]: g for g in groups},
        "is_hetero": len(groups) > 1,
        "is_master": host == master,
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "job_name": own.get("sagemaker_job_name", given.get("TRAINING_JOB_NAME", "")),
        "log_level": own.get("sagemaker_container_log_level", logging.INFO),
        "master_hostname": master,
        "model_dir": str(layout.model),
        "module_dir": str(own.get("sagemaker_submit_directory", layout.code)),
        "module_name": re.sub(r"\.py$", "", program) if program else None,
        "network_interface_name": resources.get("network_interface_name", "eth0"),
        "num_cpus": int(given.get("SM_NUM_CPUS") or os.cpu_count() or 1),
        "num_gpus": int(given.get("SM_NUM_GPUS") or 0),
        "num_neurons": 0,
        "output_data_dir": str(layout.output / "data"),
        "output_dir": str(layout.output),
        "output_intermediate_dir": str(layout.output / "intermediate"),
        "resource_config": resources,
        "topology": resources.get("topology", []),
        "user_entry_point": program,
    }


# SM_* variables that bear another name than their property.
RENAMED = {
    "additional_framework_parameters": "framework_params",
    "hyperparameters": "hps",
}
# Properties that are part of SM_TRAINING_ENV alone.
UNEXPORTED = (
    "channel_input_dirs",
    "distribution_hosts",
    "is_master",
    "is_modelparallel_enabled",
    "is_smddpmprun_installed",
    "is_smddprun_installed",
    "job_name",
    "master_hostname",
)


def variables(env: Mapping[str, Any], region: str) -> dict[str, str]:
    """Return every variable that the script finds beside those of the container."""
    found = {
        f"SM_{RENAMED.get(name, name).upper()}": as_text(value)
        for name, value in env.items()
        if name not in UNEXPORTED and (value or name != "topology")
    }
    found["SM_CHANNELS"] = as_text(sorted(env["channel_input_dirs"]))
    found["SM_TRAINING_ENV"] = as_text(env)
    found["SM_USER_ARGS"] = as_text(arguments(env["hyperparameters"]))
    for name, folder in env["channel_input_dirs"].items():
        found[f"SM_CHANNEL_{name.upper()}"] = folder
    for name, value in env["hyperparameters"].items():
        found[f"SM_HP_{name.upper()}"] = as_text(value)
    return found | {
        "CURRENT_HOST": env["current_host"],
        "SAGEMAKER_JOB_NAME": env["job_name"],
        "SAGEMAKER_REGION": region,
        "NCCL_SOCKET_IFNAME": env["network_interface_name"],
        "NCCL_IB_DISABLE": "1",
    }


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


def command_line(kind: str, program: str, args: Sequence[str]) -> list[str]:
    """Return how the entry point is started."""
    if kind == "package":
        return [sys.executable, "-m", re.sub(r"\.py$", "", program), *args]
    if kind == "program":
        return [sys.executable, program, *args]
    return ["/bin/sh", "-c", " ".join([f"./{program}", *map(shlex.quote, args)])]


class Tail(threading.Thread):
    """Passes a stream on as it comes and keeps its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.stream, self.kept = stream, b""

    def run(self) -> None:
        """Read until the end."""
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
        self.child: subprocess.Popen[bytes] | Understudy | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.pass_on)

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.child is None:
            os._exit(128 + number)
        if self.child.poll() is None:
            self.child.send_signal(number)


signals: Signals | None = None


def run(command: Sequence[str], code: Path, kind: str, *, warm: bool = False) -> None:
    """Run a command in the code folder; ScriptError when it fails.

    warm: an interpreter that has imported the environment's packages may run it.
    """
    sys.stdout.flush()
    reading, writing = os.pipe()
    tail = Tail(os.fdopen(reading, "rb"))
    tail.start()
    child: subprocess.Popen[bytes] | Understudy | None = None
    try:
        if warm:
            child = hired(command, code, writing)
        child = child or subprocess.Popen(command, cwd=code, stderr=writing)
    finally:
        os.close(writing)
    if signals is not None:
        signals.child = child
    status = child.wait()
    tail.join(DRAIN_S)  # a left-over child may write on: let it, we have what we need
    if signals is not None:
        signals.child = None
    if status != 0:
        exit_code = 128 - status if status < 0 else status
        raise ScriptError(
            kind, command, exit_code, message_of(tail.kept.decode("utf-8", "replace"))
        )


def message_of(stderr: str) -> str:
    """Return what the last traceback says, else the last lines of stderr."""
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
    if wants_torchrun(env):
        command = torchrun(kind, env, exported["MASTER_ADDR"], args)
    else:
        command = command_line(kind, program, args)
    report_start(env, exported, command)
    run(command, layout.code, "ExecuteUserScriptError", warm=not installed)


def write_failure(layout: Layout, text: str) -> None:
    """Say why, unless the script itself did."""
    failure = layout.output / "failure"
    if not failure.exists():
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
