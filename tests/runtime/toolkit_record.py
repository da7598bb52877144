"""Records what AWS's training toolkit hands to a script, as `toolkit.json` beside this file.

Not a test: `python toolkit_record.py > toolkit.json`, run by an interpreter that has
`sagemaker-training` (pip install sagemaker-training, in an environment of its own).
`test_toolkit.py` runs our runner on the same files and compares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The script, and torchrun's stand-in: writes down what it was given.
DUMP = """#!{python}
import json, os, sys
found = {{"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ)}}
open(os.environ["DUMP_TO"], "w").write(json.dumps(found))
"""
PROGRAM = {"sagemaker_program": '"train.py"', "sagemaker_job_name": '"job"'}
GIVEN = {
    "SAGEMAKER_TRAINING_MODULE": "sagemaker_pytorch_container.training:main",
    "TRAINING_JOB_NAME": "job",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
HAND_OVER = """
from sagemaker_training import entry_point, environment, runner
env = environment.Environment()
launched = env.current_instance_group in env.distribution_instance_groups
kind = runner.TorchDistributedRunnerType if launched else runner.ProcessRunnerType
entry_point.run({source!r}, env.user_entry_point, env.to_cmd_args(), env.to_env_vars(),
                runner_type=kind)
"""


def group(name: str, *hosts: str, of: str = "ml.m5.xlarge") -> dict[str, Any]:
    return {"instance_group_name": name, "instance_type": of, "hosts": list(hosts)}


def resources(host: str, current: str, *groups: dict[str, Any]) -> dict[str, Any]:
    own = next(g for g in groups if g["instance_group_name"] == current)
    return {
        "current_host": host,
        "current_instance_type": own["instance_type"],
        "current_group_name": current,
        "hosts": sorted(name for g in groups for name in g["hosts"]),
        "instance_groups": list(groups),
        "network_interface_name": "eth0",
    }


def channels(*names: str) -> dict[str, Any]:
    content = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
    return {name: content | {"RecordWrapperType": "None"} for name in names}


ONE, TWO = group("homogeneousCluster", "algo-1"), group("homogeneousCluster", "algo-1", "algo-2")
CPU, DATA = group("cpu", "algo-1", of="ml.c5.xlarge"), group("data", "algo-2", "algo-3")
TYPES = {
    "epochs": "3",
    "lr": "0.001",
    "name": '"text with spaces"',
    "bare": "unquoted",
    "flag": "true",
    "nothing": "null",
    "list": '[1, "a", null]',
    "dict": '{"b": 2, "a": "x y"}',
    "k": "1",
    "big-number": "12345678901234567890",
    "nested": '{"a": {"b": [1]}}',
    "umlaut": '"\\u00e4"',
    "empty": '""',
    "_tuning_objective_metric": "test:loss",
}
TORCHRUN = {"sagemaker_torch_distributed_enabled": "true"}
CASES: dict[str, dict[str, Any]] = {
    "one host": {"resources": resources("algo-1", "homogeneousCluster", ONE)},
    "hyperparameters of all kinds": {
        "resources": resources("algo-1", "homogeneousCluster", ONE),
        "hyperparameters": TYPES,
        "channels": ("training", "valid-set", "Test"),
    },
    "second of two hosts": {"resources": resources("algo-2", "homogeneousCluster", TWO)},
    "torchrun on one host": {
        "resources": resources("algo-1", "homogeneousCluster", ONE),
        "hyperparameters": TORCHRUN | {"epochs": "3"},
    },
    "torchrun on the second of two": {
        "resources": resources("algo-2", "homogeneousCluster", TWO),
        "hyperparameters": TORCHRUN | {"epochs": "3"},
    },
    "groups, no launcher": {"resources": resources("algo-3", "data", CPU, DATA)},
    "torchrun in one group of two": {
        "resources": resources("algo-3", "data", CPU, DATA),
        "hyperparameters": TORCHRUN | {"sagemaker_distribution_instance_groups": '["data"]'},
    },
    "outside the group that torchrun is for": {
        "resources": resources("algo-1", "cpu", CPU, DATA),
        "hyperparameters": TORCHRUN | {"sagemaker_distribution_instance_groups": '["data"]'},
    },
}


def prepare(base: Path, case: dict[str, Any]) -> tuple[Path, dict[str, str]]:
    """Fill a base folder in place of /opt/ml; return the script's folder and the environment."""
    ml, source, programs = base / "ml", base / "source", base / "bin"
    names = case.get("channels", ("training",))
    for folder in ("input/config", "model", "output/data", "code"):
        (ml / folder).mkdir(parents=True)
    for name in names:
        (ml / "input/data" / name).mkdir(parents=True)
    files = {
        "hyperparameters": PROGRAM | case.get("hyperparameters", {}),
        "inputdataconfig": channels(*names),
        "resourceconfig": case["resources"],
    }
    for name, content in files.items():
        (ml / "input/config" / f"{name}.json").write_text(json.dumps(content))
    for path in (source / "train.py", programs / "torchrun"):
        path.parent.mkdir()
        path.write_text(DUMP.format(python=sys.executable))
        path.chmod(0o755)
    environment = GIVEN | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(base),
        "SAGEMAKER_BASE_DIR": str(ml),
        "SM_STUDIO_LOCAL_MODE": "true",  # no waiting for hosts that are not there
        "DUMP_TO": str(base / "dump.json"),
    }
    return source, environment


def handed_over(base: Path) -> dict[str, Any]:
    """Return what the script was given, with `/opt/ml` in place of the base folder."""
    text = (base / "dump.json").read_text().replace(str(base / "ml"), "/opt/ml")
    found: dict[str, Any] = json.loads(text)
    found["argv"][0] = Path(found["argv"][0]).name
    found["env"] = {
        name: json.loads(value) if value[:1] in ("{", "[") else value
        for name, value in found["env"].items()
        if name.startswith(("SM_", "SAGEMAKER_", "CURRENT_HOST")) and name not in GIVEN
    }
    for name in ("SM_STUDIO_LOCAL_MODE", "SAGEMAKER_BASE_DIR"):
        del found["env"][name]
    return found


def main() -> None:
    """Record all cases to standard output."""
    found = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            source, environment = prepare(base, case)
            program = HAND_OVER.format(source=str(source))
            subprocess.run([sys.executable, "-c", program], env=environment, check=True, stdout=2)
            found[name] = handed_over(base)
    made = f"sagemaker-training {version('sagemaker-training')}, by toolkit_record.py"
    json.dump({"made by": made, "cases": found}, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    try:
        main()
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed here") from error
