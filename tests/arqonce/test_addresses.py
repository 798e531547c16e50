"""How the addresses of one host are tried."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from arqonce import DatabaseSettings, JobClient, open_database

_NAME = "several.example"


def _listen_in_silence(stack: ExitStack, port: int) -> None:
    """Take the port of another address of loopback, whose queue of new connections is full: they get no answer."""
    listening = stack.enter_context(closing(socket.socket()))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.1.1.1", port))
    listening.listen(0)
    for _ in range(3):
        waiting = stack.enter_context(closing(socket.socket()))
        waiting.settimeout(0)
        waiting.connect_ex(("127.1.1.1", port))


@pytest.fixture
def several_addresses(monkeypatch: pytest.MonkeyPatch, database: DatabaseSettings, valkey_url: str) -> Iterator[None]:
    """Give a name two addresses, of which the first is silent."""
    ask = socket.getaddrinfo

    def find(host: Any, *rest: Any, **options: Any) -> list[Any]:  # noqa: ANN401 - as it is called
        names = ["127.1.1.1", "127.0.0.1"] if host in {_NAME, _NAME.encode()} else [host]
        return [found for name in names for found in ask(name, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    with ExitStack() as stack:
        for url in (database.url.get_secret_value(), valkey_url):
            _listen_in_silence(stack, urlsplit(url).port or 0)
        yield


@pytest.mark.usefixtures("several_addresses")
async def test_a_silent_address_of_a_host_does_not_hide_the_others(database: DatabaseSettings, valkey_url: str) -> None:
    """IPv6 that leads nowhere, or a name that still has a machine that is gone: the time was over after the first."""
    url = SecretStr(database.url.get_secret_value().replace("127.0.0.1", _NAME))

    async with open_database(DatabaseSettings(url=url), pool_size=1) as sessions, sessions() as session:
        answer = await session.scalar(text("SELECT 1"))
    async with JobClient(valkey_url.replace("127.0.0.1", _NAME)) as client:
        await client.ping()

    assert answer == 1
