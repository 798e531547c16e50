"""Jobs that are promised in a transaction, with no more rights than ``deploy/`` gives to each part."""

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.client.requests import Promised
from arqonce.failures import KeyConflictError
from arqonce.outbox import enqueue_in
from jobs import CreateUser
from jobs.payloads import UserView
from tests.conftest import StartWorker, wait_until_async
from tests.leaks import EMAIL, NAME
from tests.rights import Rights

pytestmark = pytest.mark.parametrize("rights", ["all rights", "least rights"], indirect=True)

SOON = timedelta(seconds=20)
JANE = CreateUser(name=NAME, email=EMAIL)


@pytest.fixture
async def producer(rights: Rights, sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[asyncpg.Connection]:
    """Connect as a service that promises jobs."""
    assert sessions is not None  # it removes what was stored afterwards
    connection = await asyncpg.connect(rights.producer_database)
    yield connection
    await connection.close()


async def _promise(connection: asyncpg.Connection, payload: CreateUser, key: str) -> Promised[UserView]:
    async with connection.transaction():
        return await enqueue_in(connection, payload, key=key)


async def test_a_promised_job_runs(start_worker: StartWorker, producer: asyncpg.Connection, client: JobClient) -> None:
    """Promised by the producer's role, given by the worker's own relay, run, and answered to the producer's user."""
    worker = start_worker()

    promised = await _promise(producer, JANE, "k")
    user = await client.handle(promised).result(timeout=SOON)
    again = await _promise(producer, JANE, "k")
    with pytest.raises(KeyConflictError):
        await _promise(producer, CreateUser(name="Other"), "k")

    assert (user.name, promised.is_new, again.is_new) == (NAME, True, False)
    assert worker.stop() == 0


async def test_a_relay_of_its_own_gives_jobs(
    start_worker: StartWorker,
    producer: asyncpg.Connection,
    redis: Redis,
    rights: Rights,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """It begins an epoch, wakes at the commit, and turns what is too old to run into a dead letter."""
    own = {"DATABASE_URL": rights.relay_database, "REDIS_URL": rights.relay_redis}
    relay = start_worker(sys.executable, "-m", "worker", "relay", **own)

    await _promise(producer, JANE, "given")
    await wait_until_async(lambda: _is_queued(redis, "given"), 20)
    await _promise(producer, CreateUser(name="Late"), "late")
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE arqonce.outbox SET created_at = :then, due_at = :then, give_at = now() WHERE job_id = 'late'"),
            {"then": datetime.now(UTC) - timedelta(days=90)},
        )
    await wait_until_async(lambda: _is_dead(sessions, "late"), 20)

    assert relay.stop() == 0


async def _is_queued(redis: Redis, job_id: str) -> bool:
    return await redis.zscore("arq:queue", job_id) is not None


async def _is_dead(sessions: async_sessionmaker[AsyncSession], job_id: str) -> bool:
    async with sessions() as session:
        dead = await session.scalar(text("SELECT count(*) FROM arqonce.dead_jobs WHERE job_id = :id"), {"id": job_id})
        owed = await session.scalar(text("SELECT count(*) FROM arqonce.outbox WHERE job_id = :id"), {"id": job_id})
    return (dead, owed) == (1, 0)


async def test_a_producer_reads_no_message(producer: asyncpg.Connection, rights: Rights) -> None:
    """Not even its own, and it changes and removes none."""
    if "app_producer" not in rights.producer_database:
        return
    await _promise(producer, JANE, "k")
    for statement in (
        "SELECT message FROM arqonce.outbox",
        "UPDATE arqonce.outbox SET queue = 'x'",
        "DELETE FROM arqonce.outbox",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await producer.execute(statement)
