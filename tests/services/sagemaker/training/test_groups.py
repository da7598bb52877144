"""Instance groups: who is in which, what each host is told and given, what is refused."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from training_world import World, channel, config_file

from cloche.core.errors import AwsError
from cloche.services.sagemaker.training.record import InstanceGroup, instance_groups
from cloche.services.sagemaker.training.resources import check_group_names, check_types
from cloche.services.sagemaker.training.status import SecondaryStatus as S

TWO = {
    "InstanceGroups": [
        {"InstanceGroupName": "cpu", "InstanceType": "ml.c5.xlarge", "InstanceCount": 1},
        {"InstanceGroupName": "data", "InstanceType": "ml.m5.large", "InstanceCount": 2},
    ],
    "VolumeSizeInGB": 1,
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.bucket(in__a="A", in__b="B", in__c="C")
    yield made
    made.close()


def test_hosts_are_numbered_through_all_groups() -> None:
    assert instance_groups(TWO) == (
        InstanceGroup("cpu", "ml.c5.xlarge", ("algo-1",)),
        InstanceGroup("data", "ml.m5.large", ("algo-2", "algo-3")),
    )
    one = {"InstanceType": "ml.m5.large", "InstanceCount": 16}
    (group,) = instance_groups(one)
    assert group.name == "homogeneousCluster" and group.hosts[-1] == "algo-16"


async def test_hosts_see_their_groups_and_get_their_channels(world: World) -> None:
    sharded = {"S3DataDistributionType": "ShardedByS3Key"}
    await world.create(
        ResourceConfig=TWO,
        InputDataConfig=[
            channel("all", "s3://bucket/in/"),
            channel("some", "s3://bucket/in/", InstanceGroupNames=["data"]),
            channel("parts", "s3://bucket/in/", InstanceGroupNames=["data"], **sharded),
        ],
    )
    await world.until(S.TRAINING)
    spec = world.engine.specs[world.engine.launched[0]]
    first, _, third = spec.processes
    assert [p.cpus for p in spec.processes] == [4, 2, 2]
    assert [p.env["SM_NUM_CPUS"] for p in spec.processes] == ["1", "1", "1"], "2 CPUs, 3 hosts"
    channels = {name for name in first.env if name.startswith("SM_CHANNEL_")}
    assert channels == {"SM_CHANNEL_ALL"}
    assert third.env["SM_CHANNEL_PARTS"] == "/opt/ml/input/data/parts"
    assert set(config_file(world, "inputdataconfig.json", "algo-1")) == {"all"}
    assert set(config_file(world, "inputdataconfig.json", "algo-2")) == {"all", "some", "parts"}
    shares = [
        sorted(os.listdir(world.path("/opt/ml/input/data/parts", host)))
        for host in ("algo-2", "algo-3")
    ]
    assert shares == [["a", "c"], ["b"]]
    assert config_file(world, "resourceconfig.json", "algo-3") == {
        "current_host": "algo-3",
        "current_instance_type": "ml.m5.large",
        "current_group_name": "data",
        "hosts": ["algo-1", "algo-2", "algo-3"],
        "instance_groups": [
            {
                "instance_group_name": "cpu",
                "instance_type": "ml.c5.xlarge",
                "hosts": ["algo-1"],
            },
            {
                "instance_group_name": "data",
                "instance_type": "ml.m5.large",
                "hosts": ["algo-2", "algo-3"],
            },
        ],
        "network_interface_name": "lo",
    }


def changed(**changes: Any) -> dict[str, Any]:
    first, second = TWO["InstanceGroups"]  # type: ignore[misc]
    return TWO | {"InstanceGroups": [first, second | changes]}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({}, "ResourceConfig.InstanceType is required."),
        (
            TWO | {"InstanceType": "ml.m5.large"},
            "ResourceConfig has InstanceGroups and InstanceType",
        ),
        (
            changed(InstanceGroupName="cpu"),
            "The names of InstanceGroups must be unique; repeated: cpu.",
        ),
        (changed(InstanceCount=0), "InstanceCount must be at least 1; it is less in: data."),
        (
            changed(InstanceType="ml.trn1.2xlarge"),
            "Cloche does not support the instance type ml.trn1.2xlarge.",
        ),
    ],
)
def test_resources_that_are_refused(resources: dict[str, Any], text: str) -> None:
    with pytest.raises(AwsError) as error:
        check_types(resources)
    assert error.value.message.startswith(text)


def test_channel_for_a_group_that_is_not_there() -> None:
    channels = [channel("c", "s3://bucket/in", InstanceGroupNames=["data", "gpu"])]
    check_group_names([channel("d", "s3://bucket/in")], {})
    with pytest.raises(AwsError, match="ResourceConfig lacks: gpu"):
        check_group_names(channels, TWO)
