"""BEGIN with the first statement, the last statement with COMMIT: fewer round trips, and the same transactions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from arqonce.database.asyncpg_connection import LentConnection
from arqonce.database.driver import execute_last, fetch_by_driver
from arqonce.database.engine import build_engine
from arqonce.database.faults import is_conflict, is_transient
from arqonce.database.settings import DatabaseSettings
from arqonce.database.transactions import open_transaction
from db.tables import User
from db.users import insert_user
from tests.conftest import wait_until_async

Sessions = async_sessionmaker[AsyncSession]

_NOTE = "INSERT INTO notes VALUES ($1)"
_STORE = "INSERT INTO users (name) VALUES ($1)"


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """Yield an engine with one connection, which each session of a test gets in turn, and with a table for notes."""
    engine = build_engine(database, pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE notes (note text PRIMARY KEY)"))
        await connection.commit()
    yield engine
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE users"))
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    """Make the sessionmaker."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def _connection(sessions: Sessions) -> Any:  # noqa: ANN401 - asyncpg's connection, which has no types
    async with sessions() as session:
        raw = await (await session.connection()).get_raw_connection()
        return raw.driver_connection


async def _notes(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(text("SELECT note FROM notes ORDER BY note")))


async def _note_two(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO notes VALUES (:note)"), {"note": "first"})
        await execute_last(session, _NOTE, "last")


async def test_a_transaction_of_two_statements_takes_two_round_trips(sessions: Sessions) -> None:
    """Asyncpg counts what it has waited for: without this, BEGIN and COMMIT would be two more."""
    connection = await _connection(sessions)
    await _note_two(sessions)
    await connection.execute("DELETE FROM notes")
    before = connection._protocol.queries_count

    await _note_two(sessions)

    assert connection._protocol.queries_count - before == 2
    assert await _notes(sessions) == ["first", "last"]


async def test_a_long_transactions_idle_limit_takes_no_round_trip(sessions: Sessions) -> None:
    """It travels with BEGIN, and ends with the transaction."""
    setting = text("SELECT current_setting('idle_in_transaction_session_timeout')")

    async def run(lasts: timedelta) -> str | None:
        async with open_transaction(sessions, lasts=lasts) as session:
            limit: str | None = await session.scalar(setting)
            await execute_last(session, "INSERT INTO users (name) VALUES ($1)", "Jane")
        return limit

    connection = await _connection(sessions)
    limits, counts = [], []
    for lasts in (timedelta(minutes=1), timedelta(minutes=3), timedelta(0)):
        before = connection._protocol.queries_count
        limits.append(await run(lasts))
        counts.append(connection._protocol.queries_count - before)

    assert limits == ["65s", "185s", "35s"]
    assert counts[1:] == [2, 2]  # the first one also prepares


async def test_a_last_statement_that_fails_undoes_the_transaction(sessions: Sessions) -> None:
    """COMMIT is skipped, the error is SQLAlchemy's, and the connection is usable."""
    await _note_two(sessions)

    async with sessions() as session:
        await insert_user(session, "Nobody", "nobody@example.org")
        await execute_last(session, _NOTE, "last")
        with pytest.raises(IntegrityError, match="notes_pkey"):
            await session.commit()

    connection = await _connection(sessions)
    assert not connection.is_in_transaction()
    async with sessions() as session:
        assert (await session.scalars(select(User).where(User.email == "nobody@example.org"))).all() == []
    assert await _notes(sessions) == ["first", "last"]


@pytest.mark.parametrize(
    "value",
    ["", "Zoë ' \\ \n", "x" * 100_000, None, 7, -(2**31), b"\x00\xff", ["a", None, ""], [b"\x00", b""], [1, 2], []],
)
async def test_a_last_statement_gets_the_values_it_was_given(sessions: Sessions, value: Any) -> None:  # noqa: ANN401
    """They are written by ourselves, in PostgreSQL's binary format."""
    kinds = {bytes: "bytea", int: "integer"}
    first = next(iter(value), "") if isinstance(value, list) else value
    kind = kinds.get(type(first), "text") + ("[]" if isinstance(value, list) else "")
    async with sessions.begin() as session:
        await session.execute(text(f"CREATE TEMPORARY TABLE given (value {kind})"))
        await execute_last(session, "INSERT INTO given VALUES ($1)", value)

    async with sessions.begin() as session:
        [(found,)] = await fetch_by_driver(session, "SELECT value FROM given")
        await session.execute(text("DROP TABLE given"))
    assert found == value


async def test_a_last_statement_alone_is_a_transaction(sessions: Sessions) -> None:
    """Also if it is the only one."""
    async with sessions.begin() as session:
        await execute_last(session, _NOTE, "alone")

    assert await _notes(sessions) == ["alone"]


async def test_a_last_statement_comes_before_one_that_follows_after_all(sessions: Sessions) -> None:
    """It is executed with what was executed before it, not lost, and not later."""
    async with sessions.begin() as session:
        await execute_last(session, _NOTE, "last")
        found = list(await session.scalars(text("SELECT note FROM notes")))
        await execute_last(session, _NOTE, "really last")

    assert found == ["last"]
    assert await _notes(sessions) == ["last", "really last"]


async def test_a_rollback_forgets_the_last_statement(sessions: Sessions) -> None:
    """It must not go with the commit of another transaction."""
    async with sessions() as session:
        await execute_last(session, _NOTE, "last")
        await session.rollback()
        await session.execute(text("INSERT INTO notes VALUES ('next')"))
        await session.commit()

    assert await _notes(sessions) == ["next"]


async def test_a_value_that_cannot_be_sent_undoes_the_transaction(sessions: Sessions) -> None:
    """Nothing is left on the connection that would spoil the next transaction."""
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            async with sessions.begin() as session:
                await execute_last(session, _NOTE, "\ud800")

    assert await _notes(sessions) == []


async def test_a_first_statement_that_is_not_sent_leaves_a_transaction_to_go_on_with(sessions: Sessions) -> None:
    """BEGIN is under way when asyncpg refuses the value; what follows is prepared, and waits for no BEGIN."""
    await _note_two(sessions)

    async with sessions() as session:
        with pytest.raises(DBAPIError, match="invalid input for query argument"):
            await fetch_by_driver(session, _NOTE, 7)
        await session.execute(text("INSERT INTO notes VALUES ('not ' || :what)"), {"what": "committed"})
        await session.rollback()

    assert await _notes(sessions) == ["first", "last"]


async def test_a_first_statement_that_fails_is_undone_and_the_connection_goes_on(sessions: Sessions) -> None:
    """Once when it is prepared, and once when it is executed."""
    await _note_two(sessions)
    for statement in ("SELEKT 1", "INSERT INTO notes VALUES ('last')", "INSERT INTO notes VALUES ('last')"):
        with pytest.raises(DBAPIError):
            async with sessions.begin() as session:
                await session.execute(text(statement))

    assert await _notes(sessions) == ["first", "last"]
    assert not (await _connection(sessions)).is_in_transaction()


async def _by_many(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO notes VALUES (:note)"), [{"note": "a"}, {"note": "b"}])


async def _by_stream(session: AsyncSession) -> None:
    rows = await session.stream(text("INSERT INTO notes VALUES ('a'), ('b') RETURNING note"))
    assert [note async for (note,) in rows] == ["a", "b"]


async def _by_objects(session: AsyncSession) -> None:
    await _by_stream(session)
    session.add_all([User(name="Ann"), User(name="Ben")])


@pytest.mark.parametrize("begin", [_by_many, _by_stream, _by_objects])
@pytest.mark.parametrize("ends_with_last", [False, True])
async def test_a_transaction_may_begin_in_any_way(
    sessions: Sessions, begin: Callable[[AsyncSession], Awaitable[None]], *, ends_with_last: bool
) -> None:
    """What cannot take BEGIN along gets it sent before: all is one transaction, rolled back as one."""
    for end in ("rollback", "commit"):
        async with sessions() as session:
            await begin(session)
            if ends_with_last:
                await execute_last(session, _NOTE, "c")
            await getattr(session, end)()
        assert await _notes(sessions) == [] if end == "rollback" else ["a", "b", *["c"] * ends_with_last]


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
async def test_transactions_of_a_special_kind_go_the_ordinary_way(engine: AsyncEngine, level: str) -> None:
    """They are what they were asked to be, last statement included."""
    special = async_sessionmaker(engine.execution_options(isolation_level=level))
    async with special.begin() as session:
        found = await session.scalar(text("SELECT current_setting('transaction_isolation')"))
        await execute_last(session, _NOTE, "last")

    assert found == {"SERIALIZABLE": "serializable", "AUTOCOMMIT": "read committed"}[level]
    assert await _notes(async_sessionmaker(engine)) == ["last"]


@pytest.mark.parametrize("is_behind_pgbouncer", [False, True])
async def test_a_transaction_of_asyncpgs_own_is_undone_as_well(
    database: DatabaseSettings, *, is_behind_pgbouncer: bool
) -> None:
    """One that began with many rows, and any behind PgBouncer: its connection is not kept in a failed transaction."""
    engine = build_engine(database.model_copy(update={"pgbouncer": is_behind_pgbouncer}), pool_size=1)
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        await session.execute(text("CREATE TEMPORARY TABLE notes (note text PRIMARY KEY)"))
    for number in range(2):
        async with sessions() as session:
            await session.execute(
                text("INSERT INTO notes VALUES (:note)"), [{"note": f"{number}a"}, {"note": f"{number}b"}]
            )
            await execute_last(session, _NOTE, "0b" if number else "last")
            if number:
                with pytest.raises(IntegrityError):
                    await session.commit()
            else:
                await session.commit()

    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO notes VALUES ('next')"))
    assert await _notes(sessions) == ["0a", "0b", "last", "next"]
    await engine.dispose()


async def test_a_statement_whose_table_has_changed_is_prepared_anew(sessions: Sessions) -> None:
    """A migration while workers run: one attempt fails and does not count, not each one until the worker restarts."""
    async with sessions.begin() as session:
        await session.execute(text("CREATE TEMPORARY TABLE counts (value integer)"))
    for _ in range(2):
        async with sessions.begin() as session:
            await fetch_by_driver(session, "SELECT value FROM counts")
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE counts ALTER value TYPE bigint"))

    excused: list[bool] = []
    for _ in range(3):
        try:
            async with sessions.begin() as session:
                await fetch_by_driver(session, "SELECT value FROM counts")
        except DBAPIError as error:
            excused.append(is_transient(error) and is_conflict(error))

    assert excused == [True]
    async with sessions.begin() as session:
        await session.execute(text("DROP TABLE counts"))


async def test_a_session_of_another_engine_executes_the_last_statement_at_once(database: DatabaseSettings) -> None:
    """So handlers and receipts run under any engine of SQLAlchemy."""
    engine = create_async_engine(database.sqlalchemy_url)
    async with engine.connect() as connection, AsyncSession(connection) as session:
        await session.execute(text("CREATE TEMPORARY TABLE notes (note text PRIMARY KEY)"))
        await execute_last(session, _NOTE, "last")
        assert list(await session.scalars(text("SELECT note FROM notes"))) == ["last"]
    await engine.dispose()


@pytest.mark.parametrize("step", ["prepare_control", "fetchrow"])
async def test_a_job_that_gives_up_its_first_statement_leaves_a_connection_that_is_ready(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What a connection needs is prepared before that statement; half of it made every later job on it fail."""

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    async with open_transaction(sessions) as session:
        monkeypatch.setattr(LentConnection, step, hang)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await fetch_by_driver(session, "SELECT 1")
        monkeypatch.undo()
        await execute_last(session, _STORE, "first")
    async with open_transaction(sessions) as session:
        await fetch_by_driver(session, "SELECT 1")
        await execute_last(session, _STORE, "second")
        adapted: Any = (await session.connection()).sync_connection
        assert not adapted.connection.dbapi_connection.may_set  # what functions may do was asked

    async with sessions() as session:
        assert list(await session.scalars(select(User.name).order_by(User.id))) == ["first", "second"]


async def test_a_cancelled_commit_leaves_no_open_transaction(sessions: Sessions, engine: AsyncEngine) -> None:
    """The last statement waits for a lock when its job is cancelled: the connection goes, and another one comes."""
    ended: list[object] = []
    event.listen(engine.sync_engine, "invalidate", lambda *_: ended.append(1))
    async with sessions() as session:
        await fetch_by_driver(session, "SELECT 1")
        await execute_last(session, "SELECT pg_sleep($1::integer)", 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.commit()

    assert ended

    async def is_gone() -> bool:
        async with sessions() as session:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%'")
            return bool(await session.scalar(query) == 0)

    await wait_until_async(is_gone, 4)
