"""Packages: a job's requirements, an added image's packages, and what one job leaves for another.

The packages come from an index on this machine; each tries to leave the canary where no sandbox
reaches, or something for a job of another role.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[import-not-found]
from importlib.util import source_hash
from pathlib import Path
from typing import Any

import psutil
import pytest
from hostile_packages import HOST, HostileIndex, wheel
from training_client import Trainer, source, wait_for

from cloche.core.config import Home
from cloche.engine import GangSpec
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.sandbox import Machine
from cloche.environments import added, background
from cloche.environments.background import Failed
from cloche.environments.ready import Ready
from cloche.testing import platform as platforms
from cloche.testing.engine_lab import Lab
from cloche.testing.local_engine import local_lab
from cloche.testing.platform import Platform

SANDBOXED = probe()
pytestmark = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
TRUST = {
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ]
}


@pytest.fixture(scope="module")
def index() -> Iterator[HostileIndex]:
    with HostileIndex() as index:
        yield index


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose jobs reach the index."""
    home = tmp_path_factory.mktemp("home")
    with platforms.start(home, allow_egress=(f"{HOST}/32",)) as running:
        yield running


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def leave(canary: Path) -> str:
    """Return code that leaves the canary, if it is run where that can be done."""
    attempt = f"try: open({str(canary)!r}, 'a').close()\nexcept OSError: pass"
    return f"exec({attempt!r})"


def run(trainer: Trainer, script: str, requirements: str, **more: Any) -> str:
    """Run a job with requirements to its end; return its name."""
    files = {"hpo.py": script, "requirements.txt": requirements}
    uri = trainer.put(f"code-{trainer.number}/sourcedir.tar.gz", source(files))
    hyperparameters = {"sagemaker_program": '"hpo.py"', "sagemaker_submit_directory": f'"{uri}"'}
    image = {"AlgorithmSpecification": {"TrainingImage": SKLEARN}}
    name = trainer.start(HyperParameters=hyperparameters, **image, **more)
    trainer.ended(name)
    return name


def fork_servers(platform: Platform) -> list[psutil.Process]:
    """Return the fork servers of the platform."""
    servers = platform.app.engine.fork_servers.servers.values()
    return [psutil.Process(one.process.pid) for one in servers if one.process.poll() is None]


def settled(platform: Platform) -> None:
    """Return when the fork servers have done what they were asked: they wait, or have ended."""
    quiet = (psutil.STATUS_SLEEPING, psutil.STATUS_ZOMBIE)
    wait_for(lambda: all(one.status() in quiet for one in fork_servers(platform)))


def poisoned(module: str, code: str) -> dict[str, str | bytes]:
    """Return a .pyc that an interpreter takes for a module's without a look at its source."""
    content = _code_to_hash_pyc(compile(code, "poison", "exec"), source_hash(b""), False)
    return {f"{module}/__pycache__/__init__.{sys.implementation.cache_tag}.pyc": bytes(content)}


WHEELS: dict[str, Callable[[str], Mapping[str, str | bytes]]] = {
    "pth": lambda code: {"evil.pth": f"import os; {code}\n"},
    "pth-by-data": lambda code: {
        "evil_data-1.data/data/lib/python{}.{}/site-packages/evil.pth".format(
            *sys.version_info[:2]
        ): f"import os; {code}\n"
    },
    "sitecustomize": lambda code: {"sitecustomize.py": f"{code}\n"},
    "replaced-package": lambda code: {"scipy/__init__.py": f"{code}\n__version__ = '9'\n"},
    "shadowing-extension": lambda code: {"joblib.py": f"{code}\n", "numpy/__init__.py": code},
    "optional-import": lambda code: {"numexpr.py": f"{code}\n__version__ = '99'\n"},
    "bytecode": lambda code: poisoned("scipy", code),
    "script-python": lambda code: {
        "evil_script-1.data/scripts/python": f"#!{os.path.realpath(sys.executable)} -IS\n{code}\n"
    },
}


@pytest.mark.parametrize("kind", WHEELS)
@pytest.mark.control(
    "At 0e393ec the engine started a fork server outside, with the layer on its path, as root: "
    "each of these wrote the canary."
)
def test_a_wheel_in_a_layer_runs_nowhere_outside(
    platform: Platform, trainer: Trainer, index: HostileIndex, canary: Path, kind: str
) -> None:
    name = f"evil_{kind.replace('-', '_')}" if kind != "pth-by-data" else "evil_data"
    name = "evil_script" if kind == "script-python" else name
    requirements = index.offer(name, WHEELS[kind](leave(canary)))
    for _ in range(2):  # the fork server is asked to import by the first, and has done so then
        run(trainer, "import scipy, pandas\n", requirements, Environment=index.settings)
        settled(platform)
    assert f"{name}-1-py3-none-any.whl" in index.downloads
    assert not canary.exists()
    for server in fork_servers(platform):
        assert "layers" not in Path(f"/proc/{server.pid}/mountinfo").read_text()
        assert not [word for word in server.cmdline() if "layers" in word]


