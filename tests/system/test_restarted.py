"""The server is killed while clients ask: nobody is refused, who comes meanwhile waits."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, EndpointConnectionError
from killable import Killable
from killed_server import Server, end_all

ROOMY = Path(__file__).with_name("roomy.py")
CLIENTS, KILLS = 4, 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Killable]:
    made = Killable(tmp_path / "home")
    made.up()
    yield made
    made.kill_all()


def ask(client: Any) -> str:
    """Return the account that a request over a new connection is told, without a second try."""
    client.close()
    return str(client.get_caller_identity()["Account"])


class Client(threading.Thread):
    """Asks again and again, each time over a new connection."""

    def __init__(self, server: Killable) -> None:
        super().__init__(daemon=True)
        self.client, self.over = server.client("sts"), threading.Event()
        self.answered, self.errors = 0, list[BotoCoreError]()
        self.start()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                ask(self.client)
                self.answered += 1
            except BotoCoreError as error:
                self.errors.append(error)


def have(clients: list[Client], answered: list[int]) -> bool:
    return all(c.answered >= number for c, number in zip(clients, answered, strict=True))


def test_new_connections_wait_while_the_server_is_killed(server: Killable) -> None:
    sts = server.client("sts")
    clients = [Client(server) for _ in range(CLIENTS)]
    for _ in range(KILLS):
        served = [client.answered + 1 for client in clients]
        server.until(partial(have, clients, served))
        server.kill()
        # No server lives; the client has no second try.
        assert ask(sts) == "123456789012"
    for client in clients:
        client.over.set()
        client.join()
    errors = [error for client in clients for error in client.errors]
    print(f"{sum(client.answered for client in clients)} answered; errors: {errors}")
    assert not [error for error in errors if isinstance(error, EndpointConnectionError)]
    # What a server had taken up it took along.
    assert len(errors) <= CLIENTS * KILLS


def test_without_the_parent_they_are_refused(tmp_path: Path) -> None:
    """The control: the same question to a server that was started by itself."""
    alone = Server(tmp_path, ROOMY)
    try:
        alone.up(doomed=False)
        sts = alone.client("sts")
        assert ask(sts) == "123456789012"
        alone.kill()
        with pytest.raises(EndpointConnectionError, match="Could not connect to the endpoint URL"):
            ask(sts)
    finally:
        end_all(alone)
