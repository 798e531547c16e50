"""A request that is unique for a time: the same rule for both clients and for promises on every kind of connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import InvalidMessageError, JobClient, SyncJobClient, enqueue_in, enqueue_in_sync
from arqonce.client.requests import Request, at_once
from arqonce.process.housekeeping import sweep
from arqonce.wire.keys import UNIQUE_KEY
from jobs import CreateUser
from tests.arqonce.connection.connections import ASYNC, ASYNC_IDS, SYNC, SYNC_IDS
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]
Enqueue = Callable[..., Awaitable[tuple[str, bool]]]

JANE = CreateUser(name="Jane", email="jane@example.org")
EQUAL = CreateUser(name="Jane", email="jane@example.org")
OTHER = CreateUser(name="Janet")
TEN_MINUTES = timedelta(minutes=10)


class Way(NamedTuple):
    """One way to enqueue a job."""

    enqueue: Enqueue
    is_promise: bool


def _ways() -> list[Any]:
    names = ["JobClient", "SyncJobClient", *ASYNC_IDS, *SYNC_IDS]
    return [pytest.param(name, id=name) for name in names]


@pytest.fixture(params=_ways())
def way(request: pytest.FixtureRequest, redis: Redis, sessions: Sessions, rights: Rights) -> Way:
    """Yield each way, with the rights that the test has."""
    assert redis is not None
    assert sessions is not None  # they remove what is left
    url = rights.producer_redis

    async def by_client(payload: CreateUser, *, queue: str = "arq:queue", **options: Any) -> tuple[str, bool]:  # noqa: ANN401 - handed on
        async with JobClient(url, queue=queue) as client:
            handle = await client.enqueue(payload, **options)
        return handle.job_id, handle.is_new

    async def by_sync_client(payload: CreateUser, *, queue: str = "arq:queue", **options: Any) -> tuple[str, bool]:  # noqa: ANN401 - handed on
        def enqueue() -> tuple[str, bool]:
            with SyncJobClient(url, queue=queue) as client:
                handle = client.enqueue(payload, **options)
            return handle.job_id, handle.is_new

        return await asyncio.to_thread(enqueue)

    async def promised(payload: CreateUser, **options: Any) -> tuple[str, bool]:  # noqa: ANN401 - handed on
        async with ASYNC[ASYNC_IDS.index(request.param)](rights.producer_database) as connection:
            promise = await enqueue_in(connection, payload, **options)
        return promise.job_id, promise.is_new

    async def promised_sync(payload: CreateUser, **options: Any) -> tuple[str, bool]:  # noqa: ANN401 - handed on
        def promise() -> tuple[str, bool]:
            with SYNC[SYNC_IDS.index(request.param)](rights.producer_database) as connection:
                found = enqueue_in_sync(connection, payload, **options)
            return found.job_id, found.is_new

        return await asyncio.to_thread(promise)

    clients = {"JobClient": by_client, "SyncJobClient": by_sync_client}
    if request.param in clients:
        return Way(clients[request.param], is_promise=False)
    return Way(promised if request.param in ASYNC_IDS else promised_sync, is_promise=True)


async def _let_the_time_pass(redis: Redis, sessions: Sessions) -> None:
    async for key in redis.scan_iter(UNIQUE_KEY + "*"):
        assert TEN_MINUTES - timedelta(minutes=1) < timedelta(milliseconds=await redis.pttl(key)) <= TEN_MINUTES
        await redis.delete(key)
    async with sessions.begin() as session:
        expire = "UPDATE arqonce.unique_requests SET until = until - interval '10 minutes' RETURNING until - now()"
        for (late,) in await session.execute(text(expire)):
            assert timedelta(minutes=-1) < late <= timedelta(0)


async def _count(redis: Redis, sessions: Sessions) -> int:
    async with sessions() as session:
        promised = await session.scalar(text("SELECT count(*) FROM arqonce.outbox")) or 0
    return int(promised) + len([key async for key in redis.scan_iter("arq:job:*")])


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_an_equal_request_within_its_time_is_the_same_job(way: Way, redis: Redis, sessions: Sessions) -> None:
    """Another request is not, nor is one of another queue; after the time the request is new."""
    enqueue = way.enqueue

    first = await enqueue(JANE, unique_for=TEN_MINUTES)
    again = [await enqueue(EQUAL, unique_for=unique_for) for unique_for in (TEN_MINUTES, timedelta(milliseconds=1))]
    without = await enqueue(JANE)
    other = await enqueue(OTHER, unique_for=TEN_MINUTES)
    if way.is_promise:  # least rights are for one queue
        other_queue = await enqueue(JANE, unique_for=TEN_MINUTES, queue="other")
        assert other_queue[1]
    await _let_the_time_pass(redis, sessions)
    later = await enqueue(EQUAL, unique_for=TEN_MINUTES)
    and_again = await enqueue(EQUAL, unique_for=TEN_MINUTES)

    assert again == [(first[0], False)] * 2
    assert [one[1] for one in (first, without, other, later)] == [True] * 4
    assert and_again == (later[0], False)
    assert len({first[0], without[0], other[0], later[0]}) == 4
    assert await _count(redis, sessions) == 4 + way.is_promise


async def test_a_job_that_has_ended_is_the_same_job_too(way: Way, redis: Redis, sessions: Sessions) -> None:
    """Nothing of it is left where it waited."""
    first = await way.enqueue(JANE, unique_for=TEN_MINUTES)
    await redis.delete("arq:queue", f"arq:job:{first[0]}")
    async with sessions.begin() as session:
        await session.execute(text("DELETE FROM arqonce.outbox"))

    again = await way.enqueue(EQUAL, unique_for=TEN_MINUTES)

    assert (again, await _count(redis, sessions)) == ((first[0], False), 0)


@pytest.mark.parametrize("way", ["JobClient", "_async_session", "_sync_psycopg"], indirect=True)
async def test_of_many_equal_requests_at_once_one_is_new(way: Way, redis: Redis, sessions: Sessions) -> None:
    """All of them get its job."""
    found = await asyncio.gather(*(way.enqueue(JANE, unique_for=TEN_MINUTES) for _ in range(20)))

    assert ([is_new for _, is_new in found].count(True), len({job_id for job_id, _ in found})) == (1, 1)
    assert await _count(redis, sessions) == 1


@pytest.mark.parametrize("connect", ASYNC, ids=ASYNC_IDS)
async def test_a_promise_that_is_rolled_back_is_forgotten(
    sessions: Sessions, redis: Redis, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """Whoever waited for it promises the job."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def roll_back() -> None:
        with suppress(ZeroDivisionError):
            async with connect(postgres_url) as connection:
                await enqueue_in(connection, JANE, unique_for=TEN_MINUTES)
                entered.set()
                await leave.wait()
                raise ZeroDivisionError

    async def promise() -> bool:
        await entered.wait()
        async with connect(postgres_url) as connection:
            asyncio.get_running_loop().call_later(0.1, leave.set)
            return (await enqueue_in(connection, EQUAL, unique_for=TEN_MINUTES)).is_new

    _, is_new = await asyncio.gather(roll_back(), promise())

    assert (is_new, await _count(redis, sessions)) == (True, 1)


