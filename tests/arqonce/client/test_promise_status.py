"""What PostgreSQL says of a promised job, and what can be done about it, while Redis knows nothing of it yet."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from redis.asyncio import Redis
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, JobStatus
from arqonce.engine.leases import Leases
from arqonce.failures import InvalidMessageError
from arqonce.ledger.tables import DeadJob
from arqonce.outbox import enqueue_in, enqueue_in_sync, status_in, status_in_sync
from jobs import CreateUser
from tests.arqonce.connection.connections import ASYNC, ASYNC_IDS, SYNC, SYNC_IDS
from tests.conftest import StartWorker
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]
JANE = CreateUser(name="Jane")


@pytest.mark.parametrize("connect", ASYNC, ids=ASYNC_IDS)
async def test_a_promise_has_a_status_from_its_statement_on(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """In the transaction itself, and after the commit for everybody; what was never promised is not found."""
    assert sessions is not None  # it removes the promise afterwards
    async with connect(postgres_url) as connection:
        before = await status_in(connection, "k")
        await enqueue_in(connection, JANE, key="k")
        inside = await status_in(connection, "k")
    async with connect(postgres_url) as connection:
        after = await status_in(connection, "k")

    assert (before, inside, after) == (JobStatus.NOT_FOUND, JobStatus.PROMISED, JobStatus.PROMISED)


@pytest.mark.parametrize("connect", SYNC, ids=SYNC_IDS)
async def test_a_promise_has_a_status_in_the_synchronous_form_too(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """The same for services that block."""
    assert sessions is not None  # it removes the promise afterwards

    def ask() -> list[JobStatus]:
        with connect(postgres_url) as connection:
            before = status_in_sync(connection, "k")
            enqueue_in_sync(connection, JANE, key="k")
            return [before, status_in_sync(connection, "k")]

    assert await asyncio.to_thread(ask) == [JobStatus.NOT_FOUND, JobStatus.PROMISED]


async def test_a_job_that_has_ended_is_complete(
    sessions: Sessions, client: JobClient, start_worker: StartWorker
) -> None:
    """Also when Redis has forgotten its result."""
    start_worker()
    async with sessions.begin() as session:
        promised = await enqueue_in(session, JANE)
    await client.handle(promised).result(timeout=timedelta(seconds=20))

    async with sessions() as session:
        assert await status_in(session, promised.job_id) is JobStatus.COMPLETE


async def test_a_dead_job_has_failed(sessions: Sessions) -> None:
    """Nobody runs it any more, unless somebody retries it."""
    letter = {"job_id": "k", "message": b"{}", "reason": "r", "explanation": "e", "error": "", "attempts": 1}
    async with sessions.begin() as session:
        await session.execute(insert(DeadJob).values(**letter))

    async with sessions() as session:
        status = await status_in(session, "k")

    assert (status, status.has_ended) == (JobStatus.FAILED, True)


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_a_producer_with_least_rights_may_ask(sessions: Sessions, rights: Rights) -> None:
    """What it may promise, it may look for."""
    assert sessions is not None
    connection = await asyncpg.connect(rights.producer_database)
    try:
        assert await status_in(connection, "k") is JobStatus.NOT_FOUND
    finally:
        await connection.close()


async def test_a_request_to_abort_a_promise_stands_until_redis_has_the_job(
    sessions: Sessions, client: JobClient, redis: Redis
) -> None:
    """Others are forgotten after a minute, which is less than a promised job may be away."""
    async with sessions.begin() as session:
        promised = await enqueue_in(session, JANE, delay=timedelta(days=30))

    with pytest.raises(TimeoutError, match="was the transaction committed"):
        await client.handle(promised).abort(timeout=timedelta(milliseconds=50))

    score = await redis.zscore("arq:abort", promised.job_id)
    await Leases(redis, "arq:queue", timedelta(seconds=14)).aborted([])
    wanted = set(await redis.zrange("arq:abort", 0, -1))
    assert score is not None
    assert (score / 1000 - 30 * 86_400 > asyncio.get_running_loop().time(), wanted) == (
        True,
        {promised.job_id.encode()},
    )


async def test_an_id_that_no_job_can_have_is_refused(sessions: Sessions) -> None:
    """Before anything is sent."""
    async with sessions() as session:
        with pytest.raises(InvalidMessageError):
            await status_in(session, "two words")
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_database_without_our_tables_names_the_cure(postgres_url: str) -> None:
    """In a note: the error keeps its type, of whichever driver."""
    without = urlsplit(postgres_url)._replace(path="/template1").geturl()
    connection = await asyncpg.connect(without)
    try:
        with pytest.raises(asyncpg.UndefinedTableError) as caught:
            await enqueue_in(connection, JANE)
    finally:
        await connection.close()
    with psycopg.connect(without) as blocking, pytest.raises(psycopg.errors.UndefinedTable) as caught_too:
        enqueue_in_sync(blocking, JANE)

    notes = [*caught.value.__notes__, *caught_too.value.__notes__]
    assert ["Run the command migrate there" in note for note in notes] == [True, True]


def test_django_is_told_which_connection_it_is() -> None:
    """Its own, which is there before the first query; psycopg's, which it wraps, is None until then."""
    with pytest.raises(TypeError, match=r"must be .*, Django's connection, .*; this is a builtins\.NoneType"):
        enqueue_in_sync(None, JANE)
