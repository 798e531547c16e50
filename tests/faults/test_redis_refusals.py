"""Redis answers, but refuses: full, demoted to a replica, without its replicas. And Redis is killed under load."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy import text

from arqonce import JobClient
from arqonce.embedded import ValkeyServer, open_valkey
from jobs import CreateUser
from tests.conftest import StartWorker
from tests.faults.observe import (
    Sessions,
    attempts,
    events,
    users_by_name,
    wait_for_backends,
    wait_for_empty_queue,
    wait_for_log,
    wait_for_no_connections,
)
from tests.worker.test_end_to_end import COMMANDS

SOON = timedelta(seconds=20)
Refuse = Callable[[SyncRedis], object]

REFUSALS: dict[str, tuple[Refuse, Refuse]] = {
    "full": (lambda redis: redis.config_set("maxmemory", "1"), lambda redis: redis.config_set("maxmemory", "0")),
    "replica": (lambda redis: redis.replicaof("127.0.0.1", "1"), lambda redis: redis.replicaof("NO", "ONE")),
    "without its replicas": (
        lambda redis: redis.config_set("min-replicas-to-write", "1"),
        lambda redis: redis.config_set("min-replicas-to-write", "0"),
    ),
}


@pytest.mark.parametrize("state", REFUSALS)
async def test_a_redis_that_refuses_is_told_once_and_waited_for(
    start_worker: StartWorker, sessions: Sessions, valkey: ValkeyServer, state: str
) -> None:
    """Arq does nothing and says nothing. Ours says it once, and resumes within 2 s."""
    assert sessions is not None
    refuse, admit = REFUSALS[state]
    worker = start_worker(REDIS_URL=valkey.url)
    with SyncRedis.from_url(valkey.url) as server:
        async with JobClient(valkey.url) as client:
            await (await client.enqueue(CreateUser(name="Before"))).result(timeout=SOON)
            handle = await client.enqueue(CreateUser(name="Waiting"), delay=timedelta(seconds=1))
            refuse(server)
            await wait_for_log(worker, "Redis refuses", 15)
            await asyncio.sleep(2)  # several turns, in which it must not say it again
            admit(server)
            admitted = time.monotonic()
            await handle.result(timeout=SOON)
            took = time.monotonic() - admitted

    await wait_for_log(worker, "Redis is back", 5)
    assert took < 2
    assert worker.process.poll() is None
    assert (worker.log.count("Redis refuses"), worker.log.count("Redis is back")) == (1, 1)
    assert attempts(worker) == {1}


async def test_an_idle_worker_tells_a_full_redis_too(start_worker: StartWorker, valkey: ValkeyServer) -> None:
    """No job to claim, so no claim is refused: its health key is. It starts without PING: MISCONF refuses that, too."""
    with SyncRedis.from_url(valkey.url) as server:
        server.execute_command("ACL", "SETUSER", "default", "-ping")
        worker = start_worker(REDIS_URL=valkey.url)
        server.config_set("maxmemory", "1")
        await wait_for_log(worker, "Redis refuses", 15)
        await asyncio.sleep(2)  # several turns, in which it could take a queue that it can read for one that is back
        server.config_set("maxmemory", "0")
    await wait_for_log(worker, "Redis is back", 2)

    assert (worker.log.count("Redis refuses"), worker.log.count("Redis is back")) == (1, 1)


async def test_arqs_class_ends_while_redis_refuses(start_worker: StartWorker, valkey: ValkeyServer) -> None:
    """Its own health key, written every 10 s, ends it with an error; its supervisor and the log tell the operator."""
    worker = start_worker(*COMMANDS["arq"], REDIS_URL=valkey.url)
    with SyncRedis.from_url(valkey.url) as server:
        server.config_set("maxmemory", "1")
        code = await asyncio.to_thread(worker.process.wait, 20)

    assert code not in {None, 0}
    assert "worker stopped" in worker.log  # its engine is disposed


async def test_a_job_that_ends_while_redis_is_dead_is_not_run_again(
    start_worker: StartWorker, sessions: Sessions, tmp_path: Path
) -> None:
    """Killed with a job at work, started again later: the outcome waits for Redis, longer than the lease."""
    with open_valkey(tmp_path / "busy") as valkey:
        url = valkey.url
        worker = start_worker(REDIS_URL=url, WORKER_LEASE="1s", DATABASE_APPLICATION_NAME="busy")
        async with sessions() as blocker, JobClient(url) as client:
            await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
            handle = await client.enqueue(CreateUser(name="Busy"))
            await wait_for_backends(sessions, "busy", 1)
            await asyncio.sleep(1.1)  # the append-only file is written every second
            valkey.kill()
            await blocker.rollback()
    await wait_for_log(worker, '"job done"', 10)
    await asyncio.sleep(1.5)  # longer than the lease

    with open_valkey(tmp_path / "busy", settings={"port": str(urlsplit(url).port)}):
        async with Redis.from_url(url) as redis:
            await wait_for_empty_queue(redis)
            result = json.loads(await redis.get(f"arq:result:{handle.job_id}"))

    assert (result["s"], result["r"]["name"]) == (True, "Busy")
    assert (await users_by_name(sessions), len(events(worker, "job done"))) == ({"Busy": 1}, 1)
    worker.process.kill()


async def test_a_worker_whose_redis_is_killed_while_it_is_busy_closes_everything(
    start_worker: StartWorker, sessions: Sessions, valkey: ValkeyServer
) -> None:
    """Redis stays dead, then SIGTERM: the hook for the end runs, and no connection to PostgreSQL is left."""
    worker = start_worker(REDIS_URL=valkey.url, WORKER_SHUTDOWN_GRACE="1s", DATABASE_APPLICATION_NAME="abandoned")
    async with sessions() as blocker, JobClient(valkey.url) as client:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        await client.enqueue(CreateUser(name="Abandoned"))
        await wait_for_backends(sessions, "abandoned", 1)
        valkey.kill()
        await wait_for_log(worker, "Redis is gone", 20)
        worker.process.terminate()
        await asyncio.to_thread(worker.process.wait, 30)
        await blocker.rollback()

    await wait_for_no_connections(sessions, "abandoned")
    assert "worker stopped" in worker.log
    assert await users_by_name(sessions) == {}
