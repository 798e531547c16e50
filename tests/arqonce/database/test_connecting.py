"""Choosing among several hosts, on real servers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from arqonce.database.connecting import READ_ONLY, Connector, UnwritableServerError, why_unwritable
from arqonce.database.hosts import Host
from arqonce.database.settings import DatabaseSettings
from tests.conftest import wait_until_async


@pytest.fixture
def silent() -> Iterator[Host]:
    """Open a host that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Host("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def real(database: DatabaseSettings) -> Host:
    """Name the server of all tests."""
    return database.hosts[0]


@asynccontextmanager
async def _connected(database: DatabaseSettings, connector: Connector, **settings: str) -> AsyncIterator[Any]:
    url = database.sqlalchemy_url
    connection = await connector(
        user=url.username, password=url.password, database=url.database, timeout=5, server_settings=settings
    )
    yield connection
    await connection.close()


async def test_a_silent_host_delays_a_connection_by_a_quarter_of_a_second(
    database: DatabaseSettings, silent: Host, real: Host
) -> None:
    """And only the first one: later ones begin with the host that was found."""
    connector = Connector([silent, real], "read-write")
    took = []

    for _ in range(2):
        begin = time.monotonic()
        async with _connected(database, connector) as connection:
            took.append(time.monotonic() - begin)
            assert await connection.fetchval("SELECT inet_server_port()") == real.port

    assert (0.2 < took[0] < 2, took[1] < 0.25) == (True, True), took


async def test_a_host_that_refuses_delays_nothing(database: DatabaseSettings, real: Host) -> None:
    """Its neighbour is asked at once."""
    begin = time.monotonic()

    async with _connected(database, Connector([Host("127.0.0.1", 1), real], "read-write")):
        took = time.monotonic() - begin

    assert took < 0.25


async def test_what_a_server_says_is_told_before_that_another_is_gone(database: DatabaseSettings, real: Host) -> None:
    """Each host with its trouble."""
    connector = Connector([Host("127.0.0.1", 1), real], "read-write")

    with pytest.raises(UnwritableServerError) as caught:
        async with _connected(database, connector, default_transaction_read_only="on"):
            pass

    assert str(caught.value) == f"127.0.0.1:1: no answer; {real}: {READ_ONLY}"


@pytest.mark.parametrize(
    ("target", "is_taken"),
    [
        ("any", True),
        ("read-write", False),
        ("primary", True),
        ("standby", False),
        ("prefer-standby", True),
        ("read-only", True),
    ],
)
async def test_a_read_only_primary_is_taken_by_who_asks_for_one(
    database: DatabaseSettings, real: Host, target: str, *, is_taken: bool
) -> None:
    """As libpq takes it (manual, "Connection Control Functions", target_session_attrs)."""
    try:
        async with _connected(database, Connector([real], target), default_transaction_read_only="on") as connection:
            found = why_unwritable(connection)
    except (UnwritableServerError, asyncpg.TargetServerAttributeNotMatched):
        found = None

    assert (found == READ_ONLY) is is_taken


async def test_a_cancelled_choice_leaves_no_connection(database: DatabaseSettings, silent: Host) -> None:
    """Whoever waits for a server has a limit, and gives up the others with it."""
    tasks = asyncio.all_tasks()

    async def are_gone() -> bool:
        return asyncio.all_tasks() == tasks

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), _connected(database, Connector([silent, silent], "read-write")):
            pass

    await wait_until_async(are_gone, 5)


async def test_a_host_that_refuses_us_is_not_told_to_be_silent(
    database: DatabaseSettings, real: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has answered, though not as we wished: whoever looks for a dead machine would look in vain."""
    connector, url = Connector([real, Host("localhost", real.port)], "read-write"), database.sqlalchemy_url
    connect = asyncpg.connect

    async def connect_to(**options: Any) -> Any:  # noqa: ANN401 - asyncpg ships no types
        if options["host"] == "localhost":
            raise asyncpg.InvalidPasswordError("wrong")
        return await connect(**options)

    monkeypatch.setattr(asyncpg, "connect", connect_to)
    with pytest.raises(UnwritableServerError) as caught:
        await connector(
            user=url.username,
            password=url.password,
            database=url.database,
            timeout=5,
            server_settings={"default_transaction_read_only": "on"},
        )

    assert f"localhost:{real.port}: it refuses us (SQLSTATE 28P01)" in str(caught.value)
