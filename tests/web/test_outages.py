"""Servers that are gone, and a queue that is full: 503 with Retry-After, never 500."""

import asyncio
import time
from collections.abc import Awaitable

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import ValkeyServer
from tests.conftest import StartWorker, wait_until, wait_until_async
from tests.faults.proxy import Proxy
from tests.web.conftest import Answer, StartWeb, WebProcess

JANE = {"name": "Jane", "email": "jane@example.org"}
Sessions = async_sessionmaker[AsyncSession]


async def _stored(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(text("SELECT name FROM users ORDER BY id")))


@pytest.mark.parametrize("way", ["closed", "silent"])
async def test_without_redis_nothing_is_accepted_and_all_is_read(
    start_web: StartWeb,
    redis_proxy: Proxy,
    redis: Redis,
    sessions: Sessions,
    way: str,
) -> None:
    """503 within seconds; reads go on, and so do posts when it is back."""
    assert sessions is not None
    service = start_web(**redis_proxy.environment)
    await service.post("/users", JANE, Idempotency_Key="k1")
    redis_proxy.is_closed = way == "closed"
    redis_proxy.cut()
    if way == "silent":
        redis_proxy.silence()

    begin = time.monotonic()
    refused = await service.post("/users", JANE, Idempotency_Key="k2")
    seconds = time.monotonic() - begin
    read, job = await service.get("/user?name=Jane"), await service.get("/jobs/k2")
    redis_proxy.heal()

    async def is_accepted() -> bool:
        return (await service.post("/users", JANE, Idempotency_Key="k2")).status == 202

    await wait_until_async(is_accepted, 10)
    assert (refused.status, refused.headers["Retry-After"], seconds < 8) == (503, "2", True)
    assert (read.status, job.status, job.headers["Retry-After"]) == (404, 503, "2")
    assert refused.problem[:2] == (503, "queue_unavailable")
    assert "Redis is gone" in service.log
    assert await redis.zcard("arq:queue") == 2


