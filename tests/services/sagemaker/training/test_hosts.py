"""Training jobs on several instances, end to end: names, addresses, shares, failures, launchers."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from training_client import BUCKET, Trainer, channel

from cloche.testing.platform import Platform


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    made = Trainer(platform)
    for name in "abcd":
        made.put(f"parts/{name}.txt", name)
    return made


def instances(count: int, of: str = "ml.m5.2xlarge") -> dict[str, Any]:
    return {"InstanceType": of, "InstanceCount": count, "VolumeSizeInGB": 1}


def model(trainer: Trainer, name: str) -> dict[str, str]:
    """The text of each file in a job's model archive."""
    found = {}
    data = io.BytesIO(trainer.get(f"out/{name}/output/model.tar.gz"))
    with tarfile.open(fileobj=data) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            found[member.name] = file.read().decode() if file else ""
    return found


# Each host says hello to algo-1, which answers when all have: so all must run at once.
MEET = """
import json, os, socket, time
hosts, me = json.loads(os.environ["SM_HOSTS"]), os.environ["SM_CURRENT_HOST"]

def meet():
    if me == hosts[0]:
        with socket.create_server((me, 7777), backlog=64) as server:
            others = [server.accept()[0] for _ in hosts[1:]]
            for other in others:
                other.sendall(b"go")
                other.close()
        return
    for _ in range(600):
        try:
            with socket.create_connection((hosts[0], 7777)) as first:
                assert first.recv(2) == b"go"
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nobody there")
"""

FACTS = (
    MEET
    + """
import sys
open("/opt/ml/model/common", "w").write(me)
open("/tmp/mine", "w").write(me)
meet()
facts = {
    "name": socket.gethostname(),
    "addresses": [socket.gethostbyname(host) for host in hosts],
    "listed": os.listdir("/opt/ml/model")
    # The environment may itself lie below /tmp, and is mounted at its own path.
    + [n for n in os.listdir("/tmp") if not sys.prefix.startswith(f"/tmp/{n}/")],
    "all": sorted(os.listdir(os.environ["SM_CHANNEL_ALL"])),
    "parts": sorted(os.listdir(os.environ["SM_CHANNEL_PARTS"])),
    "master": os.environ["MASTER_ADDR"],
}
open("/opt/ml/model/" + me, "w").write(json.dumps(facts))
print("I am", me)
"""
)


def test_four_hosts_each_with_its_own(trainer: Trainer) -> None:
    parts = channel("parts", f"s3://{BUCKET}/parts/")
    parts["DataSource"]["S3DataSource"]["S3DataDistributionType"] = "ShardedByS3Key"
    job = trainer.train(
        FACTS,
        ResourceConfig=instances(4),
        InputDataConfig=[channel("all", f"s3://{BUCKET}/parts/"), parts],
    )
    name, hosts = job["TrainingJobName"], [f"algo-{number}" for number in (1, 2, 3, 4)]
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = model(trainer, name)
    assert sorted(found) == [*hosts, "common"] and found["common"] == "algo-1"
    facts = [json.loads(found[host]) for host in hosts]
    assert [one["name"] for one in facts] == hosts
    assert len(set(facts[0]["addresses"])) == 4
    assert all(one["addresses"] == facts[0]["addresses"] for one in facts)
    assert all(sorted(one["listed"]) == ["common", "mine"] for one in facts), "private folders"
    assert all(one["all"] == ["a.txt", "b.txt", "c.txt", "d.txt"] for one in facts)
    assert [one["parts"] for one in facts] == [["a.txt"], ["b.txt"], ["c.txt"], ["d.txt"]]
    assert {one["master"] for one in facts} == {"algo-1"}
    for host in hosts:
        said = [line for line in trainer.log(name, host).splitlines() if line.startswith("I am")]
        assert said == [f"I am {host}"]


def test_sixteen_hosts_run_at_once(trainer: Trainer) -> None:
    script = MEET + "meet()\nprint(me, 'met', len(hosts))"
    job = trainer.train(script, ResourceConfig=instances(16))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "algo-16 met 16" in trainer.log(job["TrainingJobName"], "algo-16").splitlines()


FAILING = (
    MEET
    + """
import signal, sys
def stopped(*_):
    print("told to stop")
    sys.exit(0)
signal.signal(signal.SIGTERM, stopped)
meet()
if me == "algo-2":
    raise ValueError("this one is broken")
time.sleep(60)
"""
)


def test_one_host_that_fails_ends_the_job_and_is_named(trainer: Trainer) -> None:
    job = trainer.train(FAILING, ResourceConfig=instances(3))
    assert job["TrainingJobStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n")
    assert "ValueError: this one is broken" in reason
    assert reason.endswith(", exit code: 1, host: algo-2")
    for host in ("algo-1", "algo-3"):
        assert "told to stop" in trainer.log(job["TrainingJobName"], host).splitlines()


