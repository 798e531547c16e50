"""Running relays: woken by commits, one after the other, killed, stopped, and beside workers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy import text

from arqonce.relay.listener import Wakeup
from arqonce.relay.relay import Relay, open_relay
from arqonce.rest import Rest
from arqonce.settings.worker import Settings
from jobs import CreateUser, GetOrCreateUser
from tests.conftest import StartWorker
from tests.promised import JANE, Sessions, execute, promise, until, where


@asynccontextmanager
async def _running(sessions: Sessions, settings: Settings) -> AsyncIterator[Relay]:
    async with open_relay(sessions, settings) as relay:
        if relay.wakeup is not None:
            wakeup = relay.wakeup

            async def listens() -> bool:
                return wakeup.is_listening

            await until(listens)
        yield relay


@pytest.mark.parametrize("pgbouncer", [False, True])
async def test_a_commit_is_in_redis_at_once(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    pgbouncer: bool,  # noqa: FBT001 - pytest's parameters
) -> None:
    """By a notification, within milliseconds; where there are none, within half a second."""
    database = settings.database.model_copy(update={"pgbouncer": pgbouncer})
    latencies = []
    async with _open(sessions, Settings(database, settings.queue, settings.worker), is_listening=not pgbouncer):
        for number in range(5 if pgbouncer else 50):
            await asyncio.sleep(0.005)  # idle, as between two requests
            await promise(sessions, JANE, f"j{number}")
            started = time.perf_counter()
            while await redis.zscore("arq:queue", f"j{number}") is None:
                await asyncio.sleep(0)
            latencies.append(time.perf_counter() - started)

    latencies.sort()
    assert latencies[len(latencies) // 2] < (1.0 if pgbouncer else 0.1)
    assert latencies[-1] < 2.5


@asynccontextmanager
async def _open(sessions: Sessions, settings: Settings, *, is_listening: bool) -> AsyncIterator[Relay]:
    if is_listening:
        async with _running(sessions, settings) as relay:
            yield relay
    else:
        async with open_relay(sessions, settings) as relay:
            yield relay


async def test_one_of_many_listens_and_the_next_takes_over(sessions: Sessions) -> None:
    """Its lost connection is noticed, and the pool is whole in the end."""
    engine = sessions.kw["bind"]
    ears = [Wakeup(engine, ["arq:queue"]) for _ in range(4)]
    counts = []

    async def one_listens() -> bool:
        return sum(ear.is_listening for ear in ears) == 1

    async with AsyncExitStack() as stack:
        for ear in ears:
            await stack.enter_async_context(ear.listening())
        for _ in range(2):
            await until(one_listens)
            (first,) = [ear for ear in ears if ear.is_listening]
            counts.append(sum(ear.is_listening for ear in ears))
            await execute(
                sessions,
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
            )

            async def is_deaf(ear: Wakeup = first) -> bool:
                return not ear.is_listening

            await until(is_deaf)
        await until(one_listens)

    assert counts == [1, 1]
    assert engine.pool.checkedout() == 0


async def test_a_relay_at_rest_waits_for_a_commit_or_the_end_of_its_rest(sessions: Sessions) -> None:
    """One that listens polls all the same: nobody else hears of commits."""
    rest, hour, soon = Rest(), timedelta(hours=1), timedelta(milliseconds=1)
    wakeup = Wakeup(sessions.kw["bind"], ["arq:queue"], rest)
    rest.begin()
    for wake in (rest.end, wakeup._rung.set):
        rest.begin()
        waiting = asyncio.create_task(wakeup.wait(soon, hour))
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        wake()
        await asyncio.wait_for(waiting, 5)
    wakeup.is_listening = True

    await asyncio.wait_for(wakeup.wait(soon, hour), 5)


async def test_a_stopped_listener_delays_a_job_by_two_seconds_at_most(
    start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """It holds the lock and hears nothing: the others look by themselves."""
    listener = start_worker(sys.executable, "-m", "worker", "relay")
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid <> 0"

    async def listens() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(text(query)))

    await until(listens)
    start_worker(sys.executable, "-m", "worker", "relay")
    os.kill(listener.process.pid, signal.SIGSTOP)

    await promise(sessions, JANE, "jane")
    started = time.perf_counter()

    async def is_given() -> bool:
        return bool(await redis.zcard("arq:queue"))

    await until(is_given)
    took = time.perf_counter() - started
    os.kill(listener.process.pid, signal.SIGCONT)
    assert took < 2.5


async def test_the_relay_alone_starts_and_ends_like_a_worker(
    start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """Health, exit code 0 at SIGTERM, and what is promised meanwhile is given by the next one."""
    first = start_worker(sys.executable, "-m", "worker", "relay")
    code = first.stop()
    await promise(sessions, JANE, "jane")
    assert await redis.zcard("arq:queue") == 0
    start_worker(sys.executable, "-m", "worker", "relay")

    async def is_given() -> bool:
        return bool(await redis.zcard("arq:queue"))

    await until(is_given)
    assert (code, "relay stopped" in first.log) == (0, True)


async def test_nothing_promised_is_lost_by_kills_and_wipes(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, valkey_url: str
) -> None:
    """Relays are killed, Redis is wiped again and again: each job takes effect once and the law holds throughout."""
    workers = [start_worker(WORKER_LEASE="1s")]
    job_ids = [f"j{number}" for number in range(300)]

    async def promise_all() -> None:
        for number, job_id in enumerate(job_ids):
            kinds = (CreateUser(name=f"n{number}"), GetOrCreateUser(name="x", email=f"u{number}@example.org"))
            await promise(sessions, kinds[number % 2], job_id)
            await asyncio.sleep(0.005)

    async def interfere() -> None:
        for turn in range(6):
            await asyncio.sleep(0.4)
            await redis.flushall()
            if turn % 2:
                workers.pop(0).process.kill()
                workers.append(await asyncio.to_thread(start_worker, WORKER_LEASE="1s"))

    async def places() -> set[tuple[str, ...]]:
        found = await where(sessions, *job_ids)
        return {tuple(places) for places in found.values()}

    seen: set[tuple[str, ...]] = set()
    chaos = asyncio.gather(promise_all(), interfere())
    while not chaos.done():
        seen |= await places()
        await asyncio.sleep(0.02)
    await chaos

    async def all_done() -> bool:
        return await places() == {("receipts",)}

    await until(all_done, 60)
    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert users == len(job_ids)
    assert seen <= {(), ("outbox",), ("receipts",)}
    with SyncRedis.from_url(valkey_url) as found:
        assert found.ping()
