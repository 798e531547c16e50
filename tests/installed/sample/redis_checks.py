"""What a producer does, run by a pytest that knows one version of redis-py, and no worker of ours but over Redis."""

import asyncio
import gc
import os
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import redis

from arqonce import (
    JobClient,
    JobStatus,
    QueueUnavailableError,
    SyncJobClient,
    enqueue_in,
    enqueue_in_sync,
    status_in_sync,
)
from arqonce.testing.enqueued import EnqueuedJobs
from users_jobs import CreateUser, CreateUsers, EmailTakenError, FindUser, GetOrCreateUser, NewUser

LIMIT = timedelta(seconds=10)
REDIS, DATABASE = os.environ["REDIS_URL"], os.environ["DATABASE_URL"]
LATER = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """Let a connection that nobody has closed warn in the test that has opened it."""
    yield
    gc.collect()


def test_it_is_the_version_that_is_meant() -> None:
    """And not that of the environment below."""
    assert redis.__version__.split(".")[0] == os.environ["REDIS_MAJOR"]


async def test_the_client() -> None:
    """Enqueues, waits, and is answered with results and failures; aborts."""
    async with JobClient(REDIS) as client:
        first = await client.enqueue(CreateUser(name="Jane", email="jane@example.org"), key="async-1")
        jane = await first.result(timeout=LIMIT)
        again = await client.enqueue(CreateUser(name="Jane", email="jane@example.org"), key="async-1")
        with pytest.raises(EmailTakenError):
            await (await client.enqueue(CreateUser(name="Joe", email="jane@example.org"))).result(timeout=LIMIT)
        many = await client.enqueue_many([FindUser(id=jane.id)] * 3)
        found = await asyncio.gather(*(handle.result(timeout=LIMIT) for handle in many))
        later = await client.enqueue(CreateUser(name="Nobody"), delay=LATER)
        was_deferred = await later.status()
        is_aborted = await later.abort(timeout=LIMIT)

    assert (first.is_new, again.is_new) == (True, False)
    assert [one.users for one in found] == [[jane]] * 3
    assert (was_deferred, is_aborted) == (JobStatus.DEFERRED, True)


def test_the_blocking_client() -> None:
    """The same."""
    with SyncJobClient(REDIS) as client:
        first = client.enqueue(CreateUser(name="Jim", email="jim@example.org"), key="sync-1")
        jim = first.result(timeout=LIMIT)
        with pytest.raises(EmailTakenError):
            client.enqueue(CreateUser(name="Joe", email="jim@example.org")).result(timeout=LIMIT)
        found = [handle.result(timeout=LIMIT) for handle in client.enqueue_many([FindUser(id=jim.id)] * 3)]
        later = client.enqueue(CreateUser(name="Nobody"), delay=LATER)
        was_deferred, is_aborted = later.status(), later.abort(timeout=LIMIT)

    assert [one.users for one in found] == [[jim]] * 3
    assert (was_deferred, is_aborted) == (JobStatus.DEFERRED, True)


async def test_results_are_told_and_not_polled() -> None:
    """On a connection that speaks RESP3."""
    async with JobClient(REDIS) as client:
        await (await client.enqueue(FindUser(name="nobody"))).result(timeout=LIMIT)
        assert client._lines.own().watch._is_told
    with SyncJobClient(REDIS) as blocking:
        blocking.enqueue(FindUser(name="nobody")).result(timeout=LIMIT)
        assert blocking._watch._connection.is_tracking


@pytest.mark.parametrize("option", ["protocol=2", "protocol=3"])
async def test_the_url_may_name_a_protocol(option: str) -> None:
    """As redis-py lets it."""
    payload = CreateUsers(users=[NewUser(name="Many")])
    url = f"{REDIS}{'&' if '?' in REDIS else '?'}{option}"
    async with JobClient(url) as client:
        stored = await (await client.enqueue(payload)).result(timeout=LIMIT)
    with SyncJobClient(url) as blocking:
        again = blocking.enqueue(payload).result(timeout=LIMIT)

    assert [len(one.users) for one in (stored, again)] == [1, 1]


async def test_a_lost_connection_is_replaced() -> None:
    """Each client goes on by itself when the server has closed its connections."""
    async with JobClient(REDIS) as client:
        with SyncJobClient(REDIS) as blocking:
            with redis.Redis.from_url(REDIS) as other:
                other.client_kill_filter(_type="normal", skipme=True)
            await (await client.enqueue(FindUser(name="nobody"))).result(timeout=LIMIT)
            blocking.enqueue(FindUser(name="nobody")).result(timeout=LIMIT)


async def test_promises() -> None:
    """In transactions of psycopg, of both kinds; waited for with the clients."""
    with psycopg.connect(DATABASE) as connection:
        ours = enqueue_in_sync(connection, GetOrCreateUser(name="Ann", email="ann@example.org"), key="promise-1")
        status = status_in_sync(connection, "promise-1")
    async with await psycopg.AsyncConnection.connect(DATABASE) as awaited:
        theirs = await enqueue_in(awaited, GetOrCreateUser(name="Ann", email="ann@example.org"), key="promise-2")
    with SyncJobClient(REDIS) as blocking:
        first = blocking.handle(ours).result(timeout=LIMIT)
    async with JobClient(REDIS) as client:
        second = await client.handle(theirs).result(timeout=LIMIT)

    assert status is JobStatus.PROMISED
    assert first.user == second.user


async def test_nobody_there_is_told() -> None:
    """With an error that names the cure, from both clients."""
    nowhere = "redis://127.0.0.1:1/0"
    with pytest.raises(QueueUnavailableError, match="is it running"):
        async with JobClient(nowhere):
            pass
    with pytest.raises(QueueUnavailableError, match="is it running"), SyncJobClient(nowhere):
        pass


async def test_the_fixture(enqueued: EnqueuedJobs) -> None:
    """Stands in for Redis, beneath both clients."""
    enqueued.answer(CreateUser, EmailTakenError("another user has it"))
    async with JobClient("redis://127.0.0.1:1/0") as client:
        handle = await client.enqueue(CreateUser(name="Jane"))
        with pytest.raises(EmailTakenError):
            await handle.result(timeout=LIMIT)
    with SyncJobClient("redis://127.0.0.1:1/0") as blocking, pytest.raises(EmailTakenError):
        blocking.enqueue(CreateUser(name="Jim")).result(timeout=LIMIT)
    assert (JobClient, SyncJobClient) == (type(client), type(blocking))
    assert len(enqueued.jobs) == 2
