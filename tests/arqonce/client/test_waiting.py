"""Waiting for results: Redis tells, nobody polls. On real servers, through a network that fails, from asyncio."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool, Redis

from arqonce import JobClient, JobHandle, JobStatus
from arqonce.client.requests import Promised
from arqonce.client.waiting import _AT_ONCE, _Turns
from arqonce.embedded import open_valkey
from arqonce.failures import InvalidMessageError, JobFailedError, QueueUnavailableError, ResultMissingError
from arqonce.wire.codec import decode, encode
from jobs import CreateUser
from jobs.payloads import UserView
from tests.conftest import wait_until_async, wait_until_empty
from tests.faults.proxy import Proxy, open_proxy

JANE = CreateUser(name="Jane")
ANSWER = encode({"s": True, "r": {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}})
_END = "redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) redis.call('ZREM', KEYS[2], ARGV[2])"
LONG = timedelta(seconds=20)


async def _end(redis: Redis, job_id: str) -> None:
    """End a job as the worker does, inside a script."""
    await redis.register_script(_END)(keys=[f"arq:result:{job_id}", "arq:queue"], args=[ANSWER, job_id])


async def _looks(redis: Redis) -> int:
    """Count the commands that only those send who look for a result, one for each look."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_zscore", {"calls": 0})["calls"])


async def _begin_to_wait(handle: JobHandle[UserView], redis: Redis) -> "asyncio.Task[UserView]":
    """Return when it has looked, and Redis tracks the result."""

    async def is_tracked() -> bool:
        return await _looks(redis) >= before + 1

    before = await _looks(redis)
    task = asyncio.create_task(handle.result(timeout=LONG))
    await wait_until_async(is_tracked, 10)
    return task


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[Proxy]:
    """Open a proxy before the Valkey of all tests."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        yield proxy


async def test_a_wait_of_seconds_costs_one_look(client: JobClient, redis: Redis) -> None:
    """One at the beginning and one at the end: no polling."""
    handle = await client.enqueue(JANE)
    before = await _looks(redis)
    waiting = await _begin_to_wait(handle, redis)

    await asyncio.sleep(1)
    during = await _looks(redis) - before
    await _end(redis, handle.job_id)
    result = await waiting

    assert (during, await _looks(redis) - before, result.name) == (1, 2, "Jane")


async def test_two_thousand_who_wait_share_one_connection(client: JobClient, redis: Redis) -> None:
    """And each gets its own answer."""
    handles = await client.enqueue_many([JANE] * 2000)
    before, looks = len(await redis.client_list()), await _looks(redis)
    waiting = asyncio.gather(*(handle.result(timeout=LONG) for handle in handles))

    async def all_have_looked() -> bool:
        return await _looks(redis) >= looks + 2000

    await wait_until_async(all_have_looked, 10)

    async def is_one_left() -> bool:  # another has proved that changes are told, and goes
        return len(await redis.client_list()) - before == 1

    await wait_until_async(is_one_left, 10)
    for handle in handles:
        await _end(redis, handle.job_id)

    assert len(await waiting) == 2000


async def test_thousands_begin_to_wait_in_several_turns_of_the_loop() -> None:
    """Ten thousand in one would hold up all other tasks for a second. In their order, without those who have gone."""
    turns, went, each = _Turns(), list[int](), list[int]()

    async def go(number: int) -> None:
        await turns.take()
        went.append(number)

    tasks = [asyncio.create_task(go(number)) for number in range(350)]
    await asyncio.sleep(0)
    for task in tasks[150:200]:
        task.cancel()
    for _ in range(9):
        each.append(len(went))
        await asyncio.sleep(0)

    assert went == [*range(150), *range(200, 350)]
    assert max(after - before for before, after in pairwise([0, *each])) <= _AT_ONCE
    await asyncio.wait_for(asyncio.gather(*map(go, range(_AT_ONCE + 1))), 5)


async def test_a_result_that_is_written_at_any_moment_is_not_missed(client: JobClient, redis: Redis) -> None:
    """Looking and tracking are one command: nothing lies between them."""
    handles = await client.enqueue_many([JANE] * 500)

    async def wait(handle: JobHandle[UserView], pause: float) -> UserView:
        await asyncio.sleep(pause)
        return await handle.result(timeout=timedelta(seconds=10))

    waiting = asyncio.gather(*(wait(handle, number / 2000) for number, handle in enumerate(handles)))
    for handle in handles:
        await _end(redis, handle.job_id)

    assert len(await waiting) == 500


async def test_several_may_wait_for_one_job(client: JobClient, redis: Redis) -> None:
    """One that gives up takes the others' news with it to no grave."""
    first, second = await client.enqueue(JANE, key="k"), await client.enqueue(JANE, key="k")
    patient = [await _begin_to_wait(first, redis), asyncio.create_task(second.result(timeout=LONG))]
    with pytest.raises(TimeoutError):
        await first.result(timeout=timedelta(milliseconds=20))

    await _end(redis, "k")

    assert [user.name for user in await asyncio.gather(*patient)] == ["Jane", "Jane"]