async def test_the_service_starts_without_its_servers(start_web: StartWeb) -> None:
    """It answers 503 until they are there."""
    service = start_web(REDIS_URL="redis://127.0.0.1:1/0", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    answers = [await service.post("/users", JANE), await service.get("/user?name=Jane"), await service.get("/jobs/k1")]

    assert [(answer.problem[0], answer.headers["Retry-After"]) for answer in answers] == [(503, "2")] * 3


async def test_without_postgresql_reads_are_refused_and_posts_accepted(
    start_web: StartWeb,
    postgres_proxy: Proxy,
    sessions: Sessions,
) -> None:
    """503 for who reads; the queue takes jobs all the same, with a key, too."""
    assert sessions is not None
    service = start_web(**postgres_proxy.environment)
    assert (await service.get("/user?name=Jane")).status == 404
    postgres_proxy.is_closed = True
    postgres_proxy.cut()

    reads = [await service.get(path) for path in ("/user?name=Jane", "/users?email=jane@example.org", "/users/1")]
    posts = [
        await service.post("/users", JANE),
        await service.post("/users", JANE, Idempotency_Key="k1", Prefer="wait=1"),
    ]
    job = await service.get("/jobs/k1")

    assert [(answer.problem[:2], answer.headers["Retry-After"]) for answer in reads] == [
        ((503, "database_unavailable"), "2")
    ] * 3
    assert [answer.status for answer in posts] == [202, 202]
    assert job.json["status"] == "queued"


async def test_a_silent_postgresql_delays_a_post_by_a_second_and_a_read_by_five(
    start_web: StartWeb,
    postgres_proxy: Proxy,
    sessions: Sessions,
) -> None:
    """A key is looked for there for so long, and no longer; and no reader waits for the limit of a statement."""
    assert sessions is not None
    service = start_web(**postgres_proxy.environment)
    await service.get("/user?name=Jane")
    postgres_proxy.silence()

    async def answer(request: Awaitable[Answer]) -> tuple[int, float]:
        begin = time.monotonic()
        return (await request).status, time.monotonic() - begin

    post, *reads = await asyncio.gather(
        answer(service.post("/users", JANE, Idempotency_Key="k1")),
        *(answer(service.get("/user?name=Jane")) for _ in range(10)),
    )

    assert (post[0], post[1] < 4) == (202, True), post
    assert {status for status, _ in reads} == {503}
    assert max(seconds for _, seconds in reads) < 7.5, reads


async def test_a_restarted_postgresql_costs_no_reader_an_answer(service: WebProcess, sessions: Sessions) -> None:
    """Lost connections are found by their first use, and the look-up is repeated."""
    await asyncio.gather(*(service.get("/user?name=Jane") for _ in range(20)))
    async with sessions() as session:
        ended = await session.scalar(
            text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'users-web'")
        )

    answers = await asyncio.gather(*(service.get("/user?name=Jane") for _ in range(20)))

    assert (ended or 0) >= 1
    assert {answer.status for answer in answers} == {404}


@pytest.mark.parametrize("accepts", ["queue", "outbox"])
async def test_a_database_that_cannot_be_written_to_is_told_as_such(
    accepts: str, start_web: StartWeb, database: DatabaseSettings, postgres_proxy: Proxy, sessions: Sessions
) -> None:
    """A standby, or one that is read-only: 503 with the reason in the log, and at once no more when it is over."""
    assert sessions is not None
    service = start_web(WEB_ACCEPT_THROUGH=accepts, **postgres_proxy.environment)
    await service.get("/user?name=Jane")
    url = database.sqlalchemy_url
    name = f'"{url.database}"'
    async with sessions.begin() as session:
        await session.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    try:
        postgres_proxy.cut()
        read, post = await service.get("/user?name=Jane"), await service.post("/users", JANE)
    finally:
        async with sessions.begin() as session:
            await session.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
    after = await service.get("/user?name=Jane"), await service.post("/users", JANE, Idempotency_Key="k2")

    assert (read.problem[:2], read.headers["Retry-After"]) == ((503, "database_unavailable"), "2")
    assert "the database cannot be written to" in read.text
    assert post.status == (202 if accepts == "queue" else 503)
    assert [answer.status for answer in after] == [404, 202]
    assert "default_transaction_read_only is on" in service.log


async def test_a_full_queue_is_told_to_come_back(start_web: StartWeb, redis: Redis) -> None:
    """503 from the limit on; the count may be 200 ms old."""
    service = start_web(WEB_MAX_QUEUED="3")
    await redis.zadd("arq:queue", {f"j{number}": 4e12 for number in range(3)})

    refused = await service.post("/users", JANE)
    await redis.zrem("arq:queue", "j0")

    async def is_accepted() -> bool:
        return (await service.post("/users", JANE, Idempotency_Key="k1")).status == 202

    await wait_until_async(is_accepted, 2)
    assert (refused.problem[:2], refused.headers["Retry-After"]) == ((503, "queue_full"), "2")
    assert await redis.zcard("arq:queue") == 3


async def test_a_valkey_that_is_full_is_unavailable(start_web: StartWeb, valkey: ValkeyServer) -> None:
    """It answers, and takes nothing: 503 as well."""
    service = start_web(REDIS_URL=valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        await redis.config_set("maxmemory", "1")

        answer = await service.post("/users", JANE)

    assert answer.problem[:2] == (503, "queue_unavailable")
    assert "the queue does not accept jobs" in answer.text
    await asyncio.to_thread(wait_until, lambda: "Redis refuses commands" in service.log, 5)  # a thread writes the log


async def test_through_the_outbox_redis_may_be_gone(
    start_web: StartWeb,
    start_worker: StartWorker,
    redis_proxy: Proxy,
    sessions: Sessions,
) -> None:
    """202, once for one key; the worker finds the promise when it can. Another request under the key is refused."""
    redis_proxy.is_closed = True
    service = start_web(WEB_ACCEPT_THROUGH="outbox", **redis_proxy.environment)

    accepted = [await service.post("/users", JANE, Idempotency_Key="k1", Prefer="wait=1") for _ in "12"]
    other = await service.post("/users", {"name": "Joan"}, Idempotency_Key="k1")
    queued = await service.get("/jobs/k1")
    redis_proxy.heal()
    start_worker()
    created = await service.post("/users", JANE, Idempotency_Key="k1", Prefer="wait=20")

    assert [answer.status for answer in accepted] == [202, 202]
    assert (other.problem[:2], queued.json["status"]) == ((422, "key_conflict"), "queued")
    assert created.status == 201, created.text
    assert await _stored(sessions) == ["Jane"]


async def test_through_the_outbox_postgresql_is_needed(
    start_web: StartWeb,
    postgres_proxy: Proxy,
) -> None:
    """Without it 503: nothing was promised."""
    postgres_proxy.is_closed = True
    service = start_web(WEB_ACCEPT_THROUGH="outbox", **postgres_proxy.environment)

    answer = await service.post("/users", JANE)

    assert (answer.problem[:2], answer.headers["Retry-After"]) == ((503, "database_unavailable"), "2")
