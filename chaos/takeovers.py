"""Measures how soon a waiting job takes effect after a standby or a replica has taken over.

The time counts from the moment at which the new primary reports that it accepts writes. The waiting job is enqueued
before that. Its effect is its receipt in PostgreSQL.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import asyncpg
from redis import Redis
from redis.exceptions import RedisError

from arqonce.client.client import JobClient
from chaos.fleet import OURS, Fleet
from chaos.plan import MARKER
from chaos.queues import WatchedQueue
from chaos.servers import Needs, Servers
from jobs import CreateUser

NEEDS = {"pg-failover": Needs(has_standby=True), "valkey-failover": Needs(has_replica=True, has_sentinels=True)}
"""The servers that each takeover needs, by the fault's name."""

_LOOK = 0.005
"""Polling interval in seconds, which limits the precision of the figures."""

_LIMIT = timedelta(seconds=60)
"""Longest wait for each step."""

_DUE = timedelta(seconds=0.5)
"""Delay of a waiting job, shorter than any takeover."""

_WORKERS = 2


async def measure_takeovers(servers: Servers, logs: Path, fault: str, *, times: int) -> list[float]:
    """Return the seconds from each takeover to the effect of the job that waited.

    Raises:
        TimeoutError: a job had no effect within a minute.
    """
    take_over = {"pg-failover": _promote, "valkey-failover": _elect}[fault]
    random = Random(1)
    environment = servers.worker_environment | {"WORKER_LOG_FORMAT": "json", "WORKER_SHUTDOWN_GRACE": "5s"}
    if fault == "pg-failover":
        await servers.postgres.add_standby()
    with Fleet.open(OURS, environment, logs, size=_WORKERS) as fleet:
        supervisor = asyncio.create_task(fleet.run())
        async with asyncio.timeout(_LIMIT.total_seconds()):
            await fleet.wait_until_ready()
        samples = [await take_over(servers, f"takeover-{number}", random) for number in range(times)]
        fleet.stop()
        await supervisor
    return samples


async def _promote(servers: Servers, key: str, random: Random) -> float:
    """Kill PostgreSQL's primary, route all connections to the standby, promote it, and wait for the job."""
    cluster = servers.postgres
    await cluster.until_replicated()
    await asyncio.to_thread(cluster.primary.server.kill)
    cluster.lead_to(cluster.standby)
    async with JobClient(servers.redis_url) as client:
        await client.enqueue(CreateUser(name=f"{MARKER} {key}"), key=key)
    connection = await asyncpg.connect(cluster.standby.server.url)
    await asyncio.sleep(random.uniform(0.5, 2.0))
    promoting = asyncio.create_task(cluster.promote())
    await _until(lambda: connection.fetchval("SELECT NOT pg_is_in_recovery()"))
    seconds = await _until_effect(connection, key)
    await connection.close()
    await cluster.replace(await promoting)
    return seconds


async def _elect(servers: Servers, key: str, random: Random) -> float:
    """Kill Valkey's primary, wait until the Sentinels have promoted the replica, and wait for its job."""
    queue = servers.valkey
    assert isinstance(queue, WatchedQueue)  # noqa: S101 - NEEDS asks for it
    await _until(lambda: asyncio.to_thread(queue.is_settled))
    await asyncio.sleep(random.uniform(0.0, 1.0))
    async with JobClient(queue.producer_url) as client:
        await client.enqueue(CreateUser(name=f"{MARKER} {key}"), key=key, delay=_DUE)
    primary, replica = (server.url for server in queue.pair())
    with Redis.from_url(primary) as connected:
        connected.wait(1, 1000)
    await asyncio.to_thread(queue.kill_primary)
    await _until(lambda: asyncio.to_thread(_is_primary, replica))
    connection = await asyncpg.connect(servers.postgres.url)
    seconds = await _until_effect(connection, key)
    await connection.close()
    await asyncio.to_thread(queue.revive)
    return seconds


def _is_primary(url: str) -> bool:
    """Query with a new connection, because the Sentinels close a new primary's existing ones."""
    with suppress(RedisError), Redis.from_url(url) as redis:
        return bool(redis.role()[0] == b"master")
    return False


async def _until_effect(connection: asyncpg.Connection, key: str) -> float:
    started = time.monotonic()
    await _until(lambda: connection.fetchval("SELECT EXISTS (SELECT FROM arqonce.receipts WHERE job_id = $1)", key))
    return time.monotonic() - started


async def _until(look: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(_LIMIT.total_seconds()):
        while not await look():
            await asyncio.sleep(_LOOK)
