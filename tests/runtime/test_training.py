"""The training runner as a process, on a folder in place of /opt/ml."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloche.runtime import signals, training, training_env
from cloche.testing.wheel import write_wheel

RUNNER = training.__file__


@dataclass
class Job:
    """A host's /opt/ml in a folder."""

    base: Path
    code: dict[str, str]
    hyperparameters: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ("training",)
    hosts: tuple[str, ...] = ("algo-1",)
    host: str = "algo-1"

    def prepare(self) -> list[str]:
        for folder in ("input/config", "model", "output/data", "code"):
            (self.base / folder).mkdir(parents=True)
        for channel in self.channels:
            (self.base / "input/data" / channel).mkdir(parents=True)
        group = {
            "instance_group_name": "homogeneousCluster",
            "instance_type": "ml.m5.xlarge",
            "hosts": list(self.hosts),
        }
        files = {
            "hyperparameters.json": self.hyperparameters,
            "inputdataconfig.json": {c: {"TrainingInputMode": "File"} for c in self.channels},
            "resourceconfig.json": {
                "current_host": self.host,
                "current_instance_type": "ml.m5.xlarge",
                "current_group_name": "homogeneousCluster",
                "hosts": list(self.hosts),
                "instance_groups": [group],
                "network_interface_name": "lo",
            },
        }
        for name, content in files.items():
            (self.base / "input/config" / name).write_text(json.dumps(content))
        archive = self.base / "sourcedir.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, text in self.code.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
        return [sys.executable, RUNNER, str(archive)]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "SAGEMAKER_BASE_DIR": str(self.base),
            "AWS_REGION": "us-east-1",
            "TRAINING_JOB_NAME": "job-1",
            "SM_NUM_CPUS": "2",
            "PIP_NO_INDEX": "1",
        }

    def run(self, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.prepare(), env=self.environment | more, capture_output=True, text=True, timeout=60
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.prepare(), env=self.environment, stdout=subprocess.PIPE, text=True
        )

    def failure(self) -> str:
        return (self.base / "output/failure").read_text()


def job(tmp_path: Path, script: str, **hyperparameters: object) -> Job:
    return Job(
        tmp_path / "ml",
        {"hpo.py": script},
        {k: json.dumps(v) for k, v in hyperparameters.items()}
        | {"sagemaker_program": '"hpo.py"', "sagemaker_job_name": '"job-1"'},
    )


DUMP = "import json, os, sys; print('DUMP', json.dumps([sys.argv, dict(os.environ), os.getcwd()]))"


def dumped(output: str) -> tuple[list[str], dict[str, str], str]:
    line = next(line for line in output.splitlines() if line.startswith("DUMP"))
    argv, env, cwd = json.loads(line.removeprefix("DUMP "))
    return argv, env, cwd


def test_arguments_are_sorted_and_written_as_the_toolkit_does() -> None:
    sent = {"lr": 0.1, "b": 2, "name": "x y", "d": {"z": 1, "a": 2}, "n": None}
    assert training_env.arguments(sent) == [
        "-b", "2", "-d", "a=2,z=1", "--lr", "0.1", "-n", "", "--name", "x y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "read"),
    [('"gloo"', "gloo"), ("0.1", 0.1), ("hpo.py", "hpo.py"), ('"\\"32\\""', '"32"'), ("", "")],
)
def test_hyperparameters_are_json_or_else_raw(sent: str, read: object) -> None:
    assert training_env.decoded({"x": sent}) == {"x": read}


