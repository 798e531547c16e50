"""Promising a job inside a transaction of one's own, with each kind of connection, on the real database."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from redis.asyncio import Redis
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from arqonce import JobClient
from arqonce.failures import InvalidMessageError, KeyConflictError, RequestConflictError, ResultMissingError
from arqonce.ledger.dead_jobs import DeadLetter, insert_dead_letter
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.outbox import enqueue_in, enqueue_in_sync
from arqonce.wire.codec import decode
from arqonce.wire.request import payload_tag, request_hash
from jobs import CreateUser, FindUser
from tests.arqonce.connection.connections import ASYNC, ASYNC_IDS, SYNC, SYNC_IDS
from tests.promised import whereabouts

Sessions = async_sessionmaker[AsyncSession]
JANE = CreateUser(name="Jane", email="jane@example.org")
OTHER = CreateUser(name="Janet")


async def _rows(sessions: Sessions) -> list[tuple[str, str, str]]:
    async with sessions() as session:
        found = await session.execute(text("SELECT job_id, job_name, queue FROM arqonce.outbox ORDER BY job_id"))
        return [(row.job_id, row.job_name, row.queue) for row in found]


@pytest.mark.parametrize("connect", ASYNC, ids=ASYNC_IDS)
async def test_a_promise_counts_if_its_transaction_commits(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """Rolled back, there is no job; committed, there is; the same key again adds nothing and says so."""
    with suppress(ZeroDivisionError):
        async with connect(postgres_url) as connection:
            await enqueue_in(connection, JANE, key="rolled-back")
            raise ZeroDivisionError

    async with connect(postgres_url) as connection:
        first = await enqueue_in(connection, JANE, key="jane")
        twin = await enqueue_in(connection, JANE, key="jane")
        before = await _rows(sessions)
    async with connect(postgres_url) as connection:
        again = await enqueue_in(connection, JANE, key="jane")

    assert [one.is_new for one in (first, twin, again)] == [True, False, False]
    assert before == []
    assert await _rows(sessions) == [("jane", "create_user", "arq:queue")]


async def test_a_session_of_sqlmodel_does_not_warn_of_itself(postgres_url: str) -> None:
    """Its ``execute`` warns developers to use ``exec``, and would fail where warnings are errors."""

    def warn(*_: object) -> None:
        raise DeprecationWarning

    like_sqlmodels = type("Session", (AsyncSession,), {"__module__": "sqlmodel.ext.asyncio.session", "execute": warn})
    session_of_service = type("Session", (like_sqlmodels,), {})
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))

    async with session_of_service(engine) as session:
        promised = await enqueue_in(session, JANE)
    await engine.dispose()

    assert promised.is_new


@pytest.mark.parametrize("connect", SYNC, ids=SYNC_IDS)
async def test_a_promise_counts_in_the_synchronous_form_too(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """The same for services that block."""

    def promise(key: str, *, fails: bool = False) -> bool:
        with connect(postgres_url) as connection:
            promised = enqueue_in_sync(connection, JANE, key=key, queue="other")
            if fails:
                raise ZeroDivisionError
        return promised.is_new

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(promise, "rolled-back", fails=True)
    are_new = [await asyncio.to_thread(promise, "jane") for _ in range(2)]

    assert are_new == [True, False]
    assert await _rows(sessions) == [("jane", "create_user", "other")]


@pytest.mark.parametrize("connect", ASYNC, ids=ASYNC_IDS)
async def test_the_same_key_for_another_request_is_refused_at_once(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """With the cure; and the caller's transaction can go on."""
    async with connect(postgres_url) as connection:
        await enqueue_in(connection, JANE, key="jane")
        for other in (OTHER, FindUser(email="jane@example.org")):
            with pytest.raises(KeyConflictError, match="give each request its own key"):
                await enqueue_in(connection, other, key="jane")
        await enqueue_in(connection, OTHER, key="janet")

    assert [job_id for job_id, *_ in await _rows(sessions)] == ["jane", "janet"]


async def test_a_connection_without_a_transaction_promises_at_once(sessions: Sessions, postgres_url: str) -> None:
    """Autocommit is a transaction of its own."""
    connection = await asyncpg.connect(postgres_url)
    await enqueue_in(connection, JANE, key="j1")
    await connection.close()
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as other:
        await enqueue_in(other, JANE, key="j2")

    assert [job_id for job_id, *_ in await _rows(sessions)] == ["j1", "j2"]


