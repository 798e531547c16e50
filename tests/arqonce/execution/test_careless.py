"""What handlers do to their connection: the next job has a clean one, the pool has all, and effects are exact."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce import JobClient
from arqonce.database.endings import ending_in
from arqonce.database.engine import build_engine
from arqonce.database.settings import DatabaseSettings
from arqonce.database.suspects import is_suspect
from arqonce.execution import batch as batches
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import JobFailedError
from chaos.careless import HABITS, REFUSED, REGISTRY, Careless
from db import users
from jobs import CreateUser
from tests.conftest import StartWorker

Sessions = async_sessionmaker[AsyncSession]

_SPEC = REGISTRY["careless"]

_BY_CHANCE = {"store_at_once"} | {what for what in HABITS if what.startswith("deallocate")}
"""Whether these fail depends on what happens at once, and on which statements the connection has prepared before."""

_STATE = """
    SELECT (SELECT jsonb_object_agg(name, setting) FROM pg_settings WHERE name NOT LIKE 'transaction_%')::text,
        current_user::text, session_user::text, coalesce(current_setting('app.tenant', true), '') AS tenant,
        (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_cursors WHERE is_holdable),
        (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
        (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
        (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), pg_typeof(7::int8)::text, 7::int8
"""
"""All that a session has and a transaction has not."""


@pytest.fixture
async def engine(database: DatabaseSettings, sessions: Sessions) -> AsyncIterator[AsyncEngine]:
    """Yield an engine of one connection: what a job leaves is the next one's."""
    assert sessions is not None  # it removes the users
    engine = build_engine(database, pool_size=1)
    yield engine
    await engine.dispose()


async def _state(engine: AsyncEngine) -> list[object]:
    async with engine.connect() as connection:
        await connection.execute(text("DO $$ BEGIN END $$"))  # PL/pgSQL has settings of its own
        return list((await connection.execute(text(_STATE))).one())


async def _run(engine: AsyncEngine, what: str, *, job_id: str) -> BaseException | None:
    dispatcher = Dispatcher(async_sessionmaker(engine, expire_on_commit=False))
    try:
        await dispatcher.run(_SPEC, Delivery(job_id, 1, (), {"what": what, "name": "Jane"}))
    except (RetryLater, JobFailedError, SQLAlchemyError, OSError) as error:
        return error.__cause__ or error
    return None


async def _counts(sessions: Sessions, job_id: str) -> tuple[int, int]:
    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users WHERE name = 'Jane'"))
        query = text("SELECT count(*) FROM arqonce.receipts WHERE job_id = :job_id AND result IS NOT NULL")
        return int(users or 0), int(await session.scalar(query, {"job_id": job_id}) or 0)


@pytest.mark.parametrize("what", HABITS)
async def test_what_a_handler_does_harms_nobody(engine: AsyncEngine, sessions: Sessions, what: str) -> None:
    """Delivered twice, it has one effect with a receipt, or none and an error; the session is as it was before."""
    before = await _state(engine)

    with capture_logs():  # whose tracebacks would take a second each to draw
        errors = [await _run(engine, what, job_id=what) for _ in range(2)]

    assert await _counts(sessions, what) == ((0, 0) if errors[0] else (1, 1)), errors
    assert bool(errors[0]) == (what in REFUSED) or what in _BY_CHANCE, errors
    await asyncio.sleep(0)
    assert await _state(engine) == before
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await _run(engine, "notify", job_id="another") is None
    assert await _counts(sessions, "another") == (1 if errors[0] else 2, 1)


@pytest.mark.parametrize(
    "does",
    [
        "PERFORM pg_advisory_lock(20261129)",
        "EXECUTE 'LISTEN careless'",
        "CREATE TEMPORARY TABLE users (LIKE public.users)",
    ],
)
async def test_what_a_trigger_leaves_harms_nobody(engine: AsyncEngine, sessions: Sessions, does: str) -> None:
    """Nothing of it is to be seen in the statements of the handler."""
    before = await _state(engine)
    body = f"BEGIN IF NEW.name = 'Jane' THEN {does}; END IF; RETURN NEW; END"
    async with sessions.begin() as session:
        await session.execute(
            text(f"CREATE FUNCTION careless() RETURNS trigger LANGUAGE plpgsql AS $body${body}$body$")
        )
        await session.execute(
            text("CREATE TRIGGER careless AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION careless()")
        )
    try:
        with capture_logs():
            errors = [await _run(engine, "draw_from_a_sequence", job_id=job_id) for job_id in ("a", "b", "c")]
    finally:
        async with sessions.begin() as session:
            await session.execute(text("DROP FUNCTION careless CASCADE"))

    assert errors == [None] * 3
    assert await _state(engine) == before


async def test_innocent_jobs_among_careless_ones_notice_nothing(
    sessions: Sessions, client: JobClient, start_worker: StartWorker
) -> None:
    """All habits in one worker with few places: each innocent job is stored once, as is each that was not refused."""
    worker = start_worker(WORKER_REGISTRY="chaos.careless:REGISTRY", WORKER_MAX_JOBS="3")
    payloads: list[Any] = [
        payload for what in HABITS for payload in (Careless(what=what, name=what), CreateUser(name="Innocent"))
    ]
    handles = await client.enqueue_many(payloads)

    outcomes = await asyncio.gather(
        *(handle.result(timeout=timedelta(seconds=40)) for handle in handles), return_exceptions=True
    )

    failed = {
        payload.what if isinstance(payload, Careless) else payload.name
        for payload, outcome in zip(payloads, outcomes, strict=True)
        if isinstance(outcome, BaseException)
    }
    async with sessions() as session:
        rows = await session.execute(text("SELECT name, count(*) FROM users GROUP BY name"))
        stored = {str(name): int(count) for name, count in rows}
    assert failed - _BY_CHANCE == REFUSED
    assert stored == {"Innocent": len(HABITS)} | {what: 1 for what in HABITS if what not in failed}
    assert worker.stop() == 0


def test_our_own_statements_need_no_special_cleaning() -> None:
    """It would cost each job a twentieth."""
    statements = [users._INSERT, users._INSERT_ONCE, str(users._INSERT_NEW), str(batches._WAIT_SHORTLY)]
    statements += [str(users._BY_IDS), str(users._BY_EMAILS)]
    statements.append("INSERT INTO orders (user_id, total) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING RETURNING id")

    assert [statement for statement in statements if is_suspect(statement)] == []
    assert all(
        map(
            is_suspect,
            ("PREPARE a AS SELECT 1", "SELECT mine()", "DO $$$$", "SET LOCAL ROLE a", "call p()", "SELECT mine/**/()"),
        )
    )


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("COMMIT", "COMMIT"),
        ("  end;", "END"),
        ("/* a /* b */ c */ COMMIT AND CHAIN", "COMMIT"),
        ("-- x\nABORT", "ABORT"),
        ("-- x\rCOMMIT", "COMMIT"),
        ("select 1; Rollback; begin", "ROLLBACK"),
        ("PREPARE  transaction 'a'", "PREPARE TRANSACTION"),
        ("SELECT e'\\'', 'a'; COMMIT --'", "COMMIT"),
        ("ROLLBACK TO SAVEPOINT a", None),
        ("ROLLBACK WORK TO a", None),
        ("SELECT 'a;COMMIT', \";COMMIT\", $a$;COMMIT$a$, e'\\';COMMIT'", None),
        ("DO $$ BEGIN COMMIT; END $$", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 'END' END; SELECT 2; END", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; COMMIT", "COMMIT"),
        ("SELECT CASE WHEN true THEN 1 END", None),
        ("PREPARE a AS SELECT 1", None),
    ],
)
def test_a_statement_that_ends_a_transaction_is_recognised(sql: str, command: str | None) -> None:
    """Alone and among others, and not where it is only a text."""
    assert ending_in(sql) == command