def test_script_finds_arguments_variables_and_folder(tmp_path: Path) -> None:
    one = job(tmp_path, DUMP, learning_rate=0.1, **{"batch-size": 64, "backend": "gloo"})
    one.channels = ("training", "my-valid")
    one.hyperparameters["_tuning_objective_metric"] = "loss"
    one.hyperparameters["sagemaker_container_log_level"] = "20"
    one.hyperparameters["sagemaker_other"] = "true"
    done = one.run()
    assert done.returncode == 0, done.stdout + done.stderr
    argv, env, cwd = dumped(done.stdout)
    ml = str(tmp_path / "ml")
    assert argv == ["hpo.py", "--backend", "gloo", "--batch-size", "64", "--learning_rate", "0.1"]
    assert cwd == f"{ml}/code"
    expected = {
        "SM_CHANNELS": '["my-valid","training"]',
        "SM_CHANNEL_TRAINING": f"{ml}/input/data/training",
        "SM_CHANNEL_MY-VALID": f"{ml}/input/data/my-valid",
        "SM_CURRENT_HOST": "algo-1",
        "SM_CURRENT_INSTANCE_GROUP": "homogeneousCluster",
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": '["algo-1"]',
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.xlarge",
        "SM_DISTRIBUTION_INSTANCE_GROUPS": "[]",
        "SM_FRAMEWORK_MODULE": "sagemaker_pytorch_container.training:main",
        "SM_FRAMEWORK_PARAMS": '{"sagemaker_other":true}',
        "SM_HOSTS": '["algo-1"]',
        "SM_HPS": '{"backend":"gloo","batch-size":64,"learning_rate":0.1}',
        "SM_HP_BACKEND": "gloo",
        "SM_HP_BATCH-SIZE": "64",
        "SM_HP_LEARNING_RATE": "0.1",
        "SM_INPUT_CONFIG_DIR": f"{ml}/input/config",
        "SM_INPUT_DATA_CONFIG": '{"my-valid":{"TrainingInputMode":"File"},'
        '"training":{"TrainingInputMode":"File"}}',
        "SM_INPUT_DIR": f"{ml}/input",
        "SM_INSTANCE_GROUPS": '["homogeneousCluster"]',
        "SM_IS_HETERO": "false",
        "SM_LOG_LEVEL": "20",
        "SM_MODEL_DIR": f"{ml}/model",
        "SM_MODULE_DIR": f"{ml}/code",
        "SM_MODULE_NAME": "hpo",
        "SM_NETWORK_INTERFACE_NAME": "lo",
        "SM_NUM_CPUS": "2",
        "SM_NUM_GPUS": "0",
        "SM_NUM_NEURONS": "0",
        "SM_OUTPUT_DATA_DIR": f"{ml}/output/data",
        "SM_OUTPUT_DIR": f"{ml}/output",
        "SM_OUTPUT_INTERMEDIATE_DIR": f"{ml}/output/intermediate",
        "SM_USER_ARGS": json.dumps(argv[1:], separators=(",", ":")),
        "SM_USER_ENTRY_POINT": "hpo.py",
        "CURRENT_HOST": "algo-1",
        "MASTER_ADDR": "algo-1",
        "MASTER_PORT": "7777",
        "SAGEMAKER_JOB_NAME": "job-1",
        "SAGEMAKER_REGION": "us-east-1",
        "TRAINING_JOB_NAME": "job-1",
        "PYTHONPATH": f"{ml}/code:{tmp_path}/packages",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert {"SM_RESOURCE_CONFIG", "SM_INSTANCE_GROUPS_DICT"} <= set(env)
    assert "SM_HP__TUNING_OBJECTIVE_METRIC" not in env
    whole = json.loads(env["SM_TRAINING_ENV"])
    assert whole["hyperparameters"] == {"backend": "gloo", "batch-size": 64, "learning_rate": 0.1}
    assert whole["is_master"] is True and whole["job_name"] == "job-1"
    assert (tmp_path / "ml/output/success").exists()
    assert "Invoking script with the following command:" in done.stdout


def test_second_of_two_hosts_knows_the_master(tmp_path: Path) -> None:
    one = job(tmp_path, DUMP)
    one.hosts, one.host = ("algo-1", "algo-2"), "algo-2"
    _, env, _ = dumped(one.run().stdout)
    assert (env["SM_CURRENT_HOST"], env["MASTER_ADDR"]) == ("algo-2", "algo-1")
    assert json.loads(env["SM_TRAINING_ENV"])["is_master"] is False


def test_failure_has_code_message_and_command(tmp_path: Path) -> None:
    one = job(tmp_path, "def f():\n    raise ValueError('no data\\nat all')\nf()", epochs=1)
    done = one.run()
    assert done.returncode == 1
    assert one.failure() == (
        "ExecuteUserScriptError:\nExitCode 1\n"
        'ErrorMessage "ValueError: no data\nat all"\n'
        f'Command "{sys.executable} hpo.py --epochs 1"'
    )
    assert "Traceback (most recent call last):" in done.stderr
    assert not (tmp_path / "ml/output/success").exists()


def test_exit_code_is_the_scripts(tmp_path: Path) -> None:
    one = job(tmp_path, "import sys; print('so', file=sys.stderr); sys.exit(7)")
    assert one.run().returncode == 7
    assert one.failure().startswith('ExecuteUserScriptError:\nExitCode 7\nErrorMessage "so"\n')


def test_killed_script_shows_the_signal(tmp_path: Path) -> None:
    one = job(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert one.run().returncode == 137
    assert one.failure().startswith(
        "ExecuteUserScriptError:\nExitCode 137\n"
        'ErrorMessage "Killed by signal 9: SIGKILL (Killed)"\n'
    )


@pytest.mark.parametrize("shell", ["", "1"])
def test_segmentation_fault_is_told_after_what_was_printed(shell: str, tmp_path: Path) -> None:
    script = "import os, sys; print('so far', file=sys.stderr); os.kill(os.getpid(), 11)"
    one = job(tmp_path, script, **({"where": "$HOME"} if shell else {}))
    assert one.run(CLOCHE_SHELL=shell).returncode == 139
    says = "Killed by signal 11: SIGSEGV (Segmentation fault)"
    assert "so far\n" in one.failure() and f'{says}"' in one.failure()


def test_kill_for_want_of_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("pgfault 1\noom_kill 3\n")
    assert signals.memory_kills(vmstat) == 3
    assert signals.memory_kills(tmp_path / "none") == 0
    counts = iter((3, 4))
    monkeypatch.setattr(signals, "memory_kills", lambda: next(counts))
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with pytest.raises(training.ScriptError, match="the machine had no more memory"):
        training.run(command, tmp_path, "ExecuteUserScriptError")


def test_failure_that_the_script_wrote_is_kept(tmp_path: Path) -> None:
    one = job(tmp_path, "open('../output/failure', 'w').write('my own words'); raise SystemExit(3)")
    assert one.run().returncode == 3
    assert one.failure() == "my own words"


def test_package_runs_as_a_module(tmp_path: Path) -> None:
    code = {"setup.py": "raise SystemExit(1)", "trainer/__main__.py": DUMP}
    one = Job(tmp_path / "ml", code, {"sagemaker_program": "trainer"})
    assert one.run().returncode != 0
    assert one.failure().startswith("InstallModuleError:\nExitCode 1\n")
    assert training.command_line("package", "trainer.py", ["--a", "1"]) == [
        sys.executable, "-m", "trainer", "--a", "1",
    ]  # fmt: skip


def test_shell_script_runs_with_quoted_arguments(tmp_path: Path) -> None:
    one = Job(
        tmp_path / "ml",
        {"x.sh": '#!/bin/sh\nfor a in "$@"; do echo "[$a]"; done\n'},
        {"sagemaker_program": '"x.sh"', "name": '"two words"'},
    )
    done = one.run()
    assert done.returncode == 0, done.stdout
    assert "[--name]\n[two words]\n" in done.stdout


SPLIT = [
    ({"features": "age income height"}, ["--features", "age", "income", "height"]),
    ({"layers": [64, 32]}, ["--layers", "[64,", "32]"]),
    ({"verbose": ""}, ["--verbose"]),
    ({"verbose": None}, ["--verbose"]),
    ({"device": '"cpu"'}, ["--device", "cpu"]),
    ({"title": "'two words'"}, ["--title", "two words"]),
    ({"where": "$SM_MODEL_DIR"}, ["--where", "{model}"]),
]


@pytest.mark.parametrize(("sent", "words"), SPLIT)
def test_command_goes_to_a_shell_where_the_image_says_so(
    sent: dict[str, object], words: list[str], tmp_path: Path
) -> None:
    one = job(tmp_path, DUMP, **sent)
    done = one.run(CLOCHE_SHELL="1")
    assert done.returncode == 0, done.stdout + done.stderr
    argv, env, _ = dumped(done.stdout)
    assert argv == ["hpo.py", *(each.format(model=env["SM_MODEL_DIR"]) for each in words)]
    assert "CLOCHE_SHELL" not in env
    given = training_env.arguments(sent)
    assert json.loads(env["SM_USER_ARGS"]) == given, "as it was before a shell had it"
    argv, _, _ = dumped(job(tmp_path / "other", DUMP, **sent).run().stdout)
    assert argv == ["hpo.py", *given], "scikit-learn's and XGBoost's images: no shell"


@pytest.mark.parametrize(("value", "plain"), [("64 32", True), ("$HOME", False)])
def test_plain_words_may_go_to_an_understudy(
    value: str, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(training, "hired", lambda argv, *_: asked.append(argv))
    (tmp_path / "hpo.py").touch()
    command = [sys.executable, "hpo.py", "--layers", value]
    training.run(command, tmp_path, "ExecuteUserScriptError", warm=True, shell=True)
    words = [sys.executable, "hpo.py", "--layers", *value.split()]
    assert asked == [words if plain else ["/bin/sh", "-c", " ".join(command)]]


def test_shell_that_refuses_fails_the_job(tmp_path: Path) -> None:
    one = job(tmp_path, DUMP, name="it's")
    assert one.run(CLOCHE_SHELL="1").returncode == 2
    failure = one.failure()
    assert failure.startswith("ExecuteUserScriptError:\nExitCode 2\n")
    assert failure.endswith(f'Command "{sys.executable} hpo.py --name it\'s"')


def test_shell_script_by_a_shell(tmp_path: Path) -> None:
    """The toolkit quotes the values, puts all in double quotes, then joins it for a shell."""
    one = Job(
        tmp_path / "ml",
        {"x.sh": '#!/bin/sh\nfor a in "$@"; do echo "[$a]"; done\n'},
        {"sagemaker_program": '"x.sh"', "name": '"two words"', "quoted": '"\\"cpu\\""'},
    )
    done = one.run(CLOCHE_SHELL="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[--name]\n[two words]\n[--quoted]\n[cpu]\n" in done.stdout


def test_requirements_are_installed_first(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "clochetestwheel", "1.0", "VALUE = 42\n")
    one = job(tmp_path, "import clochetestwheel; print('VALUE', clochetestwheel.VALUE)")
    one.code["requirements.txt"] = f"{path}\n"
    done = one.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("-r requirements.txt") < done.stdout.index("VALUE 42")
    assert (tmp_path / "packages/clochetestwheel.py").exists(), "outside a sandbox: beside the job"
    assert importlib.util.find_spec("clochetestwheel") is None


def test_requirements_that_fail_end_the_job(tmp_path: Path) -> None:
    one = job(tmp_path, "print('not reached')")
    one.code["requirements.txt"] = "no-such-package-anywhere==1\n"
    done = one.run()
    assert done.returncode == 1 and "not reached" not in done.stdout.split("Reporting")[0]
    assert one.failure().startswith("InstallRequirementsError:\nExitCode 1\n")
    assert "no-such-package-anywhere" in one.failure()


def test_missing_entry_point_is_named(tmp_path: Path) -> None:
    one = Job(tmp_path / "ml", {"other.py": ""}, {"sagemaker_program": "hpo.py"})
    assert one.run().returncode == 1
    assert "The entry point hpo.py is not in" in one.failure() and "other.py" in one.failure()


def test_no_entry_point_is_said(tmp_path: Path) -> None:
    one = Job(tmp_path / "ml", {"other.py": ""}, {})
    assert one.run().returncode == 1
    assert "sagemaker_program" in one.failure()


def test_local_submit_directory(tmp_path: Path) -> None:
    one = job(tmp_path, DUMP)
    runner = one.prepare()
    archive = tmp_path / "ml/input/data/training/sourcedir.tar.gz"
    (tmp_path / "ml/sourcedir.tar.gz").rename(archive)
    one.hyperparameters["sagemaker_submit_directory"] = str(archive)
    config = tmp_path / "ml/input/config/hyperparameters.json"
    config.write_text(json.dumps(one.hyperparameters))
    done = subprocess.run(
        runner[:2], env=one.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    assert dumped(done.stdout)[1]["SM_MODULE_DIR"] == str(archive)


def test_sigterm_reaches_the_script_which_may_clean_up(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "def end(*_):\n    os.write(1, b'cleaned up\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('READY', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    with job(tmp_path, script).start() as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        next(line for line in lines if line.strip() == "READY")
        process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "cleaned up\n" in rest and process.returncode == 0


def test_left_over_child_does_not_hold_the_job(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL)"
    one = job(tmp_path, script)
    training_drain = one.prepare()
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, '.');"
        "import importlib.util as u; s = u.spec_from_file_location('t', sys.argv[0]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); m.DRAIN_S = 0.1;"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *training_drain[1:]],
        env=one.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=15,
    )
    assert done.returncode == 0


def test_master_address_is_the_containers_where_hosts_have_no_names() -> None:
    env = {"hosts": ["algo-1", "algo-2"], "master_hostname": "algo-2"}
    assert training.master_address(env, "algo-1") == training.master_address(env, None) == "algo-2"
    assert training.master_address(env, "127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("package", "Python packages are not supported for torch_distributed."),
        ("command", "Unsupported entry point type for torch_distributed"),
    ],
)
def test_torchrun_starts_scripts_alone(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        training.torchrun(kind, {"distribution_hosts": ["algo-1"]}, "algo-1", [])