async def test_of_fifty_promises_of_one_key_at_once_one_is_new(sessions: Sessions) -> None:
    """All others wait for it and say so; one that is rolled back lets the next one be new."""

    async def promise(number: int) -> bool | None:
        async with sessions() as session:
            promised = await enqueue_in(session, JANE, key="jane")
            await asyncio.sleep(0.001)
            if number % 10 == 0:
                await session.rollback()
                return None
            await session.commit()
        return promised.is_new

    are_new = await asyncio.gather(*(promise(number) for number in range(50)))

    assert [are_new.count(is_new) for is_new in (True, False, None)] == [1, 44, 5]
    assert len(await _rows(sessions)) == 1


async def test_conflicting_promises_at_once_are_told_apart(sessions: Sessions) -> None:
    """Whoever waits for another request with its key is refused, not told that it is a duplicate."""

    async def promise(number: int) -> str:
        async with sessions.begin() as session:
            try:
                promised = await enqueue_in(session, CreateUser(name=f"n{number}"), key="same")
            except KeyConflictError:
                return "conflict"
            return "new" if promised.is_new else "duplicate"

    outcomes = await asyncio.gather(*(promise(number) for number in range(20)))

    assert sorted(outcomes) == ["conflict"] * 19 + ["new"]


def _letter(job_id: str, request: bytes | None) -> DeadLetter:
    return DeadLetter(
        job_id=job_id, job_name="create_user", message=b"x", reason="x", explanation="", error="", sqlstate=None,
        attempts=1, queue="arq:queue", request_hash=request,
    )  # fmt: skip


async def test_a_key_is_taken_after_its_job_has_ended(sessions: Sessions) -> None:
    """By an effect, by a refusal, and by death: the same request is a duplicate, another one is refused."""
    asked = request_hash(JANE)
    async with sessions.begin() as session:
        for job_id, answer in (("done", {"result": {}}), ("refused", {"failure": {"type": "x", "message": ""}})):
            receipt: Any = {"job_id": job_id, "job_name": "create_user", "request_hash": asked, "attempt": 1} | answer
            await session.execute(text("CREATE TEMP TABLE IF NOT EXISTS effect () ON COMMIT DROP"))
            await insert_receipts(session, receipt["job_name"], [Receipt(**receipt)])
        await insert_dead_letter(session, _letter("dead", asked))
        await insert_dead_letter(session, _letter("unreadable", None))

    async with sessions.begin() as session:
        are_new = [(await enqueue_in(session, JANE, key=key)).is_new for key in ("done", "refused", "dead")]
        for key, payload in (("done", OTHER), ("refused", OTHER), ("dead", OTHER), ("unreadable", JANE)):
            with pytest.raises(KeyConflictError):
                await enqueue_in(session, payload, key=key)

    assert are_new == [False] * 3
    assert await _rows(sessions) == []


async def test_the_row_holds_what_a_client_would_have_sent(sessions: Sessions) -> None:
    """Arq's message, and when it is due; it is given 10 s before."""
    at = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    async with sessions.begin() as session:
        await enqueue_in(session, CreateUser(name="Jané"), key="at", at=at)
        await enqueue_in(session, JANE, key="delayed", delay=timedelta(hours=1))
        await enqueue_in(session, JANE, key="now")

    async with sessions() as session:
        rows = {
            row.job_id: row
            for row in await session.execute(
                text("SELECT *, due_at - give_at AS ahead, due_at - created_at AS wait FROM arqonce.outbox")
            )
        }
    message = decode(rows["at"].message)
    assert message | {"et": 0} == {"t": None, "f": "create_user", "a": [], "k": {"name": "Jané"}, "et": 0}
    assert (rows["at"].due_at, rows["at"].ahead, rows["at"].epoch) == (at, timedelta(seconds=10), 0)
    assert abs(rows["delayed"].wait - timedelta(hours=1)) < timedelta(seconds=5)
    assert abs(rows["now"].wait) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "options",
    [
        {"key": "with space"},
        {"key": ""},
        {"delay": timedelta(1), "at": datetime(2031, 1, 1, tzinfo=UTC)},
        {"at": datetime(2031, 1, 1)},  # noqa: DTZ001 - that it has no zone is the point
        {"delay": timedelta(-1)},
        {"delay": timedelta(days=365 * 9000)},
        {"queue": ""},
        {"queue": "a\0b"},
        {"queue": "q" * 201},
    ],
    ids=str,
)
async def test_bad_input_is_refused_and_the_transaction_goes_on(sessions: Sessions, options: dict[str, Any]) -> None:
    """Before anything is sent: an error of the server would have aborted the caller's transaction."""
    async with sessions.begin() as session:
        with pytest.raises(InvalidMessageError):
            await enqueue_in(session, JANE, **options)
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_wrong_kind_of_connection_names_the_right_ones(sessions: Sessions, postgres_url: str) -> None:
    """The synchronous form for asynchronous connections, the other way round, and something else."""
    async with sessions() as session:
        with pytest.raises(
            TypeError,
            match=r"Session or .*; this is a .*AsyncSession. .* use enqueue_in$",
        ):
            enqueue_in_sync(session, JANE)
    with psycopg.connect(postgres_url) as connection, pytest.raises(TypeError, match=r"use enqueue_in_sync$"):
        await enqueue_in(connection, JANE)
    with pytest.raises(TypeError, match=r"this is a builtins\.object$"):
        await enqueue_in(object(), JANE)


