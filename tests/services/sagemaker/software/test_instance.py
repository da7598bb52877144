"""Instance types, environments, and what every instance sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from training_world import FakeEngine

from cloche.core.clock import ManualClock
from cloche.core.config import Config, Home
from cloche.environments.table import Framework
from cloche.services.sagemaker.software.images import Environment
from cloche.services.sagemaker.software.instance import (
    AUTHORITY,
    RUNTIME,
    base_environment,
    base_mounts,
    gang_name,
)
from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES

CONFIG = Config(home=Home(Path("/home")), account="123456789012", port=4000)
X = Framework("x", ("x",), ("x",))
ENGINE: Any = FakeEngine(ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
VENV = Environment(X, Path("/venv/bin/python"), (Path("/venv"), Path("/opt/python")), {})


@pytest.mark.parametrize(
    ("name", "vcpu", "memory_gib"),
    [
        ("ml.m5.2xlarge", 8, 32),
        ("ml.m5.24xlarge", 96, 384),
        ("ml.c5.9xlarge", 36, 72),
        ("ml.r5.large", 2, 16),
        ("ml.c4.8xlarge", 36, 60),
        ("ml.m8i.96xlarge", 384, 1536),
        ("ml.t2.medium", 2, 4),
        ("ml.t3.2xlarge", 8, 32),
    ],
)
def test_types_declare_what_aws_says(name: str, vcpu: int, memory_gib: float) -> None:
    kind = INSTANCE_TYPES[name]
    assert (kind.vcpu, kind.memory_gib) == (vcpu, memory_gib)
    assert kind.memory_mib == memory_gib * 1024


def test_every_cpu_type_that_trains_on_aws_is_known() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    gpu = ("g", "p", "trn", "inf")
    wanted = [
        name
        for name in model.shape_for("TrainingInstanceType").enum
        if not name.removeprefix("ml.").startswith(gpu)
    ]
    assert set(wanted) <= set(INSTANCE_TYPES), set(wanted) - set(INSTANCE_TYPES)


def test_gang_names_are_stable_short_and_new_for_each_creation() -> None:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    name = gang_name("a" * 63, "arn:1", created)
    assert name == gang_name("a" * 63, "arn:1", created) and len(name) == 35
    others = {
        gang_name("a" * 63, "arn:2", created),
        gang_name("a" * 63, "arn:1", created + timedelta(milliseconds=1)),
    }
    assert len(others | {name}) == 3


def test_interpreter_is_an_overlay_and_the_rest_can_not_be_changed() -> None:
    mounts = {m.target: (m.source.place, m.mode) for m in base_mounts(VENV, CONFIG, ENGINE)}
    assert mounts["/venv"] == ("/venv", "overlay")
    assert mounts["/opt/python"] == ("/opt/python", "ro")
    assert mounts[RUNTIME][1] == "ro" and mounts[RUNTIME][0].endswith("cloche/runtime")
    assert mounts[AUTHORITY] == ("/home/authority/bundle.pem", "ro")
    system = Environment(X, Path("/usr/bin/python3"), (Path("/venv"), Path("/usr")), {})
    assert "/usr" not in {mount.target for mount in base_mounts(system, CONFIG, ENGINE)}


def test_clients_inside_find_the_platform_and_the_way_out() -> None:
    env = base_environment(VENV, CONFIG, ("algo-1", "algo-2"), isolated=False)
    assert env["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4000"
    assert env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == (
        "http://127.0.0.1:4000/_cloche/credentials"
    )
    assert env["HTTPS_PROXY"] == env["http_proxy"] == "http://127.0.0.1:4001"
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1,localhost,algo-1,algo-2"
    assert env["AWS_CA_BUNDLE"] == env["PIP_CERT"] == AUTHORITY
    assert env["PATH"].startswith("/venv/bin:")
