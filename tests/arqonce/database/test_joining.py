"""Messages that are held go out with the next one: the same bytes, in fewer system calls."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from arqonce.database.driver import execute_last
from arqonce.database.engine import build_engine
from arqonce.database.joining import JoiningTransport
from arqonce.database.settings import DatabaseSettings
from arqonce.database.transactions import open_transaction

Sessions = async_sessionmaker[AsyncSession]


class _Recording:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def writelines(self, parts: list[bytes]) -> None:
        self.written += [bytes(part) for part in parts]

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """Yield an engine with one connection."""
    engine = build_engine(database, pool_size=1)
    yield engine
    await engine.dispose()


def test_what_is_held_goes_before_the_next_message_once() -> None:
    """In the order in which it was said, whatever writes next."""
    transport = _Recording()
    joining = JoiningTransport(transport)

    joining.write(b"1")
    joining.hold(b"2")
    joining.hold(b"3")
    joining.write(memoryview(b"4"))
    joining.write(b"5")
    joining.hold(b"6")
    joining.writelines([b"7", b"8"])
    joining.writelines([b"9"])
    joining.abort()

    assert transport.written == [b"1", b"234", b"5", b"6", b"7", b"8", b"9"]
    assert transport.is_aborted


async def test_a_transaction_of_two_statements_is_written_in_two_calls(engine: AsyncEngine) -> None:
    """BEGIN with the first, COMMIT with the last."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def note(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        await execute_last(session, "DELETE FROM users WHERE false")

    async with open_transaction(sessions) as session:  # prepares
        await note(session)
    async with sessions() as session:
        joining = (await _driver(session))._transport
    calls: list[bytes] = []
    write = joining._write

    def count(data: Any) -> None:  # noqa: ANN401 - bytes or a view
        calls.append(bytes(data))
        write(data)

    joining._write = count
    async with open_transaction(sessions) as session:
        await note(session)

    assert ["BEGIN" in str(call) for call in calls] == [True, False]


async def _driver(session: AsyncSession) -> Any:  # noqa: ANN401 - asyncpg's connection, which has no types
    adapted: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
    return adapted.raw