async def test_one_call_with_many_knows_its_own_again(client: JobClient, redis: Redis) -> None:
    """Equal ones within it are one job, and if the answer is lost, the repeated call finds its own jobs."""
    payloads: Sequence[CreateUser] = [JANE, OTHER, EQUAL, *(CreateUser(name=f"n{number}") for number in range(600))]
    handles = await client.enqueue_many(payloads, unique_for=TEN_MINUTES)
    request = at_once(Request.steps([CreateUser(name="lost")], unique_for=TEN_MINUTES))
    (call,) = request.calls("arq:queue")
    answers = [await client._call(call) for _ in range(2)]
    fields = [list(request.handled(answer)) for answer in answers]

    assert [handle.is_new for handle in handles[:3]] == [True, True, False]
    assert handles[0].job_id == handles[2].job_id
    assert await redis.zcard("arq:queue") == 603
    assert [is_new for ((_, is_new, *_),) in fields] == [True, True]


async def test_what_cannot_be_meant_is_refused(way: Way) -> None:
    """One error each, on every way; nothing is enqueued."""
    wrong: dict[str, dict[str, object]] = {
        "not both": {"unique_for": TEN_MINUTES, "key": "k"},
        "must be a timedelta.*of type int": {"unique_for": 600},
        "1 ms or longer": {"unique_for": timedelta(0)},
        "year 9999": {"unique_for": timedelta.max},
    }
    for problem, options in wrong.items():
        with pytest.raises(InvalidMessageError, match=problem):
            await way.enqueue(JANE, **options)


async def test_what_is_over_is_removed(sessions: Sessions) -> None:
    """By the workers' housekeeping; what is not over stays."""
    async with sessions.begin() as session:
        await enqueue_in(session, JANE, unique_for=TEN_MINUTES)
        kept = await enqueue_in(session, OTHER, unique_for=TEN_MINUTES)
        over = "UPDATE arqonce.unique_requests SET until = now() - interval '1 s' WHERE job_id <> :kept"
        await session.execute(text(over), {"kept": kept.job_id})

    removed = await sweep(sessions, {"unique_requests": timedelta(0)})

    async with sessions() as session:
        left = list(await session.scalars(text("SELECT job_id FROM arqonce.unique_requests")))
    assert (removed, left) == ({"unique_requests": 1}, [kept.job_id])