async def test_a_lost_connection_is_made_anew_and_looks_again(redis: Redis, proxy: Proxy) -> None:
    """The result was written while nobody could be told."""
    async with JobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handle = await client.enqueue(JANE)
        waiting = await _begin_to_wait(handle, redis)
        proxy.is_closed = True
        proxy.cut()
        await _end(redis, handle.job_id)
        proxy.is_closed = False

        result = await asyncio.wait_for(waiting, 5)

    assert result.name == "Jane"


async def test_many_losses_lose_no_result(redis: Redis, proxy: Proxy) -> None:
    """Cut every 20 ms, while results are written."""
    async with JobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handles = await client.enqueue_many([JANE] * 200)
        waiting = asyncio.gather(*(handle.result(timeout=LONG) for handle in handles))
        for number, handle in enumerate(handles):
            await _end(redis, handle.job_id)
            if number % 10 == 0:
                proxy.cut()
                await asyncio.sleep(0.02)

        assert len(await waiting) == 200


async def test_a_redis_that_stays_away_is_told_to_all_who_wait(redis: Redis, proxy: Proxy) -> None:
    """After some attempts, with the cure; and the next call works when it is back."""
    async with JobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handles = await client.enqueue_many([JANE] * 20)
        await _begin_to_wait(handles[0], redis)
        waiting = [asyncio.create_task(handle.result(timeout=LONG)) for handle in handles]
        await asyncio.sleep(0)
        proxy.is_closed = True
        proxy.cut()
        errors = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        proxy.heal()

        await _end(redis, handles[0].job_id)
        result = await handles[0].result(timeout=LONG)

    assert {type(error) for error in errors} == {QueueUnavailableError}
    assert result.name == "Jane"


async def test_a_silent_redis_is_not_taken_for_a_job_that_is_late(redis: Redis, proxy: Proxy) -> None:
    """Whoever reads the error looks for the fault at the right place; without a timeout it comes after 5 s, not 25."""
    assert await redis.ping()
    async with JobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handle = await client.enqueue(JANE)
        with pytest.raises(TimeoutError, match="is a worker running"):
            await handle.result(timeout=timedelta(0))
        proxy.silence()

        async with asyncio.timeout(9):
            late, never = await asyncio.gather(
                handle.result(timeout=timedelta(milliseconds=10)), handle.result(), return_exceptions=True
            )

        assert isinstance(late, TimeoutError)
        assert "has not answered" in str(late)
        assert isinstance(never, QueueUnavailableError)


async def test_a_wiped_redis_ends_the_wait(client: JobClient, redis: Redis) -> None:
    """No result will ever come."""
    waiting = await _begin_to_wait(await client.enqueue(JANE), redis)

    await redis.flushall()

    with pytest.raises(ResultMissingError):
        await asyncio.wait_for(waiting, 5)


async def test_a_client_that_is_closed_ends_its_waits(valkey_url: str, redis: Redis) -> None:
    """A task that waits for ever would hold up the end of its program."""
    async with JobClient(valkey_url) as client:
        waiting = await _begin_to_wait(await client.enqueue(JANE), redis)

    with pytest.raises(QueueUnavailableError):
        await asyncio.wait_for(waiting, 5)


