"""A server, or what lies before it, accepts CLIENT TRACKING and tells of no changes: nobody relies on being told."""

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from arqonce import JobClient, SyncJobClient
from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import build_redis
from arqonce.connection.tracking import TrackingProof
from arqonce.engine.idle import _State
from jobs import CreateUser
from tests.arqonce.client.test_waiting import ANSWER
from tests.arqonce.conftest import pool  # noqa: F401 - arq's producer
from tests.arqonce.engine.test_idle import Log, StartFleet, _in, _run, log, start  # noqa: F401 - workers in this process
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import Sessions, wait_for_log
from tests.faults.proxy import Proxy
from tests.faults.pushes import without_pushes

SOON = timedelta(seconds=20)


async def test_a_worker_says_so_once_and_polls(
    start_worker: StartWorker, sessions: Sessions, redis_proxy: Proxy, valkey_url: str
) -> None:
    """It finds out by a key of its own, before there is a job: even the first one does not wait for a safety look."""
    assert sessions is not None
    redis_proxy.rewrites = without_pushes
    worker = start_worker(REDIS_URL=redis_proxy.environment["REDIS_URL"])
    waits = []
    async with JobClient(valkey_url) as client:
        for name in ("first", "second", "third"):
            began = time.monotonic()
            await (await client.enqueue(CreateUser(name=name))).result(timeout=SOON)
            waits.append(time.monotonic() - began)
            await wait_for_log(worker, "Redis does not wake us", 5)

    assert waits[0] < 2
    assert max(waits[1:]) < 1
    assert worker.log.count("does not report changes") == 1


async def test_both_clients_look_for_their_results(
    redis: Redis, redis_proxy: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also who waits already when that turns out; the log says it once."""
    monkeypatch.setattr("arqonce.connection.tracking._was_told", False)
    redis_proxy.rewrites = without_pushes
    url = redis_proxy.environment["REDIS_URL"]
    with caplog.at_level(logging.WARNING, "arqonce.connection.tracking"), SyncJobClient(url) as blocking:
        async with JobClient(url) as client:
            waits = [await _wait_for(redis, client, blocking) for _ in range(2)]

    assert waits[0] < 2
    assert waits[1] < 1
    assert [record.name for record in caplog.records] == ["arqonce.connection.tracking"]


async def _wait_for(redis: Redis, client: Any, blocking: Any) -> float:  # noqa: ANN401 - of both kinds
    handle = await client.enqueue(CreateUser(name="Jane"))
    same = blocking.handle(CreateUser, handle.job_id)
    waiting = asyncio.gather(handle.result(timeout=SOON), asyncio.to_thread(same.result, timeout=SOON))
    await asyncio.sleep(0.1)  # both wait
    began = time.monotonic()
    await redis.set(f"arq:result:{handle.job_id}", ANSWER)
    await waiting
    return time.monotonic() - began


async def test_a_result_that_nothing_told_of_ends_the_trust_of_all(redis: Redis, redis_proxy: Proxy) -> None:
    """Whoever reads for all threads finds its result in a turn; the others do not wait for theirs."""
    with SyncJobClient(redis_proxy.environment["REDIS_URL"]) as blocking:
        handles = [blocking.enqueue(CreateUser(name="Jane")) for _ in range(5)]
        waiting = [asyncio.create_task(asyncio.to_thread(handle.result, timeout=SOON)) for handle in handles]
        await asyncio.sleep(0.5)  # it was proved, and all wait
        redis_proxy.rewrites = without_pushes
        began = time.monotonic()
        await redis.mset({f"arq:result:{handle.job_id}": ANSWER for handle in handles})
        await asyncio.gather(*waiting)

    assert time.monotonic() - began < 4  # ROLE_EVERY, and the limit of a proof


async def test_what_was_a_hiccup_is_proved_again(redis_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after it has failed, and at once on a new connection."""
    monkeypatch.setattr("arqonce.connection.tracking._AGAIN", timedelta(0))
    failed = asyncio.Event()
    async with build_redis(redis_proxy.environment["REDIS_URL"], Redis) as redis:
        direct = DirectConnection(redis, tracks=True)
        proof = TrackingProof(direct, redis, failed.set)
        direct.on_change = proof.hear
        redis_proxy.rewrites = without_pushes
        proof.begin(await direct.open())
        await asyncio.wait_for(failed.wait(), 5)
        assert "does not report changes" in str(proof.failure)
        redis_proxy.rewrites = bytes

        async def is_proved() -> bool:
            proof.begin(await direct.open())
            return proof.failure is None

        await wait_until_async(is_proved, 5)
        proof.close()
        direct.close()


async def test_a_job_that_nothing_told_of_ends_the_trust(
    start: StartFleet,  # noqa: F811 - the fixture
    log: Log,  # noqa: F811 - the fixture
    pool: Any,  # noqa: F811, ANN401 - arq's
    redis_proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A safety look has found it: from then on the worker polls."""
    monkeypatch.setattr("arqonce.engine.idle._SAFETY_POLL", timedelta(seconds=1))
    (worker,) = await start(url=redis_proxy.environment["REDIS_URL"], poll_delay=0.02)
    assert await _run(pool, log, "told") < 0.5
    assert _in(_State.WATCHING, [worker])
    redis_proxy.rewrites = without_pushes

    await _run(pool, log, "untold")

    async def polls() -> bool:
        return bool(_in(_State.POLLING, [worker]))

    assert await _run(pool, log, "polled") < 0.5
    await wait_until_async(polls, 5)  # between two claims
