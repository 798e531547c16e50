"""A plugin of pytest: lets the tests that arq publishes run on our worker class, and on the servers of our tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Self
from urllib.parse import urlsplit

import arq.connections
import arq.worker
import pytest
import pytest_asyncio

from arqonce.arq.worker import Worker

arq.worker.Worker = Worker  # type: ignore[misc] # before any test is imported


_PLACE = urlsplit(os.environ["SUITE_REDIS"])


@pytest.fixture(autouse=True)
def _default_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arq's default settings be those of our server, where they are connected with."""
    if request.module.__name__ != "tests.test_utils":
        begin = arq.connections.RedisSettings.__init__
        others = (begin.__defaults__ or ())[2:]
        monkeypatch.setattr(begin, "__defaults__", (_PLACE.hostname, _PLACE.port, *others))


class _Container:
    """Takes the place of the container that the suite would start: the server of our tests."""

    port = 6379

    def __init__(self, _image: str) -> None:
        """Start nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def get_container_host_ip(self) -> str:
        """Return the host."""
        return _PLACE.hostname or "127.0.0.1"

    def get_exposed_port(self, _port: int) -> int:
        """Return the port."""
        return _PLACE.port or 6379


_module = ModuleType("testcontainers.redis")
_module.RedisContainer = _Container  # type: ignore[attr-defined] # the only name that is asked for
sys.modules |= {"testcontainers": ModuleType("testcontainers"), "testcontainers.redis": _module}


@pytest_asyncio.fixture
async def event_loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Return the running loop, as pytest-asyncio did up to 0.26."""
    yield asyncio.get_running_loop()