@pytest.mark.control("test_without_a_sandbox_a_build_leaves_the_canary")
def test_a_layers_build_stays_in_its_sandbox(
    platform: Platform, trainer: Trainer, index: HostileIndex, canary: Path
) -> None:
    """The backend of a source distribution runs with nothing of the machine in sight."""
    keys = platform.home.credentials
    attack = f"open({str(canary)!r}, 'w').write(open({str(keys)!r}).read())"
    requirements = index.offer_source("evilbuild", f"try: {attack}\nexcept OSError: pass")
    name = run(
        trainer, "import evilbuild; print('VALUE', evilbuild.VALUE)", requirements,
        Environment=index.settings,
    )  # fmt: skip
    assert "VALUE 42" in trainer.log(name).splitlines()
    assert not canary.exists()


def test_without_a_sandbox_a_build_leaves_the_canary(
    platform: Platform, index: HostileIndex, canary: Path, tmp_path: Path
) -> None:
    attack = f"open({str(canary)!r}, 'w').write(open({str(platform.home.credentials)!r}).read())"
    requirement = index.offer_source("evilbuild", attack).strip()
    command = [sys.executable, "-m", "pip", "install", "--target", str(tmp_path / "to")]
    subprocess.run(
        [*command, requirement], env={**os.environ, **index.settings}, check=True,
        capture_output=True,
    )  # fmt: skip
    assert "AccessKeyId" in canary.read_text() or "access" in canary.read_text().lower()


def roles(platform: Platform) -> tuple[str, str]:
    """Return two roles that jobs may have."""
    iam = platform.client("iam", as_="root")
    found = []
    for name in ("one", "other"):
        role = iam.create_role(
            RoleName=f"{name}-{time.monotonic_ns()}", AssumeRolePolicyDocument=json.dumps(TRUST)
        )["Role"]
        policy = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
        iam.attach_role_policy(RoleName=role["RoleName"], PolicyArn=policy)
        more = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
        iam.attach_role_policy(RoleName=role["RoleName"], PolicyArn=more)
        found.append(role["Arn"])
    return found[0], found[1]


@pytest.mark.control("At 0e393ec the other role's job got the first one's layer.")
def test_a_layer_is_of_one_role(platform: Platform, trainer: Trainer, index: HostileIndex) -> None:
    """What pip ran with a role's rights, another role's job with the same file does not get."""
    numbers = iter(range(1, 10))
    index.files["changes-1-py3-none-any.whl"] = lambda: wheel(
        "changes", {"changes.py": f"VALUE = {next(numbers)}\n"}
    )
    script = "import changes; print('VALUE', changes.VALUE)"
    own, other = roles(platform)
    said = []
    for role in (own, other, own):
        name = run(trainer, script, "changes\n", Environment=index.settings, RoleArn=role)
        said += [line for line in trainer.log(name).splitlines() if line.startswith("VALUE")]
    assert said == ["VALUE 1", "VALUE 2", "VALUE 1"]


CACHE = "/opt/ml/sagemaker/warmpoolcache"


def pooled(trainer: Trainer, script: str, role: str) -> str:
    """Run a job that takes and leaves a warm pool; return its log."""
    resources = {
        "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1,
        "KeepAlivePeriodInSeconds": 600,
    }  # fmt: skip
    return trainer.completed(script, ResourceConfig=resources, RoleArn=role)


LOOK = f"import os; print('FOUND', sorted(os.listdir('{CACHE}')))"


@pytest.mark.control("test_without_another_role_the_pool_is_found")
def test_a_warm_pool_of_another_role(platform: Platform, trainer: Trainer) -> None:
    own, other = roles(platform)
    pooled(trainer, f"open('{CACHE}/sitecustomize.py', 'w').write('bad')", own)
    assert "FOUND []" in pooled(trainer, LOOK, other).splitlines()


def test_without_another_role_the_pool_is_found(platform: Platform, trainer: Trainer) -> None:
    own, _other = roles(platform)
    pooled(trainer, f"open('{CACHE}/sitecustomize.py', 'w').write('bad')", own)
    assert "FOUND ['sitecustomize.py']" in pooled(trainer, LOOK, own).splitlines()