GROUPS = """
import json, os
me = os.environ["SM_CURRENT_HOST"]
wanted = ("SM_IS_", "SM_CHANNEL_")
found = {k: v for k, v in os.environ.items() if "GROUP" in k or k.startswith(wanted)}
open("/opt/ml/model/" + me, "w").write(json.dumps(found))
"""


def test_groups_of_instances(trainer: Trainer) -> None:
    cpu = {"InstanceGroupName": "cpu", "InstanceType": "ml.c5.xlarge", "InstanceCount": 1}
    data = {"InstanceGroupName": "data", "InstanceType": "ml.m5.large", "InstanceCount": 2}
    some = channel("some", f"s3://{BUCKET}/parts/")
    some["DataSource"]["S3DataSource"]["InstanceGroupNames"] = ["data"]
    job = trainer.train(
        GROUPS,
        ResourceConfig={"InstanceGroups": [cpu, data], "VolumeSizeInGB": 1},
        InputDataConfig=[channel("all", f"s3://{BUCKET}/parts/"), some],
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["ResourceConfig"] == {"InstanceGroups": [cpu, data], "VolumeSizeInGB": 1}
    found = {
        host: json.loads(text) for host, text in model(trainer, job["TrainingJobName"]).items()
    }
    assert {host: one["SM_CURRENT_INSTANCE_GROUP"] for host, one in found.items()} == {
        "algo-1": "cpu",
        "algo-2": "data",
        "algo-3": "data",
    }
    assert json.loads(found["algo-3"]["SM_CURRENT_INSTANCE_GROUP_HOSTS"]) == ["algo-2", "algo-3"]
    assert json.loads(found["algo-1"]["SM_INSTANCE_GROUPS"]) == ["cpu", "data"]
    assert json.loads(found["algo-1"]["SM_INSTANCE_GROUPS_DICT"])["data"]["hosts"] == [
        "algo-2",
        "algo-3",
    ]
    assert found["algo-1"]["SM_IS_HETERO"] == "true"
    assert json.loads(found["algo-1"]["SM_DISTRIBUTION_INSTANCE_GROUPS"]) == []
    assert "SM_CHANNEL_SOME" in found["algo-2"] and "SM_CHANNEL_SOME" not in found["algo-1"]


# The steps of AWS's pytorch_mnist/mnist.py, on numbers instead of pictures.
GLOO = """
import argparse, json, os, sys
import torch
import torch.distributed as dist
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default=None)
parser.add_argument("--hosts", type=list, default=json.loads(os.environ["SM_HOSTS"]))
parser.add_argument("--current-host", default=os.environ["SM_CURRENT_HOST"])
args = parser.parse_args()
if "WORLD_SIZE" not in os.environ:
    os.environ["WORLD_SIZE"] = str(len(args.hosts))
    os.environ["RANK"] = str(args.hosts.index(args.current_host))
dist.init_process_group(backend=args.backend)
rank, world = dist.get_rank(), dist.get_world_size()
print("Initialized", args.backend, "on", world, "nodes. Current host rank is", rank)

torch.manual_seed(1)
data = torch.randn(64, 4)
labels = (data.sum(1) > 0).long()
mine = torch.utils.data.distributed.DistributedSampler(data, world, rank, shuffle=False)
chosen = torch.tensor(list(mine))
model = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
for _ in range(20):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(data[chosen]), labels[chosen]).backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad.data, op=dist.ReduceOp.SUM)
        parameter.grad.data /= world
    optimizer.step()
right = (model(data).argmax(1) == labels).float().mean().item()
total = sum(parameter.sum().item() for parameter in model.parameters())
print(f"accuracy {right:.2f} of {len(chosen)} weights {total:.5f}")
if rank == 0:
    torch.save(model.module.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
# Torch 2.14 sometimes aborts when the interpreter is taken down ("terminate called without an
# active exception"), long after the training: this leaves without that.
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.torch
@pytest.mark.parametrize("launcher", [{}, {"sagemaker_torch_distributed_enabled": "true"}])
def test_gloo_between_hosts(trainer: Trainer, launcher: dict[str, str]) -> None:
    job = trainer.train(
        GLOO, ResourceConfig=instances(2), HyperParameters={"backend": '"gloo"'} | launcher
    )
    name = job["TrainingJobName"]
    logs = [trainer.log(name, host) for host in ("algo-1", "algo-2")]
    assert job["TrainingJobStatus"] == "Completed", "\n".join([job["FailureReason"], *logs])
    ends = [next(line for line in log.splitlines() if line.startswith("accuracy")) for log in logs]
    assert ends[0] == ends[1] and " of 32 " in ends[0], "one model, half the data each"
    assert "Initialized gloo on 2 nodes. Current host rank is 1" in logs[1]
    command = "torchrun --nnodes 2 --nproc_per_node 1 --master_addr algo-1 --master_port 7777"
    assert (f"{command} --node_rank 1 hpo.py --backend gloo" in logs[1]) == bool(launcher)
