"""What handlers leave in use goes back to the pool, in any case, and the log names the job."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Integer, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import registry
from structlog.testing import capture_logs

from arqonce.database.engine import build_engine
from arqonce.database.loans import LoanError
from arqonce.database.settings import DatabaseSettings
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.payloads import Payload, Result
from arqonce.running import ReadOnlyJobError
from arqonce.spec import JobSpec

Sessions = async_sessionmaker[AsyncSession]
Body = Callable[[AsyncSession], Awaitable[object]]

_PLACES = 3


class Work(Payload[Result]):
    """A job of these tests."""

    job_name: ClassVar[str] = "work"


@pytest.fixture
async def engine(database: DatabaseSettings, sessions: Sessions) -> AsyncIterator[AsyncEngine]:
    """Yield an engine of a few connections."""
    assert sessions is not None  # it removes the receipts
    engine = build_engine(database, pool_size=_PLACES)
    yield engine
    await engine.dispose()
    gc.collect()  # tasks that nobody awaits are reported here, and not while a later test loads a module


async def _run(engine: AsyncEngine, body: Body, *, times: int = 1, reads_only: bool = False) -> list[Any]:
    async def handle(session: AsyncSession, _payload: Work) -> Result:
        await body(session)
        return Result()

    dispatcher = Dispatcher(async_sessionmaker(engine, expire_on_commit=False))
    spec, slots = JobSpec(Work, handle, reads_only=reads_only), asyncio.Semaphore(_PLACES)

    async def run(number: int) -> dict[str, Any]:
        async with slots:
            return await dispatcher.run(spec, Delivery(f"job-{number}", 1, (), {}))

    outcomes: list[Any] = await asyncio.gather(*map(run, range(times)), return_exceptions=True)
    return outcomes


async def _require_all_places(engine: AsyncEngine) -> None:
    """Use all places at once, and no other."""
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    connections = [await engine.connect() for _ in range(_PLACES)]
    for connection in connections:
        await connection.execute(text("SELECT 1"))
        await connection.close()


async def test_second_sessions_that_nobody_closes_are_closed_and_told(engine: AsyncEngine) -> None:
    """Nine jobs at once on three places: each does its work, and the log names each, with the cure."""
    kept = []

    async def leak(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        kept.append(second := AsyncSession(session.bind))
        await second.execute(text("SELECT 1"))

    with capture_logs() as logs:
        outcomes = await _run(engine, leak, times=9)

    assert outcomes == [{}] * 9
    told = {
        log["job_id"] for log in logs if "left a connection in use" in log["event"] and "async with" in log["event"]
    }
    assert told == {f"job-{number}" for number in range(9)}
    await _require_all_places(engine)


async def test_a_session_that_is_used_twice_at_once_costs_no_place(engine: AsyncEngine) -> None:
    """Whether SQLAlchemy refuses it or not: 25 such jobs at once."""

    async def use_twice(session: AsyncSession) -> None:
        await asyncio.gather(*(session.execute(text("SELECT pg_sleep(0.01)")) for _ in range(3)))

    with capture_logs():
        await _run(engine, use_twice, times=25)

    await _require_all_places(engine)


async def test_a_task_that_is_left_behind_gets_no_connection(engine: AsyncEngine) -> None:
    """It would use the next job's, or keep a place for ever."""
    ended, tasks = asyncio.Event(), []

    async def go_on(session: AsyncSession) -> None:
        await ended.wait()
        await session.execute(text("SELECT 1"))

    async def leave(session: AsyncSession) -> None:
        tasks.append(asyncio.create_task(go_on(session)))
        await session.execute(text("SELECT 1"))

    assert await _run(engine, leave) == [{}]
    ended.set()

    with pytest.raises(LoanError, match=r"this job has ended.* In the handler, await"):
        await tasks[0]
    await _require_all_places(engine)


async def test_a_statement_that_is_left_running_ends_with_the_job(engine: AsyncEngine) -> None:
    """The handler fails while another task of it waits for an answer of ten seconds: the place is free at once."""
    tasks = []

    async def leave_running(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        tasks.append(asyncio.create_task(session.execute(text("SELECT pg_sleep(7)"))))
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    with capture_logs():
        async with asyncio.timeout(6.5):
            await _run(engine, leave_running)

    await asyncio.wait(tasks)
    await _require_all_places(engine)


async def _write(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO users (name) VALUES ('Jane')"))


async def _add(session: AsyncSession) -> None:
    mapped = registry()
    columns = (Column("id", Integer, primary_key=True), Column("name", Text))
    user: Any = mapped.map_imperatively(type("User", (), {}), Table("users", mapped.metadata, *columns)).class_
    session.add(user(name="Jane"))


@pytest.mark.parametrize("write", [_write, _add])
async def test_a_declared_reader_that_writes_fails(engine: AsyncEngine, sessions: Sessions, write: Body) -> None:
    """PostgreSQL refuses it; nothing is stored. What is only added to the session is sent before the commit."""
    with capture_logs():
        [error] = await _run(engine, write, reads_only=True)

    assert isinstance(error, ReadOnlyJobError)
    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM users")) == 0


async def test_what_a_declared_reader_notifies_is_dropped(engine: AsyncEngine) -> None:
    """It leaves no receipt, so that it would be sent with each delivery."""
    heard: list[str] = []
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.add_listener("readers", lambda *told: heard.append(told[3]))

        async def notify(session: AsyncSession) -> None:
            await session.execute(text("SELECT pg_notify('readers', 'from a reader')"))

        assert await _run(engine, notify, reads_only=True) == [{}]
        await driver.execute("NOTIFY readers, 'from another'")
        await driver.remove_listener("readers", next(iter(driver._listeners["readers"])).cb)

    assert heard == ["from another"]