@pytest.mark.control(
    "The first job sees in itself what it left (its own lines in the log); a fork server that "
    "ran user code would hand it on."
)
def test_what_a_job_leaves_in_its_interpreter(platform: Platform, trainer: Trainer) -> None:
    """Changed modules, files of the environment, variables: no later job finds them."""
    image = {"AlgorithmSpecification": {"TrainingImage": SKLEARN}}
    look = (
        "import os, scipy, sys, site\n"
        "site_packages = os.path.dirname(os.path.dirname(scipy.__file__))\n"
        "left = [name for name in ('left.pth', 'left.py') if name in os.listdir(site_packages)]\n"
        "print('LEFT', left, hasattr(scipy, 'LEFT'), 'LEFT' in os.environ, "
        "os.path.exists('/tmp/left'), os.path.exists('/dev/shm/left'), 'left' in sys.modules, "
        "'PYTHONSTARTUP' in os.environ)\n"
    )
    leaves = (
        "import os, scipy, sys\n"
        "scipy.LEFT, os.environ['LEFT'], sys.modules['left'] = 1, '1', sys\n"
        "os.environ['PYTHONSTARTUP'] = '/tmp/left'\n"
        "packages = os.path.dirname(os.path.dirname(scipy.__file__))\n"
        "paths = (packages + '/left.pth', packages + '/left.py', '/tmp/left', '/dev/shm/left')\n"
        "for path in paths:\n"
        "    open(path, 'w').write('x = 1\\n')\n"
    )
    first = trainer.completed(leaves + look, **image)
    later = [trainer.completed(look, **image) for _ in range(2)]
    every = "LEFT ['left.pth', 'left.py'] True True True True True True"
    assert every in first.splitlines()
    none = "LEFT [] False False False False False False"
    assert all(none in log.splitlines() for log in later)


@pytest.mark.control("The script itself has the variable (its line in the log), by the same door.")
def test_a_jobs_variables_reach_no_process_outside(
    platform: Platform, trainer: Trainer, canary: Path
) -> None:
    """What loaders, shells and interpreters obey is obeyed by the job's processes alone."""
    script = (
        "import os, time, scipy\nprint('MINE', os.environ['MARKED_BY_A_JOB'], flush=True)\n"
        "while not os.path.exists('/opt/ml/checkpoints/enough'): time.sleep(0.05)\n"
    )
    env = {
        "MARKED_BY_A_JOB": "yes",
        "LD_AUDIT": "/opt/ml/code/marked.so",
        "PYTHONSTARTUP": "/opt/ml/code/marked.py",
        "PYTHONPATH": "/opt/ml/code/marked",
        "BASH_ENV": "/opt/ml/code/marked.sh",
        "ENV": "/opt/ml/code/marked.sh",
        "PIP_LOG": str(canary),
    }
    image = {"AlgorithmSpecification": {"TrainingImage": SKLEARN}}
    name = trainer.start(script, Environment=env, **image)
    trainer.says(name, "MINE yes")
    inside = os.readlink("/proc/self/ns/pid")
    outside = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/environ")
        if readable(path) and os.readlink(path.with_name("ns") / "pid") == inside
    ]
    assert len(outside) > 3
    assert not [variables for variables in outside if b"MARKED_BY_A_JOB" in variables]
    assert not [variables for variables in outside if b"marked." in variables]
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    trainer.ended(name)
    assert not canary.exists()


def readable(path: Path) -> bool:
    try:
        os.readlink(path.with_name("ns") / "pid")
        path.read_bytes()
    except OSError:
        return False
    return True


