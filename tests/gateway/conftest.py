"""The gateway's tests run on the loop that the server runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop alone: its transports differ from asyncio's."""
    return {"uvloop": uvloop.new_event_loop}
