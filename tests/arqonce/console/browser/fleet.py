"""A real fleet for the browser: a worker, a console behind proxies, and what an operator finds on a common day."""

import json
import math
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.connection.trend import FAILED, RUN, SUCCEEDED, WAIT, count_time, nothing_counted
from arqonce.control import schedules
from arqonce.control.queues import Target, pause, tell_workers
from arqonce.ledger.pauses import WHOLE
from arqonce.outbox import enqueue_in
from arqonce.testing.programs import Process, Programs
from arqonce.testing.worker_process import worker_processes
from tests.arqonce.console.browser.service import NAME, ChargeCard, RenderReport, SendReceipt, SyncStock
from tests.arqonce.console.conftest import TOKENS
from tests.conftest import wait_until, wait_until_async
from tests.faults.proxy import Proxy, open_proxy
from tests.tables import EMPTY_TABLES

Sessions = async_sessionmaker[AsyncSession]

QUEUE = "arq:queue"

MAIL, REPORTS = "mail", "reports"
"""Other queues that the worker serves."""

FORGOTTEN = "mial"
"""A queue that no worker serves, and for which jobs are promised."""

_LIMIT = 30
"""Seconds until a process must be ready, or the worker have done what it is given."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What the browser looks at."""

    url: str
    """Of the console, without a slash at its end."""

    redis_url: str
    redis: Redis
    sessions: Sessions
    to_redis: Proxy
    """Between the console and Redis."""

    to_postgres: Proxy

    def client(self, queue: str = QUEUE) -> JobClient:
        """Return a producer's client of a queue."""
        return JobClient(self.redis_url, queue=queue)


@asynccontextmanager
async def open_fleet(
    programs: Programs, folder: Path, servers: tuple[str, str], sessions: Sessions
) -> AsyncIterator[Fleet]:
    """Start it on empty servers, and empty them at the end. ``servers`` are the URLs of PostgreSQL and Redis."""
    environment = _environment(*servers)
    log = folder / "console.log"
    async with Redis.from_url(servers[1]) as redis:
        with ExitStack() as stack:
            await _empty(redis, sessions)
            start_worker = stack.enter_context(
                worker_processes([sys.executable, "-m", "worker", "run"], environment, folder, programs)
            )
            start_worker()
            proxies = [stack.enter_context(open_proxy(urlsplit(url).port or 0)) for url in servers]
            urls = dict(zip(("DATABASE_URL", "REDIS_URL"), map(_through, servers, proxies), strict=True))
            console = programs.start("worker", "console", environment=environment | urls, output=log)
            stack.callback(_end, console)
            fleet = Fleet(
                url=_address(console, log),
                redis_url=servers[1],
                redis=redis,
                sessions=sessions,
                to_postgres=proxies[0],
                to_redis=proxies[1],
            )
            await _fill(fleet)
            yield fleet
        await _empty(redis, sessions)


def _environment(postgres: str, redis: str) -> dict[str, str]:
    tokens = {name: rights.model_dump(mode="json") for name, rights in TOKENS.items()}
    return os.environ | {
        "DATABASE_URL": postgres,
        "REDIS_URL": redis,
        "WORKER_QUEUE": f"{QUEUE},{MAIL},{REPORTS}",
        "WORKER_REGISTRY": NAME,
        "WORKER_LOG_FORMAT": "json",
        "CONSOLE_PORT": "0",
        "CONSOLE_TOKENS": json.dumps(tokens),
        "PYTHONPATH": str(Path(__file__).parents[4]),
    }


def _through(url: str, proxy: Proxy) -> str:
    """Return the URL of a server through a proxy."""
    return url.replace(f":{proxy.target}/", f":{proxy.port}/")


def _address(console: Process, log: Path) -> str:
    found: list[str] = []

    def is_ready() -> bool:
        assert console.poll() is None, log.read_text()
        found[:] = re.findall(r'"address": ?"(http://[^"]+)/"', log.read_text())
        return bool(found)

    wait_until(is_ready, _LIMIT)
    return found[0]


def _end(process: Process) -> None:
    process.kill()
    process.wait()


async def _empty(redis: Redis, sessions: Sessions) -> None:
    await redis.flushall()
    async with sessions.begin() as session:
        await session.execute(EMPTY_TABLES)


async def _fill(fleet: Fleet) -> None:
    """Let the worker end, fail and run jobs, and leave others waiting, deferred, held and promised."""
    await _write_trend(fleet.redis)
    async with fleet.sessions.begin() as session:
        await pause(session, Target(MAIL, WHOLE), reason="the provider is down", who="joan", length=timedelta(hours=1))
        for number in range(3):
            await enqueue_in(session, SendReceipt(number=number), queue=FORGOTTEN)
    await tell_workers(fleet.redis, fleet.sessions, [MAIL])
    async with fleet.client() as client, fleet.client(MAIL) as mail, fleet.client(REPORTS) as reports:
        receipts = [SendReceipt(number=number) for number in range(40)]
        await mail.enqueue_many(receipts[:12])
        await client.enqueue_many(receipts)
        await client.enqueue_many(receipts[:5], delay=timedelta(hours=2))
        await client.enqueue_many([ChargeCard(number=number) for number in range(3)], keys=_keys("charge", range(3)))
        await client.enqueue_many([SyncStock(shop=shop) for shop in (7, 8)], keys=_keys("stock", (7, 8)))
        years = (2024, 2025)
        await reports.enqueue_many([RenderReport(year=year) for year in years], keys=_keys("report", years))
    await wait_until_async(lambda: _is_done(fleet), _LIMIT)
    await wait_until_async(lambda: _pause_schedule(fleet), _LIMIT)


async def _pause_schedule(fleet: Fleet) -> bool:
    """Return whether the worker has registered it."""
    async with fleet.sessions.begin() as session:
        hour = timedelta(hours=1)
        return bool(await schedules.pause(session, ["stock"], until=hour, who="joan", why="the stock is counted"))


def _keys(name: str, numbers: Iterable[int]) -> list[str]:
    return [f"{name}-{number}" for number in numbers]


async def _is_done(fleet: Fleet) -> bool:
    async with fleet.sessions() as session:
        dead = await session.scalar(text("SELECT count(*) FROM arqonce.dead_jobs"))
    return bool(dead == 3 and await fleet.redis.zcard(QUEUE) == 5)


async def _write_trend(redis: Redis) -> None:
    """Write the last hour of the queues, as workers would have done."""
    now = int(time.time() // 60)
    for queue, scale in ((QUEUE, 1.0), (MAIL, 0.3), (REPORTS, 0.05)):
        async with redis.pipeline(transaction=False) as pipe:
            for ago in range(1, 60):
                pipe.set(f"arqonce:trend:{now - ago}:{queue}", json.dumps(_minute(ago, scale)))
            await pipe.execute()


def _minute(ago: int, scale: float) -> list[float]:
    numbers = nothing_counted()
    load = scale * (1 + 0.5 * math.sin(ago / 9) + (1.5 if 20 < ago < 30 else 0))
    numbers[SUCCEEDED] = round(900 * load)
    numbers[FAILED] = round(60 * scale) if 22 < ago < 27 else 0
    for _ in range(20):
        count_time(numbers, WAIT, 15 * load)
        count_time(numbers, RUN, 40)
    return [*numbers, round(30 * load), 0, 800 * load]
