"""The engine and its limits, on a real server."""

import asyncio
import socket
import time
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, insert, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database import loans
from arqonce.database.engine import open_database
from arqonce.database.faults import is_transient, sqlstate_of
from arqonce.database.limits import KEEPALIVE
from arqonce.database.settings import DatabaseSettings
from db.tables import User
from jobs.registry import REGISTRY
from tests.faults.proxy import open_proxy


async def _scalar(sessions: async_sessionmaker[AsyncSession], statement: str) -> object:
    async with sessions() as session:
        return await session.scalar(text(statement))


async def test_connections_carry_name_and_time_limits(database: DatabaseSettings) -> None:
    """An operator sees whose connections these are; the server ends what takes too long."""
    named = database.model_copy(update={"application_name": "named", "statement_timeout": timedelta(seconds=7)})

    async with open_database(named, pool_size=1) as sessions:
        found = [await _scalar(sessions, f"SHOW {name}") for name in ("application_name", "statement_timeout")]

    assert found == ["named", "7s"]


async def test_the_server_cancels_a_long_statement(database: DatabaseSettings) -> None:
    """A statement over its limit fails, as something that may pass."""
    short = database.model_copy(update={"statement_timeout": timedelta(milliseconds=200)})

    async with open_database(short, pool_size=1) as sessions:
        with pytest.raises(DBAPIError) as caught:
            await _scalar(sessions, "SELECT pg_sleep(10)")

    assert (sqlstate_of(caught.value), is_transient(caught.value)) == ("57014", True)


async def test_a_silent_server_is_given_up_in_time() -> None:
    """A host that accepts and never answers costs the connect timeout, not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = SecretStr(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        settings = DatabaseSettings(url=url, connect_timeout=timedelta(milliseconds=300))
        started = time.monotonic()

        async with open_database(settings, pool_size=1) as sessions:
            with pytest.raises(TimeoutError) as caught:
                await _scalar(sessions, "SELECT 1")

    assert time.monotonic() - started < 5
    assert is_transient(caught.value)


async def test_there_are_never_more_connections_than_the_pool(database: DatabaseSettings) -> None:
    """The size is the limit: no overflow."""
    counted = database.model_copy(update={"application_name": "counted"})
    async with open_database(counted, pool_size=3) as sessions:
        await asyncio.gather(*(_scalar(sessions, "SELECT pg_sleep(0.05)") for _ in range(12)))

        open_now = await _scalar(sessions, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'")

    assert open_now == 3


async def test_a_connection_that_was_closed_while_idle_costs_nothing(
    database: DatabaseSettings, session: AsyncSession
) -> None:
    """By an operator, a restart, or idle_session_timeout: the next one who needs it gets another."""
    async with open_database(database, pool_size=1) as sessions:
        made: list[Any] = []
        event.listen(sessions.kw["bind"].sync_engine, "connect", lambda connection, _entry: made.append(connection))
        before = await _scalar(sessions, "SELECT pg_backend_pid()")
        await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})
        async with asyncio.timeout(5):
            while not made[0]._connection.is_closed():
                await asyncio.sleep(0.01)

        after = await _scalar(sessions, "SELECT pg_backend_pid()")

    assert after not in {None, before}


async def test_the_end_closes_every_connection(
    database: DatabaseSettings, shared_sessions: async_sessionmaker[AsyncSession]
) -> None:
    """After the context no backend of ours is left."""
    closing = database.model_copy(update={"application_name": "closing"})
    async with open_database(closing, pool_size=3) as sessions:
        await asyncio.gather(*(_scalar(sessions, "SELECT pg_sleep(0.05)") for _ in range(3)))

    for _ in range(100):
        left = await _scalar(
            shared_sessions, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
        )
        if left == 0:
            break
        await asyncio.sleep(0.05)  # the server notices a closed socket a moment later
    assert left == 0


async def test_a_server_that_hangs_holds_up_no_end(database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections are given up together, however many are idle."""
    monkeypatch.setattr(loans, "_CLOSE_LIMIT", timedelta(milliseconds=100))
    url = make_url(database.url.get_secret_value())
    with open_proxy(url.port or 5432) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        settings = database.model_copy(update={"url": SecretStr(through)})
        async with open_database(settings, pool_size=3) as sessions:
            await asyncio.gather(*(_scalar(sessions, "SELECT pg_sleep(0.1)") for _ in range(3)))
            proxy.silence()
            began = time.monotonic()
        took = time.monotonic() - began

    assert took < 2


async def test_errors_do_not_repeat_parameters(session: AsyncSession) -> None:
    """SQLAlchemy's part of an error hides people's data; its DETAIL line is left to the logs' rule."""
    with pytest.raises(IntegrityError) as caught:
        await session.execute(insert(User).values(name="x" * 300, email="secret-person@example.org"))

    assert "parameters hidden" in str(caught.value)


def test_locks_of_a_vanished_host_end_before_the_attempts_of_its_job() -> None:
    """A half-open connection holds its locks until the server notices; each attempt waits for them once."""
    waits = DatabaseSettings(url=SecretStr("postgresql://host/database")).statement_timeout
    idle, interval, count = map(int, KEEPALIVE.values())

    assert min(spec.max_attempts for spec in REGISTRY) * waits >= 1.5 * timedelta(seconds=idle + interval * count)
