"""Telling faults of PostgreSQL apart."""

import asyncio
import errno
import socket

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.faults import (
    ReadOnlyServerError,
    constraint_of,
    is_lost_connection,
    is_transient,
    may_be_outage,
    sqlstate_of,
    why_delayed,
    why_unavailable,
)
from arqonce.database.settings import DatabaseSettings
from arqonce.unreachable import _LOCAL


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", True),
        ("25006", True),
        ("40001", True),
        ("40P01", True),
        ("53300", True),
        ("55P03", True),
        ("57P01", True),
        ("22001", False),
        ("23505", False),
        ("42501", False),
    ],
)
async def test_the_sqlstate_decides_what_may_pass(session: AsyncSession, state: str, *, expected: bool) -> None:
    """Errors of the server, raised by a real one, are told apart by their code."""
    with pytest.raises(DBAPIError) as caught:
        await session.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))

    assert (sqlstate_of(caught.value), is_transient(caught.value)) == (state, expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (PoolTimeoutError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (ValueError("of the handler"), False),
    ],
)
def test_an_unanswered_question_may_pass(error: Exception, *, expected: bool) -> None:
    """No answer at all is an outage; an error of our own code is none."""
    assert is_transient(error) is expected
    assert (sqlstate_of(error), constraint_of(error)) == (None, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), "nothing listens there"),
        (TimeoutError(), "it does not answer in time"),
        (PoolTimeoutError(), "no connection of the pool was free in time"),
        (socket.gaierror(), "the host's name is not known"),
        (asyncpg.InterfaceError("connection is closed"), "the connection was lost"),
        (ConnectionResetError(), "the connection was lost"),
        (asyncpg.InvalidPasswordError(), "it refuses the password (SQLSTATE 28P01)"),
        (asyncpg.TooManyConnectionsError(), "it accepts no more connections (SQLSTATE 53300)"),
        (asyncpg.InsufficientPrivilegeError(), "it refuses us (SQLSTATE 42501)"),
        (asyncpg.ConnectionDoesNotExistError(), "the connection was lost"),
        (asyncpg.InvalidCatalogNameError(), "it has no such database (SQLSTATE 3D000)"),
        (asyncpg.ProtocolViolationError("no such database: jane"), "PgBouncer has no such database"),
        (asyncpg.ProtocolViolationError("jane"), "it refuses us (SQLSTATE 08P01)"),
        (OSError(), "no answer: OSError"),
        (OSError(errno.EMFILE, "Too many open files"), _LOCAL[errno.EMFILE]),
    ],
)
def test_an_outage_is_logged_with_its_cause(error: Exception, expected: str) -> None:
    """Not with the name of a class of the driver."""
    assert why_unavailable(error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), "nothing listens there"),
        (ReadOnlyServerError("it is a standby"), "it is a standby"),
        (asyncpg.UndefinedTableError(), "a table is missing: "),
        (asyncpg.InsufficientPrivilegeError(), "this user lacks a privilege: "),
        (TimeoutError(), "it does not answer in time"),
        (asyncpg.DivisionByZeroError(), "None"),
    ],
)
def test_what_delays_a_task_is_named(error: Exception, expected: str) -> None:
    """And not by frames of the driver, unless the task's own code may be at fault."""
    assert str(why_delayed(error)).startswith(expected)


async def test_a_connection_that_could_not_be_made_is_a_lost_one() -> None:
    """A server that stood still, or was away for a moment: by the time one asks, it answers again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError) as late:
            await asyncpg.connect(host="127.0.0.1", port=port, user="jane", timeout=0.05)
    with pytest.raises(ConnectionRefusedError) as refused:
        await asyncpg.connect(host="127.0.0.1", port=port, user="jane", timeout=5)
    with pytest.raises(ConnectionRefusedError) as other:
        await asyncio.open_connection("127.0.0.1", port)

    assert [is_lost_connection(caught.value) for caught in (late, refused, other)] == [True, True, False]


async def test_a_refused_connection_is_no_fault_of_a_statement(database: DatabaseSettings) -> None:
    """Whatever its SQLSTATE: CONNECT was revoked (42501), a trigger on log-ins raises (P0001), ALLOW_CONNECTIONS."""
    url = database.url.get_secret_value()
    with pytest.raises(asyncpg.UndefinedObjectError) as caught:
        await asyncpg.connect(url, server_settings={"no_such_setting": "on"})

    told = why_unavailable(caught.value)
    assert (is_transient(caught.value), may_be_outage(caught.value)) == (True, True)
    assert told == "it refuses the connection (SQLSTATE 42704)"
