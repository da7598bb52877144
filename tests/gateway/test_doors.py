"""Doors: who calls is known by where the call comes in."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from recorder import Anything

from cloche.core.clock import ManualClock
from cloche.core.config import Config, Home
from cloche.core.errors import AwsError
from cloche.core.identity import Credential, Principal
from cloche.engine import Doors
from cloche.gateway import Gateway
from cloche.gateway.authority import Authority
from cloche.gateway.doors import CREDENTIALS_PATH, Doorkeeper
from cloche.gateway.egress import Fenced, Upstream
from cloche.gateway.own_paths import LocalRequest
from cloche.records.secrets import Secrets

ROLE = "arn:aws:iam::123456789012:role/service-role/Mine"
WHERE = {"account": "123456789012", "region": "us-east-1", "role_arn": ROLE}


class FakeEngine:
    """Hands out sockets on the machine's loopback, as a gang's would be in its own network."""

    def __init__(self) -> None:
        self.gangs: dict[str, Doors] = {}
        self.asked = 0

    def run(self, gang: str) -> None:
        def listening() -> socket.socket:
            return socket.create_server(("127.0.0.1", 0))

        self.gangs[gang] = Doors(listening(), listening())

    def doors(self, gang: str) -> Doors | None:
        self.asked += 1
        kept = self.gangs.get(gang)
        if kept is None:
            return None
        return Doors(kept.platform.dup(), kept.proxy.dup())

    def port(self, gang: str) -> int:
        return int(self.gangs[gang].platform.getsockname()[1])


class FakeSessions:
    """Issues numbered keys."""

    def __init__(self) -> None:
        self.issued = 0
        self.roles = {ROLE}

    async def session(
        self, role_arn: str, session_name: str, duration_s: int, now: datetime
    ) -> Credential:
        if role_arn not in self.roles:
            raise KeyError(role_arn)
        self.issued += 1
        return Credential(
            access_key_id=f"ASIA{self.issued}",
            secret_access_key=f"secret for {session_name}",
            session_token="token",
            expires=now + timedelta(seconds=duration_s),
            principal=Principal(kind="assumed-role", account="1", arn=role_arn, user_id="x"),
        )


class Nobody:
    """Knows no keys."""

    def find(self, access_key_id: str) -> Credential | None:
        return None


class Setting:
    """A gateway with its doors."""

    def __init__(self, folder: Path) -> None:
        self.engine, self.sessions, self.clock = FakeEngine(), FakeSessions(), ManualClock()
        config = Config(home=Home(folder), account="123456789012")
        self.gateway = Gateway(
            {},
            Nobody(),
            store=None,  # type: ignore[arg-type]
            clock=self.clock,
            config=config,
            authorizer=Anything(),
        )
        self.doors = Doorkeeper(
            engine=self.engine,  # type: ignore[arg-type]
            gateway_for=self.gateway.for_gang,
            sessions=self.sessions,
            authority=Authority.open(folder, self.clock, Secrets.open(folder / "secrets.db")),
            egress=Fenced(Upstream(), (), 4599),
            clock=self.clock,
        )
        self.gateway.local.add(CREDENTIALS_PATH, self.doors.credentials, access="gang")

    async def get(
        self, gang: str, path: str = CREDENTIALS_PATH, host: str = "127.0.0.1:4599"
    ) -> tuple[int, dict[str, str]]:
        """Return status and JSON of a GET at the gang's door."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.engine.port(gang))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split(b" ")[1]), json.loads(body)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    await made.doors.close_all()


async def test_a_gang_gets_its_roles_credentials(setting: Setting) -> None:
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    status, keys = await setting.get("job-1")
    assert status == 200
    assert keys == {
        "RoleArn": ROLE,
        "AccessKeyId": "ASIA1",
        "SecretAccessKey": "secret for SageMaker",
        "Token": "token",
        "Expiration": "2021-11-28T18:26:00Z",
    }


async def test_credentials_are_renewed_before_clients_ask_again(setting: Setting) -> None:
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    for passed_s, key in ((0, "ASIA1"), (39 * 60, "ASIA1"), (2 * 60, "ASIA2"), (60, "ASIA2")):
        setting.clock.advance(passed_s)
        together = await asyncio.gather(*(setting.get("job-1") for _ in range(5)))
        assert {keys["AccessKeyId"] for _, keys in together} == {key}


async def test_each_gang_has_its_own(setting: Setting) -> None:
    for gang in ("job-1", "job-2"):
        setting.engine.run(gang)
        await setting.doors.open(gang, **WHERE)
    assert (await setting.get("job-1"))[1]["AccessKeyId"] == "ASIA1"
    assert (await setting.get("job-2"))[1]["AccessKeyId"] == "ASIA2"
    assert (await setting.get("job-1", "/_cloche/health"))[0] == 200


async def test_a_door_is_no_page_of_another_name(setting: Setting) -> None:
    # Without full isolation a door is a port of this machine, which browsers reach.
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    status, body = await setting.get("job-1", host="rebound.example")
    assert (status, body["code"]) == (403, "AccessDenied")
    assert (await setting.get("job-1", "/_cloche/status"))[0] == 403


async def test_a_role_that_is_gone_is_said(setting: Setting) -> None:
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    setting.sessions.roles.clear()
    status, body = await setting.get("job-1")
    assert (status, body["message"]) == (404, f"The role {ROLE} no longer exists")


async def test_opening_twice_costs_a_look_up(setting: Setting) -> None:
    setting.engine.run("job-1")
    await asyncio.gather(*(setting.doors.open("job-1", **WHERE) for _ in range(5)))
    assert setting.engine.asked == 1
    await setting.doors.open("not-running", **WHERE)
    assert "not-running" not in setting.doors.served


async def test_closed_doors_answer_no_more_and_open_again(setting: Setting) -> None:
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    await setting.doors.close("job-1")
    await setting.doors.close("job-1")
    waiting = asyncio.create_task(setting.get("job-1"))  # at the door, as after a crash
    await asyncio.sleep(0)
    await setting.doors.open("job-1", **WHERE)
    assert (await waiting)[0] == 200


async def test_a_gang_without_doors_is_served_nothing(setting: Setting) -> None:
    await setting.doors.open("isolated", **WHERE)
    assert "isolated" not in setting.doors.served
    with pytest.raises(AwsError, match="Only jobs and replicas have credentials here"):
        await setting.doors.credentials(LocalRequest("GET", CREDENTIALS_PATH, {}, {}, "isolated"))


async def test_a_gangs_proxy_is_fenced(setting: Setting) -> None:
    setting.engine.run("job-1")
    await setting.doors.open("job-1", **WHERE)
    proxy = setting.engine.gangs["job-1"].proxy
    reader, writer = await asyncio.open_connection(*proxy.getsockname())
    writer.write(f"CONNECT 127.0.0.1:{setting.engine.port('job-1')} HTTP/1.1\r\n\r\n".encode())
    assert b"403 Forbidden" in await asyncio.wait_for(reader.read(), 10)
    writer.close()
