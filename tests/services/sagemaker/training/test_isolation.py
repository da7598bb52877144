"""What a training job can touch: its own files, its copy of the input, the platform's doors."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_client import BUCKET, Trainer, channel, source

from cloche.engine.local.accounts import Accounts, Resources
from cloche.engine.local.probe import reduced
from cloche.testing.platform import Platform
from cloche.testing.wheel import write_wheel


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


MEDDLE = """
import os, shutil
base = '/opt/ml/input/data/training'
os.chmod(base + '/a.txt', 0o777)
open(base + '/a.txt', 'w').write('changed')
open(base + '/new.txt', 'w').write('new')
os.link(base + '/sub/b.txt', base + '/hard.txt')
open(base + '/hard.txt', 'a').write('more')
shutil.rmtree(base + '/sub')
print('left', sorted(os.listdir(base)), open(base + '/a.txt').read())
"""


def test_script_that_meddles_with_its_input_changes_nothing_in_s3(trainer: Trainer) -> None:
    before = {k: trainer.get(k) for k in trainer.keys("in/")}
    log = trainer.completed(MEDDLE)
    assert "left ['a.txt', 'hard.txt', 'new.txt'] changed" in log.splitlines()
    assert {k: trainer.get(k) for k in trainer.keys("in/")} == before
    assert sorted(before) == ["in/a.txt", "in/sub/b.txt"]


MEET = """
import os, sys, time

def listed(folder):
    # The environment may itself lie below /tmp, and is mounted at its own path.
    return [n for n in os.listdir(folder) if not sys.prefix.startswith(f'{folder}/{n}/')]

me = os.environ['TRAINING_JOB_NAME']
for folder in ('/opt/ml/model', '/tmp', '/dev/shm'):
    open(f'{folder}/{me}', 'w').write(me)
print('READY', flush=True)
time.sleep(float(os.environ['HOLD_S']))
for folder in ('/opt/ml/model', '/tmp', '/dev/shm'):
    print(folder, listed(folder))
print('pids', sum(p.isdigit() for p in os.listdir('/proc')))
"""


def test_two_jobs_at_once_do_not_see_each_other(
    trainer: Trainer, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = Accounts(Resources(cpus=8, memory_mib=100_000))
    monkeypatch.setattr(platform.app.engine, "accounts", roomy)
    names = [trainer.start(MEET, Environment={"HOLD_S": "6"}) for _ in range(2)]
    for name in names:
        trainer.says(name, "READY")
    assert {trainer.describe(name)["SecondaryStatus"] for name in names} == {"Training"}
    for name in names:
        assert trainer.ended(name)["TrainingJobStatus"] == "Completed", trainer.log(name)
        log = trainer.log(name).splitlines()
        for folder in ("/opt/ml/model", "/tmp", "/dev/shm"):
            assert f"{folder} ['{name}']" in log
        pids = next(line for line in log if line.startswith("pids"))
        assert int(pids.split()[1]) < 10


REACH = """
import os, socket, urllib.request
port, home = int(os.environ['PORT']), os.environ['PLACE']
try:
    socket.create_connection(('127.0.0.1', port), 2)
    print('REACHED the machine')
except OSError as error:
    print('refused', type(error).__name__)
for place in (home, os.path.dirname(home) + '/'):
    print('sees', os.path.exists(place) and os.listdir(place))
try:
    socket.create_connection(('1.1.1.1', 53), 2)
    print('REACHED the internet straight')
except OSError as error:
    print('no way out', type(error).__name__)
import boto3
print('caller', boto3.client('sts').get_caller_identity()['Arn'])
found = boto3.client('s3').get_object(Bucket=os.environ['BUCKET'], Key='in/a.txt')
print('body', found['Body'].read())
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A service of the machine on its loopback, and who connected."""
    connected: list[object] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def accept() -> None:
            try:
                connected.append(server.accept())
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], connected


def test_job_reaches_the_platform_and_nothing_else_of_the_machine(
    trainer: Trainer, platform: Platform, listener: tuple[int, list[object]]
) -> None:
    port, connected = listener
    home = str(platform.home.path)
    environment = {"PORT": str(port), "PLACE": home, "BUCKET": BUCKET}
    log = trainer.completed(REACH, Environment=environment).splitlines()
    assert "refused ConnectionRefusedError" in log
    assert [line for line in log if line.startswith("sees")] == ["sees False"] * 2
    assert any(line.startswith("no way out") for line in log)
    assert not connected
    account = platform.app.config.account
    role = trainer.role.rsplit("/", 1)[1]
    (caller,) = [line for line in log if line.startswith("caller")]
    assert caller.startswith(f"caller arn:aws:sts::{account}:assumed-role/{role}/")
    assert "body b'A'" in log


ISOLATED = """
import os, socket
print([n for n in os.environ if 'PROXY' in n.upper() or n.startswith('AWS_ENDPOINT')])
for port in (int(os.environ['GATEWAY']), int(os.environ['GATEWAY']) + 1):
    s = socket.socket(); s.settimeout(2)
    try:
        s.connect(('127.0.0.1', port)); s.send(b'GET /_cloche/health HTTP/1.0\\r\\n\\r\\n')
        print('answer', s.recv(10))
    except OSError as error:
        print('nothing', type(error).__name__)
"""


def test_isolated_job_reaches_nothing(trainer: Trainer, platform: Platform) -> None:
    gateway = str(platform.app.config.port)
    log = trainer.completed(
        ISOLATED, EnableNetworkIsolation=True, Environment={"GATEWAY": gateway}
    ).splitlines()
    assert "[]" in log
    assert len([line for line in log if line.startswith("nothing")]) == 2, log


def test_requirements_change_nothing_outside(trainer: Trainer, tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "clochetestwheel", "1.0", "VALUE = 42\n")
    name = path.name
    trainer.put(f"wheels/{name}", path.read_bytes())
    uri = trainer.put(
        "req/sourcedir.tar.gz",
        source(
            {
                "hpo.py": "import clochetestwheel; print('VALUE', clochetestwheel.VALUE)",
                "requirements.txt": f"--no-index\n/opt/ml/input/data/wheels/{name}\n",
            }
        ),
    )
    log = trainer.completed(
        HyperParameters={"sagemaker_program": "hpo.py", "sagemaker_submit_directory": uri},
        InputDataConfig=[channel("wheels", f"s3://{BUCKET}/wheels/")],
    )
    assert log.index("pip install -r requirements.txt") < log.index("VALUE 42")
    assert importlib.util.find_spec("clochetestwheel") is None


WITHOUT = """
import os
data = os.environ['SM_CHANNEL_TRAINING']
print('input', sorted(os.listdir(data)))
os.chmod(data + '/a.txt', 0o600)
open(data + '/a.txt', 'w').write('changed')
open(os.environ['SM_MODEL_DIR'] + '/model.pth', 'w').write('weights')
"""


def test_machine_without_sandboxes_trains_by_the_paths_in_variables(
    trainer: Trainer, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(platform.app.engine), "machine", reduced("namespaces are refused here")
    )
    name = trainer.start(WITHOUT)
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
    assert "input ['a.txt', 'sub']" in trainer.log(name).splitlines()
    assert trainer.keys(f"out/{name}/") == [f"out/{name}/output/model.tar.gz"]
    assert trainer.get("in/a.txt") == b"A"