def poison(machine: Machine, folder: Path) -> str:
    """Have one gang poison a module's bytecode, and the next one import it; return what it got."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    (packages / "clean.py").write_text("WHOSE = 'environment'\n")
    evil = (
        "import importlib.util as u, importlib._bootstrap_external as b, os\n"
        "code = compile('WHOSE = \"job\"', 'x', 'exec')\n"
        f"path = u.cache_from_source('{packages}/clean.py')\n"
        "os.makedirs(os.path.dirname(path), exist_ok=True)\n"
        "open(path, 'wb').write(b._code_to_hash_pyc(code, u.source_hash(b''), False))\n"
    )
    with local_lab(folder / "lab", machine) as lab:
        told(lab, "first", evil, packages)
        return told(lab, "second", f"import sys; sys.path.insert(0, '{packages}')\n"
                    "import clean; print(clean.WHOSE)", packages)  # fmt: skip


def told(lab: Lab, name: str, code: str, packages: Path) -> str:
    """Run Python code with the packages as an environment is mounted; return what it printed."""
    mounts = [lab.mount(packages, str(packages), "overlay")]
    base = Path(sys.base_prefix)
    if not str(base).startswith("/usr"):
        mounts.append(lab.mount(base, str(base)))
    process = lab.process("one", "true", *mounts)
    python = os.path.realpath(sys.executable)
    process = replace(process, argv=(python, "-I", "-c", code))
    lab.place(GangSpec(name=name, processes=(process,), background=True))
    lab.finished(name)
    return "\n".join(lab.log("one")[-1:])


@pytest.mark.control("test_without_sandboxes_bytecode_is_poisoned")
def test_bytecode_of_a_shared_environment(tmp_path: Path) -> None:
    assert poison(SANDBOXED, tmp_path) == "environment"


def test_without_sandboxes_bytecode_is_poisoned(tmp_path: Path) -> None:
    assert poison(reduced(), tmp_path) == "job"


def built(
    home: Home, name: str, requirement: str, settings: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Ready | Failed:  # fmt: skip
    """Add an environment and build it as `cloche image build` and the server do."""
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    home.environments.mkdir(parents=True, exist_ok=True)
    framework = added.add(home, name, [f"team/{name}"], [requirement.strip()], replace=True)

    def look() -> Ready | Failed | None:
        found = background.wanted(framework, home, since_ms)
        return found if isinstance(found, Ready | Failed) else None

    since_ms = time.time_ns() // 1_000_000
    found: Ready | Failed = wait_for(look)
    wait_for(lambda: not background.under_way(home))
    return found


@pytest.mark.parametrize("kind", ["backend", "pth", "python", "manifest"])
@pytest.mark.control(
    "At 0e393ec an added image's packages were installed and listed outside, by root: each of "
    "these wrote the canary."
)
def test_an_added_images_packages_run_nowhere_outside(
    tmp_path: Path, index: HostileIndex, canary: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A build backend, a start-up file, the environment's own python, a link where the platform
    writes what it built: all stay in the sandbox, and the environment is built.
    """
    home, name = Home(tmp_path / "home"), f"evil{kind}"
    code = leave(canary)
    environment = f"next(iter(__import__('glob').glob({str(home.environments)!r} + '/*/')))"
    if kind == "backend":
        requirement = index.offer_source(name, code)
    elif kind == "manifest":
        link = f"os.symlink({str(canary)!r}, environment + '.environment.json.new')"
        requirement = index.offer_source(
            name,
            f"import os\nenvironment = {environment}\n{link}\n"
            "try: open(environment + 'environment.json', 'w').write('{}')\n"
            "except OSError: pass\n"
            "try: os.replace(environment + 'pyvenv.cfg', environment + 'environment.json')\n"
            "except OSError: pass",
        )
    elif kind == "python":
        files = {
            f"{name}-1.data/scripts/python": f"#!{os.path.realpath(sys.executable)} -IS\n{code}\n"
        }
        requirement = index.offer(name, files)
    else:
        requirement = index.offer(name, WHEELS["pth"](code))
    found = built(home, name, requirement, index.settings, monkeypatch)
    assert not canary.exists() and not canary.is_symlink()
    assert isinstance(found, Ready), found
    assert dict(found.versions) == {name: "1"}
    files = [path.lstat() for path in found.prefixes[0].rglob("*")]
    assert {file.st_uid for file in files} == {os.geteuid()}
    assert not [file for file in files if stat.S_ISREG(file.st_mode) and file.st_mode & 0o6000]


@pytest.mark.control("At 0e393ec the build ran with the machine's network: it reached the port.")
def test_an_added_images_build_does_not_reach_the_machine(
    tmp_path: Path, index: HostileIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither straight nor by the proxy of the build: that leads to the index and to the world."""
    with HostileIndex() as victim:
        port = victim.server.server_port
        attack = (
            "import os, urllib.request as u\n"
            f"url = 'http://{HOST}:{port}/reached'\n"
            "for handler in (u.ProxyHandler({}), u.ProxyHandler()):\n"
            "    try: u.build_opener(handler).open(url, timeout=5)\n"
            "    except OSError: pass\n"
        )
        requirement = index.offer_source("evilnetwork", attack)
        found = built(Home(tmp_path / "home"), "evilnetwork", requirement, index.settings,
                      monkeypatch)  # fmt: skip
        assert isinstance(found, Ready), found
        assert victim.downloads == []


@pytest.mark.control("At 0e393ec the file was set-user-ID and root's, for any user of the machine.")
def test_a_build_leaves_no_privileged_file(
    tmp_path: Path, index: HostileIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    attack = (
        "import glob, os, shutil\n"
        f"for folder in glob.glob({str(home.environments)!r} + '/*/bin/'):\n"
        "    shutil.copy('/bin/sh', folder + 'rooted'); os.chmod(folder + 'rooted', 0o6755)\n"
    )
    found = built(home, "evilmode", index.offer_source("evilmode", attack), index.settings,
                  monkeypatch)  # fmt: skip
    assert isinstance(found, Ready), found
    mode = (found.prefixes[0] / "bin/rooted").stat().st_mode
    assert not mode & 0o6000
