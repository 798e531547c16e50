"""The way to Redis fails while jobs flow: cut, half closed, silent. With real workers behind a proxy."""

import asyncio
import hashlib
import time
from datetime import timedelta

from redis.asyncio import Redis

from arqonce import JobClient
from arqonce.engine.scripts.claims import CLAIM
from arqonce.engine.scripts.finish import FINISH
from jobs import CreateUser
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import (
    Sessions,
    attempts,
    events,
    letters,
    users_by_name,
    wait_for_empty_queue,
    wait_for_log,
)
from tests.faults.proxy import Proxy
from tests.worker.test_end_to_end import COMMANDS

SOON = timedelta(seconds=20)
CLAIM_CALL, FINISH_CALL = (
    hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode() for script in (CLAIM, FINISH)
)
"""What these calls look like on the wire."""


async def test_cuts_every_150_ms_lose_and_double_nothing(
    start_worker: StartWorker,
    client: JobClient,
    redis: Redis,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """Arq ends after a second or two of this; ours lives, and each job takes effect once, in its first attempt."""
    worker = start_worker(**redis_proxy.environment)
    end = time.monotonic() + 5
    names: list[str] = []
    while time.monotonic() < end:
        names += [f"User {len(names) + number}" for number in range(10)]
        await client.enqueue_many([CreateUser(name=name) for name in names[-10:]])
        await asyncio.sleep(0.15)
        redis_proxy.cut()

    await wait_for_empty_queue(redis)

    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    assert await letters(sessions) == {}
    assert worker.process.poll() is None
    assert attempts(worker) == {1}


async def test_a_claim_that_is_cut_off_burns_no_attempt(
    start_worker: StartWorker,
    client: JobClient,
    redis: Redis,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """The server has claimed, its answer is lost, several times over: the job still starts as attempt 1, and soon."""
    assert sessions is not None  # it removes the users afterwards
    worker = start_worker(**redis_proxy.environment)
    await redis.script_load(CLAIM)  # or what is lost is only Redis' word that it does not know it yet
    redis_proxy.loses_replies_to = CLAIM_CALL
    await asyncio.to_thread(_wait_for_losses, redis_proxy, 1)  # or a claim that was under way could get the job
    handle = await client.enqueue(CreateUser(name="Claimed"))

    async def is_claimed() -> bool:
        return bool(await redis.exists(f"arq:in-progress:{handle.job_id}"))

    await wait_until_async(is_claimed, 20)
    await asyncio.to_thread(_wait_for_losses, redis_proxy, redis_proxy.losses + 2)
    redis_proxy.heal()
    healed = time.monotonic()

    await handle.result(timeout=SOON)

    assert attempts(worker) == {1}
    assert time.monotonic() - healed < 5  # about half a second; the lease is 14 s


def _wait_for_losses(proxy: Proxy, count: int) -> None:
    limit = time.monotonic() + 20
    while proxy.losses < count:
        assert time.monotonic() < limit
        time.sleep(0.01)


async def test_an_outcome_whose_answer_is_lost_is_recorded_once(
    start_worker: StartWorker,
    client: JobClient,
    redis: Redis,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """The result is written, the worker does not learn it: it asks again, and nothing runs a second time."""
    worker = start_worker(**redis_proxy.environment)
    await redis.script_load(FINISH)  # or what is lost is only Redis' word that it does not know it yet
    redis_proxy.loses_replies_to = FINISH_CALL
    handle = await client.enqueue(CreateUser(name="Finished"))
    await asyncio.to_thread(_wait_for_losses, redis_proxy, 1)
    redis_proxy.heal()

    user = await handle.result(timeout=SOON)
    await wait_for_empty_queue(redis)

    assert (user.name, await users_by_name(sessions)) == ("Finished", {"Finished": 1})
    assert len(events(worker, "job done")) == 1


async def test_connections_that_are_accepted_and_closed_do_not_end_it(
    start_worker: StartWorker,
    client: JobClient,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """So does a load balancer whose server is gone; the worker waits, says so once, and resumes within 2 s."""
    assert sessions is not None
    worker = start_worker(**redis_proxy.environment)
    redis_proxy.is_closed = True
    redis_proxy.cut()
    await wait_for_log(worker, "Redis is gone", 20)
    handle = await client.enqueue(CreateUser(name="Waiting"))
    await asyncio.sleep(3)  # time in which it could end, or say it again
    redis_proxy.heal()
    healed = time.monotonic()

    await handle.result(timeout=SOON)

    assert time.monotonic() - healed < 2
    assert worker.process.poll() is None
    assert (worker.log.count("Redis is gone"), attempts(worker)) == (1, {1})


async def test_a_silent_redis_is_noticed_in_seconds(
    start_worker: StartWorker,
    client: JobClient,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """A connection that swallows everything: arq waits for ever, without a word."""
    assert sessions is not None
    worker = start_worker(**redis_proxy.environment)
    await (await client.enqueue(CreateUser(name="Before"))).result(timeout=SOON)
    redis_proxy.silence()
    silent = time.monotonic()
    await wait_for_log(worker, "Redis is gone", 15)
    noticed = time.monotonic() - silent
    handle = await client.enqueue(CreateUser(name="After"))
    await asyncio.sleep(6)  # a second claim goes into the void
    redis_proxy.heal()
    healed = time.monotonic()

    await handle.result(timeout=SOON)

    assert (noticed < 8, time.monotonic() - healed < 2) == (True, True)
    assert (worker.log.count("Redis is gone"), attempts(worker)) == (1, {1})


async def test_arqs_class_loses_nothing_by_cuts(
    start_worker: StartWorker,
    client: JobClient,
    redis: Redis,
    sessions: Sessions,
    redis_proxy: Proxy,
) -> None:
    """It may end, and needs a supervisor: the next process does the rest, and what was done is not done again."""
    worker = start_worker(*COMMANDS["arq"], **redis_proxy.environment)
    names: list[str] = []
    end = time.monotonic() + 8
    while worker.process.poll() is None and time.monotonic() < end:
        if await redis.zcard("arq:queue") < 20:
            names += [f"User {len(names) + number}" for number in range(20)]
            await client.enqueue_many([CreateUser(name=name) for name in names[-20:]])
        redis_proxy.cut()
        await asyncio.sleep(0.1)
    code = worker.process.poll()
    worker.kill()
    for key in await redis.keys("arq:in-progress:*"):
        await redis.delete(key)  # or the next process would wait 75 s for them
    start_worker(*COMMANDS["arq"])

    await wait_for_empty_queue(redis)

    assert code != 0
    assert await users_by_name(sessions) == dict.fromkeys(names, 1)


async def test_an_enqueue_whose_request_or_answer_is_lost_leaves_one_job(redis: Redis, redis_proxy: Proxy) -> None:
    """Arq says "duplicate" to both, although in one case nothing was queued. Ours asks again, and queues it once."""
    async with JobClient(redis_proxy.environment["REDIS_URL"]) as client:
        await client.enqueue(CreateUser(name="First"))  # the script is known to the server now
        redis_proxy.loses_requests_with = b"request-lost"
        request_lost = await _heal_after_loss(redis_proxy, client, "request-lost")
        redis_proxy.loses_replies_to = b"answer-lost"
        answer_lost = await _heal_after_loss(redis_proxy, client, "answer-lost")

    assert (request_lost, answer_lost) == (True, False)
    assert await redis.exists("arq:job:request-lost", "arq:job:answer-lost") == 2
    assert await redis.zcard("arq:queue") == 3


async def _heal_after_loss(proxy: Proxy, client: JobClient, key: str) -> bool:
    losses = proxy.losses
    call = asyncio.create_task(client.enqueue(CreateUser(name="x"), key=key))

    async def has_lost() -> bool:
        return proxy.losses > losses

    await wait_until_async(has_lost, 5)
    proxy.heal()
    return (await call).is_new