async def test_an_error_that_hides_its_cause_has_the_cure(sessions: Sessions) -> None:
    """PostgreSQL says that it cannot execute SELECT in a read-only transaction, and SQLAlchemy names no database."""
    readers = sessions.kw["bind"].execution_options(postgresql_readonly=True)
    wrong = {"this transaction may only read": AsyncSession(readers), "bind_arguments=": AsyncSession(binds={})}

    for cure, session in wrong.items():
        async with session:
            with pytest.raises(SQLAlchemyError) as caught:
                await enqueue_in(session, JANE)
            assert cure in caught.value.__notes__[0]


async def test_what_only_makes_connections_is_refused(sessions: Sessions, postgres_url: str) -> None:
    """Pools, engines and session makers are in no transaction: a promise would outlive the caller's rollback."""
    url = make_url(postgres_url)
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))

    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        for maker in (pool, async_engine, async_sessionmaker(async_engine), _stand_in("AsyncConnectionPool")):
            with pytest.raises(TypeError, match="must be SQLAlchemy's AsyncSession or AsyncConnection"):
                await enqueue_in(maker, JANE)
        for maker in (engine, sessionmaker(engine), pool, _stand_in("ConnectionPool")):
            with pytest.raises(TypeError, match="must be SQLAlchemy's Session or Connection"):
                enqueue_in_sync(maker, JANE)

    assert await _rows(sessions) == []


def _stand_in(name: str) -> object:
    """Make an object whose class has the name of one of psycopg_pool, which is not installed here."""
    return type(name, (), {"__module__": "psycopg_pool"})()


async def test_a_job_is_owed_done_or_dead(sessions: Sessions) -> None:
    """``whereabouts`` tells which; an unknown id is nowhere."""
    async with sessions.begin() as session:
        await enqueue_in(session, JANE, key="owed")
        await insert_dead_letter(session, _letter("dead", None))

    async with sessions() as session:
        found = await whereabouts(session, ["owed", "dead", "unknown"])

    assert found == {"owed": ["outbox"], "dead": ["dead"], "unknown": []}


async def test_a_handle_waits_for_a_job_that_redis_does_not_have_yet(client: JobClient, sessions: Sessions) -> None:
    """It never was in Redis, and yet its result is waited for."""
    async with sessions.begin() as session:
        promised = await enqueue_in(session, JANE)

    for handle in (client.handle(promised), client.handle(CreateUser, promised.job_id, is_promised=True)):
        with pytest.raises(TimeoutError, match="was the transaction committed"):
            await handle.result(timeout=timedelta(milliseconds=50))
    with pytest.raises(ResultMissingError, match=r"If it was promised .* is_promised=True"):
        await client.handle(CreateUser, promised.job_id).result(timeout=5)


async def test_the_result_of_another_request_is_not_that_of_the_promise(
    client: JobClient, sessions: Sessions, redis: Redis
) -> None:
    """Redis may have one under the key: of another service's job, or of one that was enqueued directly."""
    async with sessions.begin() as session:
        promised = await enqueue_in(session, JANE, key="jane")
    user = {"id": 7, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}

    async def answer(request: CreateUser) -> int:
        ended = {"s": True, "f": request.job_name, "h": payload_tag(request), "r": user}
        await redis.set("arq:result:jane", json.dumps(ended))
        return (await client.handle(promised).result(timeout=5)).id

    assert await answer(JANE) == user["id"]
    with pytest.raises(RequestConflictError, match="'jane' was used for another request"):
        await answer(OTHER)


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("module", ["jobs", "arqonce.client.client", "arqonce.outbox"])
def test_a_producer_loads_no_driver(module: str) -> None:
    """Nor SQLAlchemy or arq: it is its own connection that counts."""
    program = f"import sys, {module}; print(*(m for m in sys.modules if '.' not in m))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"sqlalchemy", "asyncpg", "psycopg", "psycopg2", "alembic", "arq", "db"} & set(done.stdout.split())