async def test_nobody_waits_and_the_connection_goes(
    client: JobClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept for a while, in which the next wait saves the greeting."""
    monkeypatch.setattr("arqonce.client.waiting.LINGER", timedelta(milliseconds=50))
    handle = await client.enqueue(JANE)
    before = len(await redis.client_list())
    waiting = await _begin_to_wait(handle, redis)
    await _end(redis, handle.job_id)
    await waiting

    async def is_gone() -> bool:
        return len(await redis.client_list()) == before

    await wait_until_async(is_gone, 5)
    assert (await handle.result(timeout=LONG)).name == "Jane"


@pytest.mark.usefixtures("starts_processes")
async def test_where_tracking_is_refused_it_polls(tmp_path: Path) -> None:
    """An ACL of ours from before, or a proxy: slower, with the same results."""
    with open_valkey(tmp_path) as server:
        async with Redis.from_url(server.url) as redis:
            await redis.acl_setuser(
                "old", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-client|tracking"]
            )
            async with JobClient(server.url.replace("redis://", "redis://old:any@")) as client:
                handle = await client.enqueue(JANE)
                waiting = asyncio.create_task(handle.result(timeout=LONG))
                before = await _looks(redis)

                async def looks_again() -> bool:
                    return await _looks(redis) - before > 10

                await wait_until_async(looks_again, 10)
                await _end(redis, handle.job_id)

                assert (await waiting).name == "Jane"


async def test_a_job_that_ends_without_a_result_is_found_out(
    client: JobClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain arq worker with ``keep_result=0``: nothing is written, so nothing is told; a slow look finds it."""
    monkeypatch.setattr("arqonce.client.waiting.LOOK_AGAIN", timedelta(milliseconds=100))
    handle = await client.enqueue(JANE)
    waiting = await _begin_to_wait(handle, redis)

    await redis.zrem("arq:queue", handle.job_id)

    with pytest.raises(ResultMissingError):
        await asyncio.wait_for(waiting, 5)


async def test_a_plain_arq_worker_answers_who_waits(client: JobClient, redis: Redis, valkey_url: str) -> None:
    """Its results and failures are found without polling, too."""

    async def create_user(_ctx: object, name: str) -> dict[str, object]:
        await asyncio.sleep(0)
        if name == "Nobody":
            raise JobFailedError("nobody", code="nobody")
        return {"id": 7, "name": name, "email": None, "created_at": "2026-01-01T00:00:00Z"}

    handles = await client.enqueue_many([JANE, CreateUser(name="Nobody")])
    waiting = [await _begin_to_wait(handle, redis) for handle in handles]
    pool = ArqRedis(ConnectionPool.from_url(valkey_url), job_serializer=encode, job_deserializer=decode)
    worker = Worker(
        [func(create_user, name="create_user")],  # type: ignore[arg-type] # arq's protocol has any arguments
        redis_pool=pool, burst=True, poll_delay=0.01, handle_signals=False,
        job_serializer=encode, job_deserializer=decode,
    )  # fmt: skip
    await worker.async_run()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await worker.close()

    assert isinstance(results[0], UserView)
    assert isinstance(results[1], JobFailedError)
    assert (results[0].id, results[1].code) == (7, "nobody")


async def test_a_promised_job_is_waited_for_before_it_is_in_redis(client: JobClient, redis: Redis) -> None:
    """It is told of, although Redis had never heard of it."""
    handle = client.handle(Promised("later", is_new=True, result_type=UserView))
    waiting = await _begin_to_wait(handle, redis)

    await _end(redis, "later")

    assert (await waiting).name == "Jane"


async def test_what_is_no_payload_is_refused_with_the_cure(client: JobClient, redis: Redis) -> None:
    """Neither an AttributeError nor a job that nobody can run; its value is not repeated."""
    for wrong, text in ((1, "of type int"), ("secret", "of type str"), (CreateUser, "the class CreateUser")):
        with pytest.raises(InvalidMessageError, match=f"such as CreateUser.*{text}"):
            await client.enqueue_many([wrong])  # type: ignore[arg-type] # the mistake under test
        with pytest.raises(InvalidMessageError, match=f"such as CreateUser.*{text}"):
            await client.enqueue(wrong)  # type: ignore[arg-type] # the mistake under test

    await wait_until_empty(redis)


async def test_the_status_follows_the_job(client: JobClient, redis: Redis) -> None:
    """Also of a running job of ours, whose score lies in the future."""
    later = await client.enqueue(JANE, delay=timedelta(hours=1))
    handle = await client.enqueue(JANE)
    seen = [await later.status(), await handle.status()]
    await redis.set(f"arq:in-progress:{handle.job_id}", "1")
    await redis.zadd("arq:queue", {handle.job_id: 2e12})
    seen.append(await handle.status())
    await _end(redis, handle.job_id)
    seen.append(await handle.status())
    await redis.flushall()
    seen.append(await handle.status())

    assert [status.value for status in seen] == ["deferred", "queued", "running", "succeeded", "not_found"]


async def test_a_handle_is_made_of_an_id_alone(client: JobClient, redis: Redis) -> None:
    """For the next request of a web application, in another process."""
    await client.enqueue(JANE, key="k")
    handle = client.handle(CreateUser, "k")
    await _end(redis, "k")

    assert (await handle.result(timeout=LONG)).name == "Jane"
    assert (await client.handle(CreateUser, "no").status()) is JobStatus.NOT_FOUND
    with pytest.raises(InvalidMessageError, match="the job's id must be"):
        client.handle(CreateUser, "a b")
